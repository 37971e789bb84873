// The page of several runs.

const color = (run) => `var(--line-${(run % 6) + 1})`;

function named(run) { // a run's name with its colour in the curves
  const chip = s("svg", { viewBox: "0 0 18 8", "aria-hidden": "true", class: "chip" },
    s("path", { d: "M0 4H18", class: "curve", stroke: color(run),
      "stroke-dasharray": run < 6 ? null : "5 3" }));
  return h("span", { class: "named" }, chip, data.runs[run]);
}

function beside(first, rows, numbers) {
  return table([first, ...data.runs.map((_, run) => named(run))], rows,
    numbers ? data.runs.map((_, run) => run + 1) : []);
}

// The name of a field, which on a phone may be cut after its dots.
function breakable(field) {
  return h("span", {}, field.split(/(?<=\.)/).map((part, i) => [i ? h("wbr", {}) : null, part]));
}

function evaluated(measured) {
  const rows = measured.rows.map((row) => [row.name, ...row.cells.map((cell, run) =>
    run === row.best ? h("strong", { class: "best" }, h("span", { class: "mark" }, "best "), cell) : cell)]);
  return [
    h("h3", {}, measured.title.charAt(0).toUpperCase() + measured.title.slice(1)),
    measured.warning ? h("p", { class: "soft" }, measured.warning) : null,
    beside("figure", rows, true),
  ];
}

function training(progress) {
  const kinds = Object.entries(progress.titles)
    .filter(([kind]) => progress.runs.some((frames) => frames.some((frame) => frame[kind])));
  const slots = kinds.map(([kind, title]) => progress.runs.map((frames, run) => {
    const first = frames.findLast((frame) => frame[kind]);
    if (!first) return { body: h("p", { class: "soft" }, data.runs[run], ": none") };
    const body = figure(first[kind], title, title);
    return { body, show(place) {
      const frame = frames.findLast((each) => each.step <= place && each[kind]) || first;
      const image = body.querySelector("img");
      image.src = frame[kind].uri;
      image.alt = `${title}, ${data.runs[run]}, step ${count(frame.step)}`;
      body.querySelector("figcaption").replaceChildren(named(run), " step " + count(frame.step));
    } };
  }));
  const controls = player(progress.places.length - 1, "Step of the images", (index) => {
    slots.flat().forEach((slot) => slot.show && slot.show(progress.places[index]));
    return "Step " + count(progress.places[index]);
  });
  return [controls, kinds.map(([kind, title], i) => [
    h("h3", {}, title),
    h("p", { class: "soft" }, progress.notes[kind]),
    h("div", { class: "beside" }, slots[i].map((slot) => slot.body)),
  ])];
}

const sections = [section("facts", "The runs", beside("", data.facts, false))];
sections.push(section("differences", "Recipe differences", data.differences.length
  ? beside("field", data.differences.map(([field, ...values]) => [breakable(field), ...values]), false)
  : h("p", {}, "None: all runs have the same recipe.")));
sections.push(section("metrics", "Metrics", data.metrics.tables.length
  ? [h("p", { class: "soft" }, data.metrics.note), data.metrics.tables.map(evaluated)]
  : h("p", {}, "None of these runs was evaluated.")));
if (data.progress.places.length) {
  sections.push(section("images", "Images", training(data.progress)));
}
if (data.curves.groups.length) sections.push(section("curves", "Curves", curves("curves", data.curves, data.curves.along)));

assemble(
  sections,
  data.notices.length ? h("div", { class: "alarm", role: "note" },
    data.notices.map((text) => h("p", {}, text))) : null,
);
