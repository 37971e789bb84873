// The page of one run.

function training(frames) {
  const shown = [["samples", "Fixed latents"], ["recon", "Real above reconstruction"]]
    .filter(([kind]) => frames.at(-1)[kind]);
  const pictures = shown.map(([kind, title]) => picture(frames.at(-1)[kind], title, title));
  const controls = player(frames.length - 1, "Step of the pictures", (index) => {
    const frame = frames[index];
    shown.forEach(([kind, title], i) => {
      const image = pictures[i].querySelector("img");
      if (frame[kind]) image.src = frame[kind].uri;
      image.alt = title + " at step " + say(frame.step);
      pictures[i].querySelector("figcaption").textContent = image.alt;
    });
    return "Step " + say(frame.step);
  });
  return [controls, h("div", { class: "pair" }, pictures)];
}

function logged(shown) {
  const groups = shown.groups.map((group) => ({
    title: group.title,
    lines: Object.entries(group.lines).map(([name, values], colour) =>
      ({ name, colour, values, axes: { step: group.steps } })),
  }));
  return curves(shown.note, groups, ["step"]);
}

// --- latents ---------------------------------------------------------------------------------

function bars(shown) {
  const most = Math.max(...shown.kl, 1e-9);
  const [left, tall] = [52, 180];
  const y = (v) => tall - 20 - (v / most) * (tall - 32);
  const plot = fitted("", (box, wide) => {
    const step = (wide - left) / shown.kl.length;
    const drawn = shown.kl.map((v, i) => s("rect", { class: shown.active[i] ? "bar active" : "bar",
      x: (left + i * step).toFixed(2), y: y(v).toFixed(2), width: (step * 0.85).toFixed(2),
      height: Math.max(y(0) - y(v), 0.5).toFixed(2) },
      s("title", {}, `dimension ${shown.order[i]}: ${figures(v)} nats`)));
    const marks = ticks(0, most, 3).map((v) => [
      s("path", { d: `M${left} ${y(v)}H${wide}`, class: "grid" }),
      s("text", { x: left - 8, y: y(v) + 4, "text-anchor": "end" }, figures(v)),
    ]);
    const names = [s("text", { x: left, y: tall - 4 }, "largest"),
      s("text", { x: wide, y: tall - 4, "text-anchor": "end" }, "smallest")];
    box.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img",
      "aria-label": shown.note }, marks, names, drawn));
  });
  return h("figure", {}, h("h3", {}, "KL of each dimension, in nats"), plot,
    h("figcaption", {}, shown.note));
}

function map(shown) {
  const range = (i) => {
    const values = shown.points.map((point) => point[i]);
    return [Math.min(...values), Math.max(...values)];
  };
  const [[left, right], [low, high]] = [range(0), range(1)];
  const plot = fitted("", (box, wide) => {
    const tall = Math.round(wide * (wide < 480 ? 1 : 0.62));
    const size = Math.max(26, Math.round(wide / 21));
    const at = ([x, y]) => [
      size / 2 + ((x - left) / (right - left)) * (wide - size),
      tall - size / 2 - ((y - low) / (high - low)) * (tall - size),
    ];
    const dots = shown.points.map(at).map(([x, y]) =>
      s("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 2, class: "dot" }));
    const pictures = shown.pictures.map(([index, uri]) => {
      const [x, y] = at(shown.points[index]);
      return s("image", { href: uri, x: (x - size / 2).toFixed(1), y: (y - size / 2).toFixed(1),
        width: size, height: size });
    });
    box.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img",
      "aria-label": shown.note }, dots, pictures));
  });
  return h("figure", {}, h("h3", {}, "Map of the latents"), plot, h("figcaption", {}, shown.note));
}

function neighbours(shown) {
  const small = (uri, alt, text) =>
    h("figure", { class: "small" }, h("img", { src: uri, alt }), h("figcaption", {}, text));
  return [
    h("p", {}, shown.note),
    h("div", { class: "near" }, shown.rows.map((row, i) => h("div", {},
      small(row.sample, `Sample ${i + 1}`, "sample, " + row.ratio.toFixed(2)),
      row.near.map(([uri, distance], k) =>
        small(uri, `Training picture ${k + 1} nearest to sample ${i + 1}`, distance.toFixed(3)))))),
  ];
}

// --- what was known before, and with what ------------------------------------------------------

function checked(audit) {
  const networks = Object.keys((audit.flows[0] || { norms: {} }).norms);
  return [
    h("h3", {}, "Networks"),
    table(["network", "part", "shapes", "parameters", "trained"],
      audit.rows.map((row) => [row.network, row.part, row.shapes, say(row.parameters),
        say(row.trained)]), [3, 4]),
    h("h3", {}, "Gradient norm of each unweighted term in each network, on the first batch"),
    table(["term", ...networks, "value"], audit.flows.map((flow) => [flow.label,
      ...networks.map((name) => figures(flow.norms[name])), figures(audit.losses[flow.label])]),
      [...networks.keys()].map((i) => i + 1).concat(networks.length + 1)),
    audit.notes.length ? h("h3", {}, "Notes") : null,
    audit.notes.map((note) => h("p", {}, note)),
  ];
}

const sections = [];
if (data.progress.frames.length) {
  sections.push(section("progress", "While it trained", h("p", { class: "soft" }, data.progress.note),
    training(data.progress.frames)));
}
if (data.curves) sections.push(section("curves", "Curves", logged(data.curves)));
if (data.samples.length) {
  sections.push(section("samples", "Samples", 
    h("p", { class: "soft" }, data.samples_note, h("code", {}, data.samples_command)),
    h("div", { class: "pile" }, data.samples.map((shown) => h("div", {},
      h("h3", {}, shown.sampler),
      shown.picture ? picture(shown.picture, `Pictures drawn with the sampler ${shown.sampler}`,
        shown.note) : h("p", { class: "soft" }, shown.note))))));
}
if (data.reconstructions) {
  sections.push(section("reconstructions", "Reconstructions",
    picture(data.reconstructions, "Real pictures, each row above its reconstructions",
      data.reconstructions.note)));
}
if (data.kl || data.map) {
  sections.push(section("latents", "Latents", data.kl ? bars(data.kl) : null,
    data.map ? map(data.map) : null));
}
if (data.neighbours) {
  sections.push(section("neighbours", "Is it copying?", neighbours(data.neighbours)));
}
if (data.metrics) {
  sections.push(section("metrics", "Metrics", data.metrics.notes.map((note) => h("p", { class: "soft" }, note)),
    data.metrics.tables.map((shown) => [h("h3", {}, shown.title),
      table(shown.header, shown.rows, shown.header.map((_, i) => i).slice(1))])));
}
if (data.drawing) {
  sections.push(section("drawing", "The experiment", h("div", { class: "scroll wide", tabindex: 0 },
    h("img", { src: data.drawing.uri, alt: data.drawing.alt }))));
}
if (data.audit) {
  sections.push(section("audit", "Checked before the first step", checked(data.audit)));
}
sections.push(section("made", "Data and environment", pairs(data.made, "list")));
sections.push(section("recipe", "Recipe",
  h("details", {}, h("summary", {}, "The resolved recipe, every default written out"),
    h("pre", { tabindex: 0 }, data.recipe))));

assemble(
  sections,
  data.warnings.length ? h("div", { class: "alarm", role: "note" }, data.warnings.map((warning) =>
    h("p", {}, h("b", {}, warning.step === null ? "" : `Step ${say(warning.step)}: `), warning.text))) : null,
  pairs(data.facts, "facts"),
);
