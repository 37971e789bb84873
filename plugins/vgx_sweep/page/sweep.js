// The page of a study. A point has a place on each axis: a number, or which one of the values.

// The weight of a loss is shown with the name of the loss.
function titled(field) {
  const place = /^losses\.(\d+)\./.exec(field);
  const loss = place && data.losses[place[1]];
  return loss ? `${field} (${loss})` : field;
}
for (const each of [...data.axes, ...data.importances]) each.field = titled(each.field);

const done = data.points.filter((point) => point.mean !== null);

// Points with the same value of a list stand side by side, the best on the left: from -12 to 12.
const aside = (axis, i) => axis.choices && done.length > 1 ? 24 * (i / (done.length - 1) - 0.5) : 0;

// The share of an axis at which a place lies, from 0 to 1; the values of a list are spread evenly.
function share(axis, place) {
  if (axis.choices) return axis.choices.length < 2 ? 0.5 : place / (axis.choices.length - 1);
  const scale = axis.log ? Math.log : (value) => value;
  return (scale(place) - scale(axis.low)) / (scale(axis.high) - scale(axis.low));
}

// Ticks of an axis: [share, text].
function marksOf(axis, wanted) {
  if (axis.choices) {
    const every = Math.ceil(axis.choices.length / wanted);
    return axis.choices.map((text, i) => [share(axis, i), text]).filter((_, i) => i % every === 0);
  }
  const { low, high } = axis;
  const places = axis.log ? powers(Math.log10(low), Math.log10(high)).map((power) => 10 ** power)
    : ticks(low, high, wanted);
  const kept = places.length > 2 * wanted ? places.filter((_, i) => i % 3 === 0) : places;
  const texts = axis.log ? kept.map((place) => format(Number(place.toPrecision(6)))) : marked(kept);
  return kept.map((place, i) => [share(axis, place), texts[i]]);
}

const means = done.map((point) => point.mean);
const reach = [Math.min(...means), Math.max(...means)];
const some = reach[0] === reach[1] ? 0.5 : 0; // an axis has a length
const figureAxis = { field: data.by, low: reach[0] - some, high: reach[1] + some };

const named = (point) => `trial ${point.trial}: ` + data.axes.map((axis, i) =>
  `${axis.field} ${point.cells[i]}`).join(", ") + `; ${data.by} ${point.text}`;

// Text that ends inside of the drawing, wherever it stands.
function label(x, y, wide, text, attributes) {
  const anchor = x < wide * 0.12 ? "start" : x > wide * 0.88 ? "end" : "middle";
  return s("text", { ...TEXT, x, y, "text-anchor": anchor, ...attributes }, text);
}

// Parallel coordinates. The axes lie below one another, so that their names have room on a phone.
function parallel() {
  const selected = h("p", { class: "soft", "aria-live": "polite" }, "Point at a line to read it.");
  const axes = [...data.axes, figureAxis];
  const box = responsive("chart", (plot, wide) => {
    const gap = 74, left = 8, right = wide - 8;
    const along = (axis, part) => {
      const inset = axis.choices ? 12 : 0;
      return left + inset + part * (right - left - 2 * inset);
    };
    const tall = gap * (axes.length - 1) + 62;
    const row = (i) => 26 + i * gap;
    const lines = done.map((point, i) => {
      const places = [...point.places, point.mean];
      const good = i < Math.max(1, Math.round(done.length / 5));
      const line = s("path", { fill: "none", "stroke-width": good ? 2 : 1.25,
        stroke: good ? "var(--accent)" : "var(--soft)", opacity: good ? 0.95 : 0.4,
        d: places.map((place, k) => `${k ? "L" : "M"}${(along(axes[k], share(axes[k], place)) + aside(axes[k], i)).toFixed(1)} ${row(k)}`).join("") });
      const wider = s("path", { d: line.getAttribute("d"), fill: "none", stroke: "transparent",
        "stroke-width": 12, class: "passing" }, s("title", {}, named(point)));
      wider.addEventListener("pointerenter", () => {
        line.setAttribute("stroke-width", 4);
        line.setAttribute("opacity", 1);
        selected.textContent = named(point);
      });
      wider.addEventListener("pointerleave", () => {
        line.setAttribute("stroke-width", good ? 2 : 1.25);
        line.setAttribute("opacity", good ? 0.95 : 0.4);
      });
      return [line, wider];
    }).reverse(); // the best is drawn last
    const rules = axes.map((axis, i) => [
      s("path", { d: `M${left} ${row(i)}H${right}`, stroke: "var(--rule)", "stroke-width": 2 }),
      s("text", { ...TEXT, x: 0, y: row(i) - 10, "font-weight": 600, stroke: "var(--background)",
        "stroke-width": 4, "paint-order": "stroke", fill: "var(--foreground)" },
      axis.field + (axis.log ? ", logarithmic" : "") +
        (axis === figureAxis ? `, ${data.better} is better` : "")),
      marksOf(axis, wide < 480 ? 3 : 6).map(([part, text]) => label(along(axis, part),
        row(i) + 17, wide, text, { stroke: "var(--background)", "stroke-width": 4, "paint-order": "stroke" })),
    ]);
    plot.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img",
      "aria-label": "Parallel coordinates: a line for each point" },
    lines.map(([line]) => line), rules, lines.map(([, wider]) => wider)));
  });
  const rows = () => [["trial", ...data.axes.map((axis) => axis.field), data.by],
    ...done.map((point) => [point.trial, ...point.cells, point.mean])];
  return [h("p", { class: "soft" }, "A line for each point; the best fifth in colour."), box, selected,
    h("p", {}, downloads("points", () => standalone(box.querySelector("svg"), "Points"), rows))];
}

// A field against the figure; the bars are the spread over seeds.
function slice(axis, index) {
  const box = responsive("chart", (plot, wide) => {
    const tall = 220, area = { left: 52, right: wide - 12, top: 12, bottom: tall - 34 };
    const spread = done.map((point) => point.spread ?? 0);
    const low = Math.min(...done.map((point, i) => point.mean - spread[i]));
    const high = Math.max(...done.map((point, i) => point.mean + spread[i]));
    const room = (high - low || 1) * 0.08;
    const y = (value) => area.bottom - ((value - low + room) / (high - low + 2 * room || 1)) *
      (area.bottom - area.top);
    const inset = axis.choices ? 24 : 6;
    const x = (part) => area.left + inset + part * (area.right - area.left - 2 * inset);
    const levels = ticks(low - room, high + room, 4);
    const texts = marked(levels);
    plot.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img",
      "aria-label": `${data.by} against ${axis.field}` },
    levels.map((value, i) => [
      s("path", { d: `M${area.left} ${y(value).toFixed(1)}H${area.right}`, stroke: "var(--rule)" }),
      s("text", { ...TEXT, x: area.left - 8, y: y(value) + 4, "text-anchor": "end" }, texts[i])]),
    marksOf(axis, wide < 340 ? 2 : 4).map(([part, text]) => label(x(part), tall - 14, wide, text, {})),
    done.map((point, i) => {
      const at = (x(share(axis, point.places[index])) + aside(axis, i)).toFixed(1);
      return s("g", {}, s("title", {}, named(point)),
        spread[i] ? s("path", { d: `M${at} ${y(point.mean - spread[i]).toFixed(1)}V${y(point.mean + spread[i]).toFixed(1)}`,
          stroke: "var(--accent)", "stroke-width": 1.25, opacity: 0.6 }) : null,
        s("circle", { cx: at, cy: y(point.mean).toFixed(1), r: i === 0 ? 5 : 3.5, fill: "var(--accent)",
          opacity: i === 0 ? 1 : 0.65 }));
    })));
  });
  const rows = () => [["trial", axis.field, data.by, "spread"],
    ...done.map((point) => [point.trial, point.cells[index], point.mean, point.spread])];
  const title = axis.field + (axis.log ? ", logarithmic" : "");
  return h("figure", {}, h("h3", {}, title), box, h("figcaption", { class: "below" },
    downloads(axis.field, () => standalone(box.querySelector("svg"), `${data.by} against ${title}`), rows)));
}

// Bars with whiskers: [name, value, half of the whisker].
function bars(rows, percent) {
  return responsive("chart", (plot, wide) => {
    const step = 46, tall = rows.length * step + 24;
    const least = percent ? 0 : -Infinity; // no share is below it
    const from = (value, half) => Math.max(value - half, least);
    const ends = rows.flatMap(([, value, half]) => [from(value, half ?? 0), value + (half ?? 0), 0]);
    const low = Math.min(...ends), high = Math.max(...ends) || 1;
    const x = (value) => 4 + ((value - low) / (high - low || 1)) * (wide - 8);
    const levels = ticks(low, high, wide < 480 ? 3 : 6);
    const texts = percent ? levels.map((value) => `${Math.round(value * 100)} %`) : marked(levels);
    plot.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label": "Bars" },
      levels.map((value, i) => [
        s("path", { d: `M${x(value).toFixed(1)} 0V${tall - 20}`, stroke: "var(--rule)" }),
        label(x(value), tall - 5, wide, texts[i], {})]),
      rows.map(([name, value, half], i) => {
        const top = i * step + 20;
        return [
          s("text", { ...TEXT, x: 0, y: top - 6, fill: "var(--foreground)", stroke: "var(--background)",
            "stroke-width": 4, "paint-order": "stroke" }, name),
          s("rect", { x: Math.min(x(0), x(value)), y: top, width: Math.abs(x(value) - x(0)), height: 14, fill: "var(--accent)",
            opacity: 0.75 }),
          half ? s("path", { d: `M${x(from(value, half))} ${top + 7}H${x(value + half)}M${x(from(value, half))} ${top + 3}v8M${x(value + half)} ${top + 3}v8`,
            stroke: "var(--foreground)", "stroke-width": 1.5, fill: "none" }) : null];
      })));
  });
}

const sections = [section("facts", "The study", pairs(data.facts, "facts"))];
if (data.ablation) {
  const rows = data.differences.map((each) => [each.name, each.difference, each.interval]);
  sections.push(section("differences", "What leaving out changes",
    h("p", { class: "soft" }, `${data.by} without it minus ${data.by} with it, mean over pairs of runs with ` +
      `the same seed; ${data.better} is better. Whiskers: the 95 % interval of each mean.`),
    bars(rows, false), table(data.ablation.header, data.ablation.rows, [1, 2, 3, 4, 5])));
}
sections.push(section("trials", "Trials", table(
  ["trial", data.by, ...data.axes.map((axis) => axis.field), "state", "runs"],
  data.points.map((point, i) => [count(point.trial),
    i === 0 && point.mean !== null && !data.ablation ? h("strong", { class: "best" }, point.text) : point.text,
    ...point.cells.map((text) => h("span", { class: "named" }, text)), point.state,
    h("span", { class: "named" }, point.runs.join(" ") || "-")]), [0, 1])));
const failed = data.points.filter((point) => point.reason);
if (failed.length) {
  sections.push(section("failed", "Why trials failed", pairs(failed.map((point) =>
    [`trial ${point.trial}`, point.reason]), "list")));
}
if (data.importances.length) {
  sections.push(section("importance", "Importance", h("p", { class: "soft" },
    "How much of the differences between points comes from each field (fANOVA). Whiskers: one standard " +
    "deviation over other points, seeds and forests."),
  bars(data.importances.map((each) => [each.field, each.mean, each.spread]), true)));
}
if (done.length > 1 && !data.ablation) {
  sections.push(section("points", "All points", parallel()));
  sections.push(section("slices", "Each field", h("p", { class: "soft" },
    `${data.by} of each point; bars are one standard deviation over seeds. ` +
    "The largest dot is the best point."),
  h("div", { class: "pile" }, data.axes.map(slice))));
}
if (data.images.length) {
  sections.push(section("images", "Images", h("p", { class: "soft" },
    "The newest grid of each trial's first run, the best trial first."),
  h("div", { class: "beside" }, data.images.map((each) => {
    const point = data.points[each.point];
    return figure(each.image, `Images of ${named(point)}`,
      `T${named(point).slice(1)}; ${each.run}, step ${count(each.step)}`);
  }))));
}
if (data.recipe) sections.push(section("recipe", "The best recipe", h("pre", {}, data.recipe)));

assemble(
  sections,
  data.notices.length ? h("div", { class: "alarm", role: "note" },
    data.notices.map((text) => h("p", {}, text))) : null,
);
