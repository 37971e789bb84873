// The page of one run.

function training(progress) {
  const frames = progress.frames;
  const kinds = Object.entries(progress.titles)
    .filter(([kind]) => frames.some((frame) => frame[kind]));
  const grids = kinds.map(([kind, title]) =>
    figure(frames.findLast((frame) => frame[kind])[kind], title, title));
  const controls = player(frames.length - 1, "Step of the images", (index) => {
    const frame = frames[index];
    kinds.forEach(([kind, title], i) => {
      const image = grids[i].querySelector("img");
      image.hidden = !frame[kind];
      if (frame[kind]) image.src = frame[kind].uri;
      image.alt = title + (frame[kind] ? " at step " : ": no grid of step ") + count(frame.step);
      grids[i].querySelector("figcaption").textContent = image.alt;
    });
    return "Step " + count(frame.step);
  });
  return [progress.notes.map((note) => h("p", { class: "soft" }, note)), controls,
    h("div", { class: "pair" }, grids)];
}

// --- latents ---------------------------------------------------------------------------------

function bars(latents) {
  const title = "KL of each dimension, in nats";
  const most = latents.kl.reduce((a, b) => Math.max(a, b), 1e-9);
  const shown = Math.min(latents.kl.length, 2000); // evenly chosen
  const places = Array.from({ length: shown }, (_, i) => Math.floor((i * latents.kl.length) / shown));
  const part = shown < latents.kl.length ? ` ${count(shown)} of them are drawn, evenly chosen.` : "";
  const [left, tall] = [52, 180];
  const y = (v) => tall - 20 - (v / most) * (tall - 32);
  const plot = responsive("", (box, wide) => {
    const step = (wide - left) / shown;
    const drawn = places.map((place, i) => [latents.kl[place], place, i]).map(([v, place, i]) =>
      s("rect", { fill: latents.active[place] ? "var(--accent)" : "var(--rule)",
        x: (left + i * step).toFixed(2), y: y(v).toFixed(2), width: (step * 0.85).toFixed(2),
        height: Math.max(y(0) - y(v), 0.5).toFixed(2) },
        s("title", {}, `dimension ${latents.order[place]}: ${format(v)} nats`)));
    const marks = ticks(0, most, 3).map((v) => [
      s("path", { d: `M${left} ${y(v)}H${wide}`, stroke: "var(--rule)" }),
      s("text", { ...TEXT, x: left - 8, y: y(v) + 4, "text-anchor": "end" }, format(v)),
    ]);
    const names = [s("text", { ...TEXT, x: left, y: tall - 4 }, "largest"),
      s("text", { ...TEXT, x: wide, y: tall - 4, "text-anchor": "end" }, "smallest")];
    box.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img",
      "aria-label": latents.note }, marks, names, drawn));
  });
  const rows = () => [["dimension", title, "active"],
    ...latents.kl.map((v, i) => [latents.order[i], v, Number(latents.active[i])])];
  return h("figure", {}, h("h3", {}, title), plot, h("figcaption", {}, latents.note, part, " ",
    downloads(title, () => standalone(plot.querySelector("svg"), title), rows)));
}

function map(latents) {
  const range = (i) => {
    const values = latents.points.map((point) => point[i]);
    return [Math.min(...values), Math.max(...values)];
  };
  const [[left, right], [low, high]] = [range(0), range(1)];
  const plot = responsive("", (box, wide) => {
    const tall = Math.round(wide * (wide < 480 ? 1 : 0.62));
    const size = Math.max(26, Math.round(wide / 21));
    const at = ([x, y]) => [
      size / 2 + ((x - left) / (right - left)) * (wide - size),
      tall - size / 2 - ((y - low) / (high - low)) * (tall - size),
    ];
    const dots = latents.points.map(at).map(([x, y]) =>
      s("circle", { cx: x.toFixed(1), cy: y.toFixed(1), r: 2, fill: "var(--soft)",
        opacity: 0.5 }));
    const images = latents.images.map(([index, uri]) => {
      const [x, y] = at(latents.points[index]);
      return s("image", { href: uri, x: (x - size / 2).toFixed(1), y: (y - size / 2).toFixed(1),
        width: size, height: size });
    });
    box.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img",
      "aria-label": latents.note }, dots, images,
      s("text", { ...TEXT, x: wide, y: tall - 4, "text-anchor": "end", class: "axis" }, "first axis"),
      s("text", { ...TEXT, x: 0, y: 11, class: "axis" }, "second axis")));
  });
  const title = "Map of the latents";
  const rows = () => [["first axis", "second axis"], ...latents.points];
  return h("figure", {}, h("h3", {}, title), plot, h("figcaption", {}, latents.note, " ",
    downloads(title, () => standalone(plot.querySelector("svg"), title), rows)));
}

function neighbours(copies) {
  const small = (uri, alt, text) =>
    h("figure", { class: "small" }, picture({ uri }, alt), h("figcaption", {}, text));
  return [
    h("p", {}, copies.note),
    h("div", { class: "near" }, copies.rows.map((row, i) => h("div", {},
      small(row.sample, `Sample ${i + 1}`, "sample, " + row.ratio.toFixed(2)),
      row.near.map(([uri, distance], k) =>
        small(uri, `Training image ${k + 1} nearest to sample ${i + 1}`, distance.toFixed(3)))))),
  ];
}

// --- the audit ---------------------------------------------------------------------------------

function checked(audit) {
  const networks = Object.keys((audit.flows[0] || { norms: {} }).norms);
  return [
    h("h3", {}, "Networks"),
    table(["network", "part", "shapes", "parameters", "trained"],
      audit.rows.map((row) => [row.network, row.part, row.shapes, count(row.parameters),
        count(row.trained)]), [3, 4]),
    h("h3", {}, "Gradient norm of each unweighted term in each network, on the first batch"),
    table(["term", ...networks, "value"], audit.flows.map((flow) => [flow.label,
      ...networks.map((name) => format(flow.norms[name])), format(audit.losses[flow.label])]),
      [...networks.keys()].map((i) => i + 1).concat(networks.length + 1)),
    audit.notes.length ? h("h3", {}, "Notes") : null,
    audit.notes.map((note) => h("p", {}, note)),
  ];
}

// What the log says of step 0 are notices about the data and the networks: nothing went wrong.
function notes(all) {
  const place = (step) => (step === null ? "" : step ? `Step ${count(step)}: ` : "Notice: ");
  const box = (kind, some) => (some.length ? h("div", { class: kind, role: "note" },
    some.map(({ step, text }) => h("p", {}, h("b", {}, place(step)), text))) : null);
  return [box("alarm", all.filter(({ step }) => step !== 0)),
    box("notice", all.filter(({ step }) => step === 0))];
}

function draw() {
  const sections = [];
  charts = [];
  if (data.progress.frames.length) {
    sections.push(section("progress", "During training", training(data.progress)));
  }
  if (data.curves) sections.push(section("curves", "Curves", curves("curves", data.curves, data.curves.along)));
  if (data.prior) sections.push(section("prior", "The prior", curves("prior", data.prior, data.prior.along)));
  if (data.samples.length) {
    sections.push(section("samples", "Samples",
      h("p", { class: "soft" }, data.samples_note, h("code", {}, data.samples_command)),
      h("div", { class: "pile" }, data.samples.map((drawn) => h("div", {},
        h("h3", {}, drawn.sampler),
        drawn.image ? figure(drawn.image, `Images drawn with the sampler ${drawn.sampler}`,
          drawn.note) : h("p", { class: "soft" }, drawn.note))))));
  }
  if (data.reconstructions) {
    sections.push(section("reconstructions", "Reconstructions",
      figure(data.reconstructions, "Real images, each row above its reconstructions",
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
      data.metrics.tables.map((measured) => [h("h3", {}, measured.title),
        table(measured.header, measured.rows, measured.header.map((_, i) => i).slice(1))])));
  }
  if (data.drawing) {
    sections.push(section("drawing", "The experiment", h("div", { class: "scroll wide", tabindex: 0 },
      picture(data.drawing, data.drawing.alt))));
  }
  if (data.audit) {
    sections.push(section("audit", "Checked before the first step", checked(data.audit)));
  }
  if (data.family && data.family.length) {
    const name = (row) => h("code", {}, row.line, row.own ? h("strong", {}, row.run) : row.run);
    sections.push(section("family", "Where it comes from", table(["run", "state", "steps", ""],
      data.family.map((row) => [name(row), row.state, row.steps, row.origin]), [2])));
  }
  sections.push(section("made", "Data and environment", pairs(data.made, "list")));
  const copy = h("button", { type: "button" }, "Copy");
  copy.addEventListener("click", () =>
    navigator.clipboard.writeText(data.recipe).then(() => { copy.textContent = "Copied"; }));
  sections.push(section("recipe", "Recipe",
    h("details", {}, h("summary", {}, "The resolved recipe, with every default"),
      navigator.clipboard ? copy : null, h("pre", { tabindex: 0 }, data.recipe))));

  assemble(
    sections,
    ...notes(data.warnings),
    pairs(data.facts, "facts"),
  );
}

draw();
if (data.live) follow();
