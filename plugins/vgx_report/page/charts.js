
// --- curves ----------------------------------------------------------------------------------

function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((n) => n * power >= rough * 0.999) * power;
  const values = [];
  for (let i = 0; i <= 2 * wanted; i++) { // an end, even where numbers are too coarse for the range
    const value = (Math.ceil(low / step) + i) * step;
    if (!(value <= high + step * 1e-6)) break;
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

// The text of each tick: as many digits as tell it from the next one.
function marked(values) {
  const step = values.length > 1 ? values[1] - values[0] : 1;
  const largest = Math.max(...values.map(Math.abs), 1e-300);
  const digits = Math.min(12, Math.max(4, Math.ceil(Math.log10(largest / step)) + 2));
  return values.map((value) => {
    if (value === 0) return "0";
    return largest >= 1e5 || largest < 1e-3 ? Number(value.toPrecision(digits)).toExponential()
      : String(Number(value.toPrecision(digits)));
  });
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

// What the reader has chosen, in each section by its name. A live page is drawn anew and keeps it.
const choices = {};
const hidden = new Set(); // keys of lines
const zoomed = new Map(); // the range of an axis that is shown, by the titles of charts

const CURVE = { class: "curve", fill: "none", "stroke-width": 1.75, "stroke-linejoin": "round" };
const RAW = { class: "raw", fill: "none", "stroke-width": 1, opacity: 0.28 };
const TEXT = { fill: "var(--soft)", "font-size": 12 };
const ink = (line) => ({ stroke: `var(--line-${(line.colour % 6) + 1})`,
  "stroke-dasharray": line.branch ? "2 3" : line.colour < 6 ? null : "5 3",
  opacity: line.branch ? 0.75 : null });
const sample = (line) => s("path", { d: "M0 4H18", ...CURVE, ...ink(line) });

// The pixels of a chart: a position on an axis and a value as places in a box.
function scales(box, [first, end], [low, high]) {
  return {
    x: (place) => box.left + ((place - first) / (end - first)) * (box.right - box.left),
    y: (value) => box.bottom - ((value - low) / (high - low)) * (box.bottom - box.top),
    place: (x) => first + ((x - box.left) * (end - first)) / (box.right - box.left),
  };
}

function path(places, values, { x, y }) {
  let pen = "M";
  return values.map((value, i) => {
    if (value === null) { pen = "M"; return ""; }
    const point = pen + x(places[i]).toFixed(1) + " " + y(value).toFixed(1);
    pen = "L";
    return point;
  }).join("");
}

function frame(box, wide, tall, { x, y }, [first, end], marks, texts, unit, axis) {
  const [size, sign] = inUnits(axis, end);
  const below = ticks(first / size, end / size, wide < 480 ? 3 : 6)
    .filter((place) => axis === "seconds" || Number.isInteger(place));
  return [
    marks.map((value, i) => [
      s("path", { d: `M${box.left} ${y(value).toFixed(1)}H${box.right}`, class: "grid",
        stroke: "var(--rule)" }),
      s("text", { ...TEXT, x: box.left - 8, y: y(value) + 4, "text-anchor": "end" }, texts[i]),
    ]),
    below.map((place) => s("text", { ...TEXT, x: x(place * size), y: tall - 20, class: "tick",
      "text-anchor": x(place * size) > wide - 30 ? "end" : "middle" }, count(place) + sign)),
    s("text", { ...TEXT, x: 0, y: 11, class: "axis" }, unit),
    s("text", { ...TEXT, x: box.right, y: tall - 4, class: "axis", "text-anchor": "end" },
      AXES[axis][0]),
  ];
}

// A place of the axis with its name: where a run left its parent.
function marker(box, place, text) {
  if (place < box.left || place > box.right) return null;
  const end = place > (box.left + box.right) / 2;
  return [
    s("path", { d: `M${place.toFixed(1)} ${box.top}V${box.bottom}`, class: "fork",
      stroke: "var(--soft)", "stroke-width": 1, opacity: 0.6 }),
    s("text", { ...TEXT, x: place + (end ? -5 : 5), y: box.top + 10, "text-anchor": end ? "end" : "start",
      stroke: "var(--background)", "stroke-width": 4, "paint-order": "stroke" }, text),
  ];
}

// Lines have a key, a name, a colour, values, and the positions of the values on each axis.
function chart(title, unit, lines, settings, again, mark) {
  const plot = responsive("chart", () => draw());
  plot.tabIndex = 0;
  plot.setAttribute("role", "group");
  plot.setAttribute("aria-label", `Chart of ${title}: left and right read, plus and minus zoom`);
  const readings = lines.map(() => h("b", {}));
  const where = h("li", { class: "soft" });
  const entries = lines.map((line, i) => {
    const key = s("svg", { viewBox: "0 0 18 8", "aria-hidden": "true" }, sample(line));
    const entry = h("button", { type: "button", class: "entry" }, key, line.name, readings[i]);
    entry.addEventListener("click", () => {
      if (!hidden.delete(line.key)) hidden.add(line.key);
      again();
    });
    return entry;
  });
  const legend = h("ul", { class: "legend", "aria-live": "off" }, where,
    entries.map((entry) => h("li", {}, entry)));
  const whole = h("button", { type: "button", class: "link" }, "Whole range");
  whole.addEventListener("click", () => zoom(null));
  const places = (line) => line.axes[settings.axis];
  const number = charts.length; // of all charts of the page
  const visible = () => lines.filter((line) => !hidden.has(line.key));
  let at = null; // the position that the pointer is at; null: the end
  let linear = "";

  function range() { // what is shown of the axis
    const chosen = zoomed.get(title);
    return chosen && chosen.axis === settings.axis ? [chosen.first, chosen.end] : full();
  }
  function full() {
    const first = Math.min(...lines.map((line) => places(line)[0]));
    const end = Math.max(...lines.map((line) => places(line).at(-1)));
    return [first, end === first ? first + 1 : end];
  }
  function zoom(chosen) {
    const [start, last] = full();
    if (chosen && !(chosen[1] - chosen[0] >= 1e-6 * (last - start))) return;
    if (chosen) zoomed.set(title, { axis: settings.axis, first: chosen[0], end: chosen[1] });
    else zoomed.delete(title);
    at = null;
    draw();
  }
  function read() {
    const known = lines.flatMap(places).filter((place) => place <= range()[1]);
    const position = at ?? (known.length ? Math.max(...known) : places(lines[0])[0]);
    where.textContent = AXES[settings.axis][1](position) + linear;
    lines.forEach((line, i) => {
      const ended = at !== null && at > places(line).at(-1);
      readings[i].textContent = format(ended ? null : line.values[nearest(places(line), position)]);
    });
  }
  function draw() {
    const wide = Math.max(plot.clientWidth, 260);
    const tall = Math.round(Math.min(286, Math.max(206, wide * 0.42)));
    const box = { left: 52, right: wide - 8, top: 20, bottom: tall - 38 };
    const drawn = visible();
    const log = settings.log && drawn.every((line) => line.values.every((v) => v === null || v > 0));
    linear = settings.log && !log ? " (not all above 0, so linear)" : "";
    const scale = (v) => (v === null ? null : log ? Math.log10(v) : v);
    const [first, end] = range();
    const raw = drawn.map((line) => line.values.map(scale));
    const even = drawn.map((line) => smoothed(line.values, settings.smoothing).map(scale));
    const inside = raw.flatMap((values, i) => values.filter((_, k) =>
      places(drawn[i])[k] >= first && places(drawn[i])[k] <= end));
    const all = (inside.some((v) => v !== null) ? inside : raw.flat()).filter((v) => v !== null);
    let [low, high] = all.length ? [Math.min(...all), Math.max(...all)] : [0, 1];
    if (low === high) [low, high] = [low - (Math.abs(low) || 1) * 0.1, high + (Math.abs(high) || 1) * 0.1];
    const to = scales(box, [first, end], [low, high]);
    const marks = log ? powers(low, high) : ticks(low, high, 5);
    const texts = log ? marks.map((v) => format(10 ** v)) : marked(marks);
    const id = `inside-${number}`;
    const curves = drawn.map((line, i) => [
      settings.smoothing ? s("path", { d: path(places(line), raw[i], to), ...RAW, stroke: ink(line).stroke }) : null,
      s("path", { d: path(places(line), even[i], to), ...CURVE, ...ink(line) }),
      raw[i].filter((v) => v !== null).length > 1 ? null : raw[i].map((v, k) => v === null ? null :
        s("circle", { cx: to.x(places(line)[k]), cy: to.y(v), r: 3, fill: ink(line).stroke })),
    ]);
    const cursor = s("path", { class: "cursor passing", d: "" });
    const marking = s("rect", { class: "marking passing", y: box.top, height: box.bottom - box.top });
    plot.replaceChildren(s("svg", { viewBox: `0 0 ${wide} ${tall}`, role: "img", "aria-label":
      `${title}: ${lines.map((line) => line.name).join(", ")} by ${AXES[settings.axis][0]}` },
      frame(box, wide, tall, to, [first, end], marks, texts, unit, settings.axis),
      s("clipPath", { id }, s("rect", { x: box.left - 4, y: box.top - 4,
        width: box.right - box.left + 8, height: box.bottom - box.top + 8 })),
      s("g", { "clip-path": `url(#${id})` }, curves),
      mark ? marker(box, to.x(mark[settings.axis]), mark.text) : null, marking, cursor));
    entries.forEach((entry, i) =>
      entry.setAttribute("aria-pressed", String(!hidden.has(lines[i].key))));
    whole.hidden = !zoomed.has(title);
    listen(box, wide, to, [first, end], cursor, marking);
    read();
  }
  function listen(box, wide, to, [first, end], cursor, marking) {
    let from = null; // where a drag began, in pixels
    const across = (event) => {
      const bounds = plot.getBoundingClientRect();
      const x = ((event.clientX - bounds.left) / bounds.width) * wide;
      return Math.min(Math.max(x, box.left), box.right);
    };
    const point = (wanted) => {
      const near = (visible().length ? visible() : lines).map((line) =>
        places(line)[nearest(places(line), wanted)]);
      at = near[nearest(near, wanted)];
      const inside = at >= first && at <= end;
      cursor.setAttribute("d", inside ? `M${to.x(at)} ${box.top}V${box.bottom}` : "");
      read();
    };
    const away = () => { at = null; cursor.setAttribute("d", ""); read(); };
    plot.onpointerdown = (event) => {
      if (event.button !== 0) return;
      from = across(event);
      plot.setPointerCapture(event.pointerId);
      point(to.place(from));
    };
    plot.onpointermove = (event) => {
      point(to.place(across(event)));
      if (from === null) return;
      const [left, right] = [from, across(event)].sort((a, b) => a - b);
      marking.setAttribute("x", left);
      marking.setAttribute("width", right - left);
    };
    plot.onpointerup = (event) => {
      const pair = from === null ? [0, 0] : [from, across(event)].sort((a, b) => a - b);
      from = null;
      marking.setAttribute("width", 0);
      if (pair[1] - pair[0] >= 8) zoom(pair.map(to.place));
    };
    plot.onpointercancel = () => { from = null; marking.setAttribute("width", 0); };
    plot.onpointerleave = () => { if (from === null) away(); };
    plot.ondblclick = () => zoom(null);
    plot.onkeydown = (event) => {
      const known = lines.flatMap(places).sort((a, b) => a - b);
      const middle = at ?? (first + end) / 2;
      const acts = {
        ArrowLeft: () => point(known.findLast((place) => place < (at ?? Infinity)) ?? known[0]),
        ArrowRight: () => point(known.find((place) => place > (at ?? -Infinity)) ?? known.at(-1)),
        "+": () => zoom([middle - (end - first) / 4, middle + (end - first) / 4]),
        "-": () => zoom(null),
      };
      const act = acts[event.key === "=" ? "+" : event.key];
      if (!act || event.ctrlKey || event.metaKey) return;
      event.preventDefault();
      act();
    };
    at = null;
  }
  function rows() { // side by side where all lines have the same positions, else one below another
    const together = lines.every((line) => line.axes === lines[0].axes);
    const axes = Object.keys(AXES);
    const names = axes.map((axis) => AXES[axis][0] + (axis === "seconds" ? " in seconds" : ""));
    const at = (line, i) => axes.map((axis) => line.axes[axis][i]);
    if (together) {
      return [[...names, ...lines.map((line) => line.name)], ...lines[0].values.map((_, i) =>
        [...at(lines[0], i), ...lines.map((line) => line.values[i])])];
    }
    return [["name", ...names, title], ...lines.flatMap((line) =>
      line.values.map((value, i) => [line.name, ...at(line, i), value]))];
  }
  const drawing = () => standalone(plot.querySelector("svg"), title,
    visible().map((line) => [sample(line), line.name]));
  const api = { draw };
  api.body = h("figure", {}, h("h3", {}, title), plot, legend,
    h("figcaption", { class: "below" }, downloads(title, drawing, rows), whole));
  return api;
}

let charts = []; // of the page; whoever draws it anew empties this

// A section of charts with its own controls.
function curves(name, logs, axes) {
  const settings = choices[name] ??= { log: false, smoothing: 0, axis: axes[0] };
  if (!axes.includes(settings.axis)) settings.axis = axes[0];
  const own = [];
  const again = () => own.forEach((each) => each.draw());
  for (const group of logs.groups) {
    const lines = group.lines.map((line) => ({ ...line, axes: logs.axes[line.axes],
      key: line.key ?? `${name} ${group.title}: ${line.name}` }));
    own.push(chart(group.title, group.unit, lines, settings, again, logs.mark));
    charts.push(own.at(-1));
  }
  const log = h("input", { type: "checkbox", id: name + "-log" });
  log.checked = settings.log;
  log.addEventListener("change", () => { settings.log = log.checked; again(); });
  const smooth = h("input", { type: "range", min: 0, max: 0.98, step: 0.02, value: settings.smoothing,
    id: name + "-smooth", "aria-label": "Smoothing" });
  const share = h("output", { for: name + "-smooth" });
  const chosen = () => {
    settings.smoothing = Number(smooth.value);
    share.textContent = settings.smoothing ? settings.smoothing.toFixed(2) : "none";
    smooth.setAttribute("aria-valuetext", share.textContent);
  };
  chosen();
  smooth.addEventListener("input", () => { chosen(); again(); });
  const by = axes.map((axis) => {
    const choice = h("input", { type: "radio", name: name + "-axis", id: name + "-by-" + axis });
    choice.checked = axis === settings.axis;
    choice.addEventListener("change", () => { settings.axis = axis; again(); });
    return h("label", {}, choice, AXES[axis][0]);
  });
  return [
    h("p", { class: "soft" }, logs.note),
    h("div", { class: "controls" }, axes.length > 1 ? by : null,
      h("label", {}, log, "Logarithmic"), h("label", { for: name + "-smooth" }, "Smoothing"), smooth, share),
    h("div", { class: "pile" }, own.map((each) => each.body)),
  ];
}
