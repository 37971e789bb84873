
// --- an image alone --------------------------------------------------------------------------

// Each pixel of the image is a square of whole pixels of the screen.
const alone = (() => {
  const image = h("img", { alt: "No image" });
  const paper = h("div", { class: "paper", tabindex: 0 }, image);
  const text = h("output", {});
  const named = (name, sign, act) => {
    const button = h("button", { type: "button", "aria-label": name, title: name }, sign);
    button.addEventListener("click", act);
    return button;
  };
  const dialog = h("dialog", { class: "alone", "aria-label": "Enlarged image" },
    h("div", { class: "controls" },
      named("Previous image", "←", () => go(-1)), named("Next image", "→", () => go(1)),
      named("Smaller", "−", () => scale(zoom - 1)), named("Larger", "+", () => scale(zoom + 1)),
      named("Close", "Close", () => dialog.close()), text), paper);
  let source = null;
  let zoom = 1;

  function scale(wanted) {
    const ratio = window.devicePixelRatio;
    zoom = Math.min(Math.max(1, wanted), Math.max(32, fitting()));
    image.style.width = (image.naturalWidth * zoom) / ratio + "px";
    image.style.height = (image.naturalHeight * zoom) / ratio + "px";
    text.textContent = `${zoom}x. ${source.alt}${source.dataset.loss ? ` (${source.dataset.loss})` : ""}`;
  }
  function fitting() { // the largest whole factor with which the image fits, at least 1
    const ratio = window.devicePixelRatio;
    return Math.max(1, Math.floor(Math.min(paper.clientWidth * ratio / image.naturalWidth,
      paper.clientHeight * ratio / image.naturalHeight)));
  }
  async function show(chosen) {
    source = chosen;
    image.src = source.src;
    image.alt = source.alt;
    await image.decode().catch(() => null); // one that is broken is shown as broken
    if (image.naturalWidth) scale(fitting());
  }
  function go(by) {
    const all = [...document.querySelectorAll(".zoom img")].filter((each) => each.offsetParent);
    const at = all.indexOf(source);
    show(all[(at + by + all.length) % all.length]);
  }
  dialog.addEventListener("keydown", (event) => {
    const acts = { ArrowLeft: () => go(-1), ArrowRight: () => go(1), "+": () => scale(zoom + 1),
      "=": () => scale(zoom + 1), "-": () => scale(zoom - 1) };
    if (!acts[event.key] || event.ctrlKey || event.metaKey) return;
    event.preventDefault();
    acts[event.key]();
  });
  dialog.addEventListener("click", (event) => { // beside the image
    if (event.target === dialog || event.target === paper) dialog.close();
  });
  document.body.append(dialog);
  return { dialog, show };
})();

function enlarge(image) {
  alone.dialog.showModal();
  alone.show(image);
}
