"use strict";
// Functions that draw pages from their data. All text is inserted as text, never as markup.

const data = JSON.parse(document.getElementById("data").textContent);

function element(space, name, attributes, children) {
  const node = space ? document.createElementNS(space, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes || {})) {
    if (value !== null && value !== undefined) node.setAttribute(key, value);
  }
  for (const child of children.flat(Infinity)) {
    if (child !== null && child !== undefined) node.append(child);
  }
  return node;
}
const h = (name, attributes, ...children) => element(null, name, attributes, children);
const s = (name, attributes, ...children) =>
  element("http://www.w3.org/2000/svg", name, attributes, children);
const count = (number) => number.toLocaleString("en-GB");

function format(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  return size >= 1e5 || size < 1e-4 ? Number(value.toPrecision(3)).toExponential() : String(Number(value.toPrecision(4)));
}

function figure(source, alt, caption) {
  const kind = source.width < 200 ? "small" : null;
  const image = h("img", { src: source.uri, alt, width: source.width, height: source.height });
  return h("figure", { class: kind }, image, caption ? h("figcaption", {}, caption) : null);
}

// An image enlarged by a whole factor, as far as it fits the page.
function enlarged(source, alt, caption) {
  const factor = Math.max(1, Math.floor(960 / source.width));
  return figure({ uri: source.uri, width: source.width * factor, height: source.height * factor },
    alt, caption);
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

// A box that is drawn again when its width changes, so that text keeps its size on a phone.
function responsive(kind, draw) {
  const box = h("div", { class: kind });
  let width = 0;
  new ResizeObserver(() => {
    if (box.clientWidth === width) return;
    width = box.clientWidth;
    draw(box, Math.max(width, 260));
  }).observe(box);
  return box;
}

// --- a slider with a play button -------------------------------------------------------------

// `show` draws the frame of an index and returns its label.
function player(last, name, show) {
  const slider = h("input", { type: "range", min: 0, max: last, value: last, id: "step",
    "aria-label": name });
  const label = h("output", { for: "step" });
  const button = h("button", { type: "button" }, "Play");
  let timer = null;
  function update() {
    label.textContent = show(Number(slider.value));
    slider.setAttribute("aria-valuetext", label.textContent);
  }
  function stop() {
    clearInterval(timer);
    timer = null;
    button.textContent = "Play";
  }
  slider.addEventListener("input", () => { stop(); update(); });
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Stop";
    if (Number(slider.value) === last) slider.value = 0;
    update();
    timer = setInterval(() => {
      slider.value = Number(slider.value) + 1;
      update();
      if (Number(slider.value) === last) stop();
    }, 350);
  });
  update();
  return h("div", { class: "controls" }, button, slider, label);
}

// --- curves ----------------------------------------------------------------------------------

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((n) => n * power >= rough * 0.999) * power;
  const values = [];
  for (let value = Math.ceil(low / step) * step; value <= high + step * 1e-6; value += step) {
    values.push(Number(value.toPrecision(12)));
  }
  return values;
}

// Ticks of a logarithmic axis: 0.01, 0.1, 1, and 2 and 5 times these where there are few.
function powers(low, high) {
  const values = [];
  for (let power = Math.floor(low); power <= Math.ceil(high); power++) {
    for (const n of high - low < 2 ? [1, 2, 5] : [1]) values.push(Math.log10(n) + power);
  }
  return values.filter((value) => value >= low - 1e-9 && value <= high + 1e-9);
}

// An exponential moving average with bias correction.
function smoothed(values, share) {
  let sum = 0;
  let weight = 0;
  return values.map((value) => {
    if (value === null) return null;
    sum = share * sum + (1 - share) * value;
    weight = share * weight + (1 - share);
    return sum / weight;
  });
}

function clock(seconds) {
  if (seconds < 180) return `${Number(seconds.toPrecision(3))} s`;
  const minutes = Math.round(seconds / 60);
  return minutes < 180 ? `${minutes} min` : `${Number((seconds / 3600).toPrecision(3))} h`;
}

const AXES = { // by name in the data: a title, and the text of a position
  step: ["step", (at) => "step " + count(at)],
  images: ["images seen", (at) => count(at) + " images"],
  seconds: ["time", clock],
};

// The unit of all ticks of an axis, and its sign.
function inUnits(axis, end) {
  if (axis !== "seconds") return [1, ""];
  if (end < 180) return [1, " s"];
  return end < 10800 ? [60, " min"] : [3600, " h"];
}

function nearest(places, wanted) {
  let best = 0;
  places.forEach((place, i) => {
    if (Math.abs(place - wanted) < Math.abs(places[best] - wanted)) best = i;
  });
  return best;
}

// Lines have a name, a colour, values, and the positions of the values on each axis.
function chart(title, lines, settings) {
  const plot = responsive("chart", () => draw());
  const readings = lines.map(() => h("b", {}));
  const stroke = (line) => `var(--line-${(line.colour % 6) + 1})`;
  const dash = (line) => (line.colour < 6 ? null : "5 3");
  const key = (line) => s("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" },
    s("path", { d: "M0 4H18", class: "curve", stroke: stroke(line), "stroke-dasharray": dash(line) }));
  const where = h("li", { class: "soft" });
  const legend = h("ul", { class: "legend", "aria-live": "off" }, where,
    lines.map((line, i) => h("li", {}, key(line), line.name, readings[i])));
  const places = (line) => line.axes[settings.axis];
  let at = null; // the position that the pointer is at; null: the end
  let linear = "";

  function read() {
    const position = at ?? Math.max(...lines.map((line) => places(line).at(-1)));
    where.textContent = AXES[settings.axis][1](position) + linear;
    lines.forEach((line, i) => {
      const ended = at !== null && at > places(line).at(-1);
      const index = at === null ? places(line).length - 1 : nearest(places(line), at);
      readings[i].textContent = format(ended ? null : line.values[index]);
    });
  }
  function draw() {
    const wide = Math.max(plot.clientWidth, 260);
    const tall = Math.round(Math.min(260, Math.max(180, wide * 0.42)));
    const box = { left: 52, right: wide - 8, top: 8, bottom: tall - 24 };
    const log = settings.log && lines.every((line) => line.values.every((v) => v === null || v > 0));
    linear = settings.log && !log ? " (not all above 0, so linear)" : "";
    const scale = (v) => (v === null ? null : log ? Math.log10(v) : v);
    const raw = lines.map((line) => line.values.map(scale));
    const even = lines.map((line) => smoothed(line.values, settings.smoothing).map(scale));
    const all = raw.flat().filter((v) => v !== null);
    let [low, high] = [Math.min(...all), Math.max(...all)];
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    const first = Math.min(...lines.map((line) => places(line)[0]));
    let end = Math.max(...lines.map((line) => places(line).at(-1)));
    if (end === first) end = first + 1;
    const x = (place) => box.left + ((place - first) / (end - first)) * (box.right - box.left);
    const y = (v) => box.bottom - ((v - low) / (high - low)) * (box.bottom - box.top);
    const path = (line, values) => {
      let pen = "M";
      return values.map((v, i) => {
        if (v === null) { pen = "M"; return ""; }
        const point = pen + x(places(line)[i]).toFixed(1) + " " + y(v).toFixed(1);
        pen = "L";
        return point;
      }).join("");
    };
    const marks = log ? powers(low, high) : ticks(low, high, 5);
    const across = marks.map((v) => [
      s("path", { d: `M${box.left} ${y(v).toFixed(1)}H${box.right}`, class: "grid" }),
      s("text", { x: box.left - 8, y: y(v) + 4, "text-anchor": "end" }, format(log ? 10 ** v : v)),
    ]);
    const [unit, sign] = inUnits(settings.axis, end);
    const below = ticks(first / unit, end / unit, wide < 480 ? 3 : 6)
      .filter((place) => settings.axis === "seconds" || Number.isInteger(place))
      .map((place) => s("text", { x: x(place * unit), y: tall - 6,
        "text-anchor": x(place * unit) > wide - 30 ? "end" : "middle" }, count(place) + sign));
    const drawn = lines.map((line, i) => [
      settings.smoothing ? s("path", { d: path(line, raw[i]), class: "raw", stroke: stroke(line) }) : null,
      s("path", { d: path(line, even[i]), class: "curve", stroke: stroke(line),
        "stroke-dasharray": dash(line) }),
    ]);
    const lone = lines.map((line, i) => raw[i].length > 1 || raw[i][0] === null ? null :
      s("circle", { cx: x(places(line)[0]), cy: y(raw[i][0]), r: 3, fill: stroke(line) }));
    const cursor = s("path", { class: "cursor", d: "" });
    plot.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label":
      `${title}: ${lines.map((line) => line.name).join(", ")} by ${AXES[settings.axis][0]}` },
      across, below, drawn, lone, cursor));
    plot.onpointermove = plot.onpointerdown = (event) => {
      const frame = plot.getBoundingClientRect();
      const wanted = first + (((event.clientX - frame.left) / frame.width) * wide - box.left) *
        (end - first) / (box.right - box.left);
      const near = lines.map((line) => places(line)[nearest(places(line), wanted)]);
      at = near[nearest(near, wanted)];
      cursor.setAttribute("d", `M${x(at)} ${box.top}V${box.bottom}`);
      read();
    };
    plot.onpointerleave = () => { at = null; cursor.setAttribute("d", ""); read(); };
    at = null;
    read();
  }
  return { body: h("figure", {}, h("h3", {}, title), plot, legend), draw };
}

function curves(note, groups, axes) {
  const settings = { log: false, smoothing: 0, axis: axes[0] };
  const charts = groups.map((group) => chart(group.title, group.lines, settings));
  const again = () => charts.forEach((each) => each.draw());
  const log = h("input", { type: "checkbox", id: "log" });
  log.addEventListener("change", () => { settings.log = log.checked; again(); });
  const smooth = h("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: 0, id: "smooth",
    "aria-label": "Smoothing" });
  const share = h("output", { for: "smooth" }, "none");
  smooth.addEventListener("input", () => {
    settings.smoothing = Number(smooth.value);
    share.textContent = settings.smoothing ? settings.smoothing.toFixed(2) : "none";
    smooth.setAttribute("aria-valuetext", share.textContent);
    again();
  });
  const by = axes.map((axis) => {
    const choice = h("input", { type: "radio", name: "axis", id: "by-" + axis });
    choice.checked = axis === settings.axis;
    choice.addEventListener("change", () => { settings.axis = axis; again(); });
    return h("label", {}, choice, AXES[axis][0]);
  });
  return [
    h("p", { class: "soft" }, note),
    h("div", { class: "controls" }, axes.length > 1 ? by : null,
      h("label", {}, log, "Logarithmic"), h("label", { for: "smooth" }, "Smoothing"), smooth, share),
    h("div", { class: "pile" }, charts.map((each) => each.body)),
  ];
}

// --- the page as a whole ---------------------------------------------------------------------

function section(id, title, ...body) {
  return h("section", { id }, h("h2", {}, title), body);
}

function assemble(sections, ...opening) {
  document.getElementById("head").append(...[
    h("p", { class: "kicker" }, data.kicker),
    h("h1", {}, data.name),
    data.hero ? h("div", { class: "hero" }, enlarged(data.samples[0].image, data.hero, data.hero)) : null,
    h("div", { class: "summary" }, data.summary.map((line) => h("p", {},
      Array.isArray(line) ? [h("b", {}, line[0]), " ", line[1]] : line))),
    ...opening,
    h("nav", { "aria-label": "Sections" }, sections.map((part) =>
      h("a", { href: "#" + part.id }, part.querySelector("h2").textContent))),
  ].filter((part) => part !== null));
  document.getElementById("main").append(...sections);
  document.getElementById("foot").append(h("section", {}, h("p", {}, data.foot)));
  // Printed details cannot be opened by the reader.
  window.addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((details) => { details.open = true; });
  });
}

