"use strict";
// Functions that draw pages from their data. All text is inserted as text, never as markup.

let data = JSON.parse(document.getElementById("data").textContent);

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

// An image that can be enlarged: see enlarge.js.
function picture(source, alt) {
  const image = h("img", { src: source.uri, alt, width: source.width, height: source.height,
    "data-loss": source.loss });
  const button = h("button", { type: "button", class: "zoom", title: "Enlarge" }, image);
  button.addEventListener("click", () => enlarge(image));
  return button;
}

function figure(source, alt, caption) {
  const kind = source.width < 200 ? "small" : null;
  return h("figure", { class: kind }, picture(source, alt),
    caption ? h("figcaption", {}, caption) : null);
}

// An image enlarged by a whole factor, as far as it fits the page.
function enlarged(source, alt, caption) {
  const factor = Math.max(1, Math.floor(960 / source.width));
  const size = { width: source.width * factor, height: source.height * factor };
  return figure({ ...source, ...size }, alt, caption);
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

// --- files that the page writes --------------------------------------------------------------

// The colours of the light page, which are also those of saved drawings.
const LIGHT = document.styleSheets[0].cssRules[0].style;

function save(name, type, text) {
  const whole = text.replace(/[\ud800-\udfff]/gu, "\ufffd"); // halves of letters are no text
  const file = `${data.name} ${name}`.replace(/[^\w.-]+/g, "-").slice(-80);
  h("a", { download: file, href: `data:${type};charset=utf-8,${encodeURIComponent(whole)}` }).click();
}

// A table as CSV (RFC 4180). No text in it is a formula for a spreadsheet.
function csv(rows) {
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    if (typeof value !== "string") return String(value);
    const text = /^[=+\-@\t\r]/.test(value) ? "'" + value : value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  return rows.map((row) => row.map(cell).join(",") + "\r\n").join("");
}

// A drawing of the page as a file: white paper, its title, what explains it below, and no variable.
function standalone(drawn, title, below = []) {
  const [, , wide, tall] = drawn.getAttribute("viewBox").split(" ").map(Number);
  const inner = drawn.cloneNode(true);
  inner.querySelectorAll(".passing").forEach((node) => node.remove());
  const size = 44 + tall + 20 * below.length;
  const whole = s("svg", { viewBox: `-12 -32 ${wide + 24} ${size}`, width: wide + 24, height: size,
    "font-family": "Helvetica, Arial, sans-serif", "font-size": 12 },
    s("rect", { x: -12, y: -32, width: wide + 24, height: size, fill: "#ffffff" }),
    s("text", { x: 0, y: -12, "font-size": 14, "font-weight": "bold", fill: "var(--foreground)" }, title),
    [...inner.childNodes],
    below.map(([mark, text], i) => s("g", { transform: `translate(0 ${tall + 10 + 20 * i})` },
      mark, s("text", { x: 26, y: 8, fill: "var(--foreground)" }, text))));
  return new XMLSerializer().serializeToString(whole)
    .replace(/var\((--[\w-]+)\)/g, (_, name) => LIGHT.getPropertyValue(name).trim());
}

// "SVG, CSV": buttons that save a drawing and its numbers.
function downloads(title, drawing, rows) {
  const button = (kind, type, content) => {
    const made = h("button", { type: "button", class: "link", "aria-label": `Save as ${kind}: ${title}` },
      kind);
    made.addEventListener("click", () => save(`${title}.${kind.toLowerCase()}`, type, content()));
    return made;
  };
  return h("span", { class: "downloads" }, button("SVG", "image/svg+xml", drawing),
    button("CSV", "text/csv", () => csv(rows())));
}

// --- a slider with a play button -------------------------------------------------------------

let shown = null; // the place of the slider, when the reader has moved it

// `show` draws the frame of an index and returns its label.
function player(last, name, show) {
  const slider = h("input", { type: "range", min: 0, max: last, value: shown ?? last, id: "step",
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
  slider.addEventListener("input", () => {
    shown = Number(slider.value) === last ? null : Number(slider.value);
    stop();
    update();
  });
  button.addEventListener("click", () => {
    if (timer) return stop();
    button.textContent = "Stop";
    if (Number(slider.value) === last) slider.value = 0;
    update();
    timer = setInterval(() => {
      if (!slider.isConnected) return stop(); // a live page was drawn anew
      slider.value = Number(slider.value) + 1;
      update();
      if (Number(slider.value) === last) stop();
    }, 350);
  });
  update();
  return h("div", { class: "controls" }, button, slider, label);
}

// --- the page as a whole ---------------------------------------------------------------------

function section(id, title, ...body) {
  return h("section", { id }, h("h2", {}, title), body);
}

// Draw the whole page; a live page is drawn again and again.
function assemble(sections, ...opening) {
  const link = data.explorer
    ? h("p", {}, h("a", { href: data.explorer }, "Explore the model: mix and change images by hand"))
    : null;
  document.getElementById("head").replaceChildren(...[
    data.live?.up ? h("nav", {}, h("a", { href: data.live.up }, "All runs")) : null,
    h("p", { class: "kicker" }, data.kicker),
    h("h1", {}, data.name),
    data.hero ? h("div", { class: "hero" }, enlarged(data.samples[0].image, data.hero, data.hero)) : null,
    h("div", { class: "summary" }, data.summary.map((line) => h("p", {},
      Array.isArray(line) ? [h("b", {}, line[0]), " ", line[1]] : line)), link),
    ...opening,
  ].filter((part) => part !== null));
  document.getElementById("contents").replaceChildren(...sections.map((part) =>
    h("a", { href: "#" + part.id }, part.querySelector("h2").textContent)));
  document.getElementById("main").replaceChildren(...sections);
  document.getElementById("foot").replaceChildren(h("section", {}, h("p", {}, data.foot)));
}

// Printed details cannot be opened by the reader.
window.addEventListener("beforeprint", () => {
  document.querySelectorAll("details").forEach((details) => { details.open = true; });
});
