"use strict";
// Draws the page from the data in it. All text goes in as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);

function element(space, name, attributes, children) {
  const made = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) made.setAttribute(key, value);
  }
  for (const child of children.flat(3)) {
    if (child !== null && child !== undefined) made.append(child);
  }
  return made;
}
const h = (name, attributes, ...children) => element(null, name, attributes, children);
const s = (name, attributes, ...children) =>
  element("http://www.w3.org/2000/svg", name, attributes, children);
const say = (number) => number.toLocaleString("en-GB");

function figures(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-4 ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(4)));
}

function picture(shown, alt, caption) {
  const kind = shown.width < 200 ? "small" : null;
  const image = h("img", { src: shown.uri, alt, width: shown.width, height: shown.height });
  return h("figure", { class: kind }, image, caption ? h("figcaption", {}, caption) : null);
}

function table(header, rows, numbers) {
  const cell = (name) => (text, i) => h(name, { class: numbers.includes(i) ? "number" : null }, text);
  const head = h("thead", {}, h("tr", {}, header.map(cell("th"))));
  const body = h("tbody", {}, rows.map((row) => h("tr", {}, row.map(cell("td")))));
  return h("div", { class: "scroll", tabindex: 0 }, h("table", {}, head, body));
}

function pairs(values, kind) {
  return h("dl", { class: kind }, values.map(([name, value]) =>
    h("div", {}, h("dt", {}, name), h("dd", {}, value))));
}

function fitted(kind, draw) { // a box whose drawing is as wide as it: text keeps its size on a phone
  const box = h("div", { class: kind });
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    draw(box, Math.max(width, 260));
  }).observe(box);
  return box;
}

// --- the pictures of training ----------------------------------------------------------------

function training(frames) {
  const last = frames.length - 1;
  const shown = [["samples", "Fixed latents"], ["recon", "Real above reconstruction"]]
    .filter(([kind]) => frames[last][kind]);
  const figuresOf = shown.map(([kind, title]) => picture(frames[last][kind], title, title));
  const slider = h("input", { type: "range", min: 0, max: last, value: last, id: "step",
    "aria-label": "Step of the pictures" });
  const label = h("output", { for: "step" });
  const button = h("button", { type: "button" }, "Play");
  let timer = null;
  function show() {
    const frame = frames[slider.value];
    label.textContent = "Step " + say(frame.step);
    slider.setAttribute("aria-valuetext", label.textContent);
    shown.forEach(([kind, title], i) => {
      const image = figuresOf[i].querySelector("img");
      if (frame[kind]) image.src = frame[kind].uri;
      image.alt = title + " at step " + say(frame.step);
      figuresOf[i].querySelector("figcaption").textContent = image.alt;
    });
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }
  slider.addEventListener("input", () => { stop(); show(); });
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Stop";
    if (Number(slider.value) === last) slider.value = 0;
    show();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      show();
      if (Number(slider.value) === last) stop();
    }, 350);
  });
  show();
  return [h("div", { class: "controls" }, button, slider, label), h("div", { class: "pair" }, figuresOf)];
}

// --- curves ----------------------------------------------------------------------------------

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((n) => n * power >= rough * 0.999) * power;
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-6; at += step) {
    found.push(Number(at.toPrecision(12)));
  }
  return found;
}

function powers(low, high) { // 0.01, 0.1, 1; and 2 and 5 of each where there are few
  const found = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    for (const n of high - low < 2 ? [1, 2, 5] : [1]) found.push(Math.log10(n) + power);
  }
  return found.filter((at) => at >= low - 1e-9 && at <= high + 1e-9);
}

function smoothed(values, share) { // a running mean that forgets, without the start's bias
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = share * sum + (1 - share) * value;
    weight = share * weight + (1 - share);
    return sum / weight;
  });
}

function chart(title, steps, lines, settings) {
  const names = Object.keys(lines);
  const plot = fitted("chart", () => draw());
  const readings = names.map(() => h("b", {}));
  const stroke = (i) => `var(--line-${(i % 6) + 1})`;
  const dash = (i) => (i < 6 ? null : "5 3");
  const key = (i) => s("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" },
    s("path", { d: "M0 4H18", class: "curve", stroke: stroke(i), "stroke-dasharray": dash(i) }));
  const where = h("li", { class: "soft" });
  const legend = h("ul", { class: "legend", "aria-live": "off" }, where,
    names.map((name, i) => h("li", {}, key(i), name, readings[i])));
  let at = steps.length - 1;
  let linear = "";

  function read() {
    where.textContent = "step " + say(steps[at]) + linear;
    names.forEach((name, i) => { readings[i].textContent = figures(lines[name][at]); });
  }
  function draw() {
    const wide = Math.max(plot.clientWidth, 260);
    const tall = Math.round(Math.min(260, Math.max(180, wide * 0.42)));
    const box = { left: 52, right: wide - 8, top: 8, bottom: tall - 24 };
    const log = settings.log && names.every((name) => lines[name].every((v) => v === null || v > 0));
    linear = settings.log && !log ? " (not all above 0, so linear)" : "";
    const scale = (v) => (v === null ? null : log ? Math.log10(v) : v);
    const raw = names.map((name) => lines[name].map(scale));
    const even = names.map((name) => smoothed(lines[name], settings.smoothing).map(scale));
    const all = raw.flat().filter((v) => v !== null);
    let [low, high] = [Math.min(...all), Math.max(...all)];
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    const [first, end] = [steps[0], Math.max(steps[steps.length - 1], steps[0] + 1)];
    const x = (step) => box.left + ((step - first) / (end - first)) * (box.right - box.left);
    const y = (v) => box.bottom - ((v - low) / (high - low)) * (box.bottom - box.top);
    const path = (values) => {
      let pen = "M";
      return values.map((v, i) => {
        if (v === null) { pen = "M"; return ""; }
        const point = pen + x(steps[i]).toFixed(1) + " " + y(v).toFixed(1);
        pen = "L";
        return point;
      }).join("");
    };
    const marks = log ? powers(low, high) : ticks(low, high, 5);
    const across = marks.map((v) => [
      s("path", { d: `M${box.left} ${y(v).toFixed(1)}H${box.right}`, class: "grid" }),
      s("text", { x: box.left - 8, y: y(v) + 4, "text-anchor": "end" }, figures(log ? 10 ** v : v)),
    ]);
    const below = ticks(first, end, wide < 480 ? 3 : 6).filter(Number.isInteger).map((step) =>
      s("text", { x: x(step), y: tall - 6, "text-anchor": x(step) > wide - 30 ? "end" : "middle" },
        say(step)));
    const drawn = even.map((values, i) => [
      settings.smoothing ? s("path", { d: path(raw[i]), class: "raw", stroke: stroke(i) }) : null,
      s("path", { d: path(values), class: "curve", stroke: stroke(i), "stroke-dasharray": dash(i) }),
    ]);
    const lone = steps.length > 1 ? [] : raw.map((values, i) => values[0] === null ? null :
      s("circle", { cx: x(steps[0]), cy: y(values[0]), r: 3, fill: stroke(i) }));
    const cursor = s("path", { class: "cursor", d: "" });
    plot.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img",
      "aria-label": `${title}: ${names.join(", ")} by step` }, across, below, drawn, lone, cursor));
    const point = (index) => {
      at = index;
      cursor.setAttribute("d", `M${x(steps[at])} ${box.top}V${box.bottom}`);
      read();
    };
    plot.onpointermove = plot.onpointerdown = (event) => {
      const frame = plot.getBoundingClientRect();
      const wanted = first + (((event.clientX - frame.left) / frame.width) * wide - box.left) *
        (end - first) / (box.right - box.left);
      let nearest = 0;
      steps.forEach((step, i) => {
        if (Math.abs(step - wanted) < Math.abs(steps[nearest] - wanted)) nearest = i;
      });
      point(nearest);
    };
    plot.onpointerleave = () => { at = steps.length - 1; cursor.setAttribute("d", ""); read(); };
    read();
  }
  return { body: h("figure", {}, h("h3", {}, title), plot, legend), draw };
}

function curves(shown) {
  const settings = { log: false, smoothing: 0 };
  const charts = shown.groups.map((group) => chart(group.title, group.steps, group.lines, settings));
  const again = () => charts.forEach((made) => made.draw());
  const log = h("input", { type: "checkbox", id: "log" });
  log.addEventListener("change", () => { settings.log = log.checked; again(); });
  const smooth = h("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: 0, id: "smooth",
    "aria-label": "Smoothing" });
  const told = h("output", { for: "smooth" }, "none");
  smooth.addEventListener("input", () => {
    settings.smoothing = Number(smooth.value);
    told.textContent = settings.smoothing ? settings.smoothing.toFixed(2) : "none";
    smooth.setAttribute("aria-valuetext", told.textContent);
    again();
  });
  return [
    h("p", { class: "soft" }, shown.note),
    h("div", { class: "controls" }, h("label", {}, log, "Logarithmic"),
      h("label", { for: "smooth" }, "Smoothing"), smooth, told),
    h("div", { class: "pile" }, charts.map((made) => made.body)),
  ];
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

function section(id, title, ...body) {
  return h("section", { id }, h("h2", {}, title), body);
}

const main = document.getElementById("main");
const sections = [];
if (data.progress.frames.length) {
  sections.push(section("progress", "While it trained", h("p", { class: "soft" }, data.progress.note),
    training(data.progress.frames)));
}
if (data.curves) sections.push(section("curves", "Curves", curves(data.curves)));
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
if (data.audit) {
  sections.push(section("audit", "Checked before the first step", checked(data.audit)));
}
sections.push(section("made", "Data and environment", pairs(data.made, "list")));
sections.push(section("recipe", "Recipe",
  h("details", {}, h("summary", {}, "The resolved recipe, every default written out"),
    h("pre", { tabindex: 0 }, data.recipe))));

document.getElementById("head").append(
  h("p", { class: "kicker" }, data.run),
  h("h1", {}, data.name),
  h("div", { class: "summary" }, data.summary.map((line) => h("p", {}, line))),
  data.warnings.length ? h("div", { class: "alarm", role: "note" }, data.warnings.map((warning) =>
    h("p", {}, h("b", {}, warning.step === null ? "" : `Step ${say(warning.step)}: `), warning.text))) : "",
  pairs(data.facts, "facts"),
  h("nav", { "aria-label": "Sections" }, sections.map((made) =>
    h("a", { href: "#" + made.id }, made.querySelector("h2").textContent))),
);
main.append(...sections);
document.getElementById("foot").append(h("section", {}, h("p", {}, data.foot)));

// On paper nothing can be opened any more.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
});
