
// --- a page that is served and follows its runs ----------------------------------------------

function follow() {
  const status = h("p", { class: "live", role: "status" });
  document.body.append(status);
  let version = data.live.version;
  let next = null; // a state that is not drawn yet
  let pressed = false;
  window.addEventListener("pointerdown", () => { pressed = true; }, true);
  for (const name of ["pointerup", "pointercancel"]) {
    window.addEventListener(name, () => { pressed = false; }, true);
  }
  const say = () => {
    const now = new Date().toLocaleTimeString("en-GB");
    status.textContent = data.live.state === "running" ? `Live, ${now}`
      : `Not training: ${data.live.state}. vgx report writes the page with samples.`;
  };
  function again() { // whatever the reader has chosen stays
    const [left, top, focused] = [scrollX, scrollY, document.activeElement.id];
    const open = [...document.querySelectorAll("details")].map((details) => details.open);
    data = next;
    next = null;
    draw();
    charts.forEach((each) => each.draw());
    document.querySelectorAll("details").forEach((details, i) => { details.open = open[i]; });
    if (focused) document.getElementById(focused)?.focus({ preventScroll: true });
    scrollTo(left, top);
  }
  async function look() {
    try {
      const answer = await fetch("state?" + version);
      if (answer.status === 200) {
        next = await answer.json();
        version = next.live.version;
      } else if (answer.status !== 204) throw new Error(answer.statusText);
      const busy = pressed || alone.dialog.open || !getSelection().isCollapsed;
      if (next && !busy) again();
      say();
    } catch (error) {
      status.textContent = "Not connected: vgx watch has ended, or cannot be reached.";
    }
    setTimeout(look, 2000);
  }
  say();
  setTimeout(look, 2000);
}

