// The list of the runs of a folder, live.

let wanted = null; // the name of the curve that the reader has chosen
const drawn = new Map(); // by run: its data as text, and what was drawn of them
const select = h("select", { id: "curve" });
select.addEventListener("change", () => { wanted = select.value; draw(); });

// The names of all curves: metrics first, then losses; those of most runs first.
function curveNames() {
  const found = new Map();
  for (const run of data.runs) {
    for (const [name, { kind }] of Object.entries(run.curves)) {
      const known = found.get(name) || { metric: kind === "metrics", count: 0 };
      found.set(name, { ...known, count: known.count + 1 });
    }
  }
  const player = (name) => /\.(generator|discriminator)$/.test(name); // says little by itself
  return [...found.keys()].sort((a, b) => found.get(b).metric - found.get(a).metric
    || player(a) - player(b) || found.get(b).count - found.get(a).count);
}

function spark(run, name) {
  const own = run.curves[name] ? name : Object.keys(run.curves)[0];
  if (!own) return h("p", { class: "soft" }, "No curve yet");
  const { steps, values } = run.curves[own];
  const [low, high] = [Math.min(...values), Math.max(...values)];
  const end = Math.max(run.of ?? 0, steps.at(-1));
  const x = (step) => 3 + 194 * (end ? step / end : 0);
  const y = (value) => (high > low ? 45 - 42 * ((value - low) / (high - low)) : 24);
  const points = values.map((value, i) => `${x(steps[i]).toFixed(1)} ${y(value).toFixed(1)}`);
  const last = points.at(-1).split(" ");
  const text = values.length > 1 ? `${format(values[0])} to ${format(values.at(-1))}` : format(values[0]);
  return h("figure", {},
    s("svg", { viewBox: "0 0 200 48", role: "img", "aria-label": `${own} of ${run.name}: ${text}` },
      s("path", { d: "M0 47.5H200", stroke: "var(--rule)" }),
      s("path", { d: "M" + points.join("L"), class: "curve", fill: "none", stroke: "var(--line-1)",
        "stroke-width": 1.75, "stroke-linejoin": "round" }),
      s("circle", { cx: last[0], cy: last[1], r: 2.5, fill: "var(--line-1)" })),
    h("figcaption", {}, h("b", {}, own), " ", text));
}

function begun(seconds) {
  const [date, now] = [new Date(1000 * seconds), new Date()];
  const day = date.toDateString() === now.toDateString() ? {} : { day: "numeric", month: "short",
    ...(date.getFullYear() === now.getFullYear() ? {} : { year: "numeric" }) };
  return date.toLocaleString("en-GB", { hour: "2-digit", minute: "2-digit", ...day });
}

function card(run, name) {
  const steps = count(run.step) + (run.of ? ` of ${count(run.of)}` : "");
  const facts = [`step ${steps}`, run.left && `about ${run.left} left`, `begun ${begun(run.since)}`, run.best];
  const state = run.state.split(":")[0];
  return h("article", { class: `run ${state}` },
    h("div", { class: "shot" }, run.grid ? picture({ ...run.grid, uri: run.page + run.grid.uri },
      `Newest images of ${run.name}`) : h("p", { class: "soft" }, "No images yet")),
    h("div", {},
      h("h2", {}, h("a", { href: run.page }, run.name)),
      h("p", {}, h("b", { class: "state" }, run.state)),
      run.of && state === "running" ? h("progress", { value: run.step, max: run.of, "aria-label": `Steps of ${run.name}` }) : null,
      h("p", { class: "soft" }, facts.filter(Boolean).join(", ")),
      run.origin ? h("p", { class: "soft" }, run.origin) : null,
      run.note ? h("p", {}, run.note) : null),
    spark(run, name));
}

function draw() {
  const names = curveNames();
  if (!names.includes(wanted)) wanted = null;
  if (names.join("\n") !== [...select.options].map((each) => each.value).join("\n")) {
    select.replaceChildren(...names.map((name) => h("option", { value: name }, name)));
  }
  select.value = wanted ?? names[0];
  const cards = data.runs.map((run) => { // what has not changed stays as it is
    const text = JSON.stringify([run, select.value]);
    if (drawn.get(run.name)?.text !== text) drawn.set(run.name, { text, card: card(run, select.value) });
    return drawn.get(run.name).card;
  });
  const running = data.runs.filter((run) => run.state === "running").length;
  const some = data.count > data.runs.length ? `, of which the newest ${count(data.runs.length)} are listed` : "";
  document.getElementById("head").replaceChildren(
    h("p", { class: "kicker" }, data.kicker), h("h1", {}, data.name),
    h("p", { class: "summary" }, data.count ? `${count(data.count)} in all${some}; ${count(running)} in training.`
      : "There are none yet. Make one with vgx run RECIPE; it appears here by itself."));
  const main = document.getElementById("main");
  if (!main.querySelector(".runs")) {
    main.append(h("div", { class: "controls" }, h("label", {}, "Curve", select)), h("div", { class: "runs" }));
  }
  main.querySelector(".controls").hidden = !names.length;
  main.querySelector(".runs").replaceChildren(...cards);
}

draw();
follow();
