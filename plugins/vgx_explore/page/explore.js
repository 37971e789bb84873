"use strict";
// Mixes three latents, changes them in named directions, and shows the image of the result.
// A latent is a Float32Array of Z values; an image is a Float32Array [C, H, W] in [0, 1].
const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const { channels, height, width } = data.image;
const CORNERS = [[150, 24], [28, 236], [272, 236]]; // in the view box of the triangle, 300 x 260
const LARGEST = 8192; // pixels of a side of a photo
const size = data.latent.reduce((all, side) => all * side, 1);

const state = {
  rows: [], // the latents that came with the page
  mean: null, // of the sampler's latents
  changes: [], // one for each slider
  corners: [], // three latents
  photo: null, // the corner that a photo is in
  weights: [1 / 3, 1 / 3, 1 / 3], // of the corners
  moved: data.directions.map(() => 0), // where the sliders are, in standard deviations
  label: 0,
  latent: null, // that of the image that is shown
};

// --- the model, in a worker ---

const waiting = new Map();
let worker = null;

function ask(job, message) {
  return new Promise((resolve, reject) => {
    const id = waiting.size ? Math.max(...waiting.keys()) + 1 : 1;
    waiting.set(id, { resolve, reject });
    worker.postMessage({ ...message, job, id });
  });
}

async function unpacked(id) {
  const text = $(id).textContent;
  $(id).remove();
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

async function start() {
  const code = [await unpacked("script"), await unpacked("worker")];
  worker = new Worker(URL.createObjectURL(new Blob(code, { type: "text/javascript" })));
  worker.onerror = () => failed("this browser does not start the engine");
  worker.onmessage = ({ data: answer }) => {
    const { resolve, reject } = waiting.get(answer.id);
    waiting.delete(answer.id);
    if (answer.error) reject(new Error(answer.error));
    else resolve(answer);
  };
  const networks = { decoder: await unpacked("decoder") };
  if (data.encoder) networks.encoder = await unpacked("encoder");
  const numbers = new Float32Array(await unpacked("latents"));
  const every = Array.from({ length: numbers.length / size }, (_, i) => numbers.subarray(i * size, (i + 1) * size));
  state.rows = every.slice(0, data.faces);
  state.mean = every[data.faces];
  state.changes = every.slice(data.faces + 1);
  await ask("open", { wasm: await unpacked("wasm"), networks });
}

const decode = (latent) => ask("decode", { latent, shape: data.latent, label: state.label });

// --- latents ---

// As the sampler weighted-mix does; with `renormalise` mixtures keep the variance of the latents.
function mixed(moved = state.moved) {
  const length = data.renormalise ? Math.hypot(...state.weights) : 1;
  const latent = new Float32Array(size);
  for (let i = 0; i < size; i++) {
    let value = 0;
    for (let k = 0; k < 3; k++) value += state.weights[k] * state.corners[k][i];
    if (data.renormalise) value = state.mean[i] + (value - state.mean[i]) / length;
    for (let k = 0; k < moved.length; k++) value += moved[k] * state.changes[k][i];
    latent[i] = value;
  }
  return latent;
}

// --- images ---

function paint(canvas, pixels) {
  canvas.width = width;
  canvas.height = height;
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const count = width * height;
  const byte = (value) => Math.round(Math.min(Math.max(value, 0), 1) * 255);
  for (let i = 0; i < count; i++) {
    for (let c = 0; c < 3; c++) image.data[4 * i + c] = byte(pixels[channels === 1 ? i : c * count + i]);
    image.data[4 * i + 3] = channels === 4 ? byte(pixels[3 * count + i]) : 255;
  }
  context.putImageData(image, 0, 0);
}

// Weights of the pixels from `from` to `to` for each of `count` new ones: the triangle filter of
// Pillow's BILINEAR, which is as wide as a new pixel where the image becomes smaller.
function filter(sides, from, to, count) {
  const scale = (to - from) / count, wide = Math.max(scale, 1);
  return Array.from({ length: count }, (_, i) => {
    const centre = from + (i + 0.5) * scale;
    const first = Math.max(Math.floor(centre - wide + 0.5), 0);
    const end = Math.min(Math.floor(centre + wide + 0.5), sides);
    const weights = Array.from({ length: end - first }, (_, k) =>
      Math.max(1 - Math.abs((first + k - centre + 0.5) / wide), 0));
    const sum = weights.reduce((all, weight) => all + weight, 0);
    return { first, weights: weights.map((weight) => weight / sum) };
  });
}

// The bytes of a part of an image as `columns` x `rows` pixels, rounded after each direction.
function resized(source, box, columns, rows) {
  const across = filter(source.width, box[0], box[2], columns);
  const down = filter(source.height, box[1], box[3], rows);
  const narrow = new Uint8ClampedArray(columns * source.height * 4);
  const result = new Uint8ClampedArray(columns * rows * 4);
  for (let y = 0; y < source.height; y++) {
    across.forEach(({ first, weights }, x) => {
      for (let c = 0; c < 4; c++) {
        let sum = 0;
        for (let k = 0; k < weights.length; k++) sum += weights[k] * source.data[4 * (y * source.width + first + k) + c];
        narrow[4 * (y * columns + x) + c] = sum;
      }
    });
  }
  down.forEach(({ first, weights }, y) => {
    for (let i = 0; i < 4 * columns; i++) {
      let sum = 0;
      for (let k = 0; k < weights.length; k++) sum += weights[k] * narrow[4 * columns * (first + k) + i];
      result[4 * columns * y + i] = sum;
    }
  });
  return result;
}

// A photo as the encoder gets it: [C, H, W] in [0, 1], fitted as the recipe's `image.fit` says.
async function fitted(file) {
  const photo = await createImageBitmap(file);
  if (Math.max(photo.width, photo.height) > LARGEST) throw new Error(`more than ${LARGEST} pixels wide or high`);
  const canvas = new OffscreenCanvas(photo.width, photo.height);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const colour = `rgb(${data.image.background.join(" ")})`;
  if (channels !== 4) {
    context.fillStyle = colour;
    context.fillRect(0, 0, photo.width, photo.height);
  }
  context.drawImage(photo, 0, 0);
  const source = context.getImageData(0, 0, photo.width, photo.height);
  let columns = width, rows = height, box = [0, 0, photo.width, photo.height];
  if (data.image.fit === "crop") {
    const ratio = width / height;
    const [w, h] = [Math.min(photo.width, photo.height * ratio), Math.min(photo.height, photo.width / ratio)];
    box = [(photo.width - w) / 2, (photo.height - h) / 2, (photo.width + w) / 2, (photo.height + h) / 2];
  } else if (data.image.fit === "pad") {
    const scale = Math.min(width / photo.width, height / photo.height);
    columns = Math.max(1, Math.round(photo.width * scale));
    rows = Math.max(1, Math.round(photo.height * scale));
  }
  const bytes = resized(source, box, columns, rows);
  const [left, top] = [Math.round((width - columns) / 2), Math.round((height - rows) / 2)];
  const image = new Float32Array(channels * width * height);
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      const inside = x >= left && x < left + columns && y >= top && y < top + rows;
      const at = 4 * ((y - top) * columns + x - left);
      const colours = inside ? [...bytes.subarray(at, at + 4)] : [...data.image.background, 255];
      // The shares of red, green and blue in grey (ITU-R BT.601).
      if (channels === 1) colours[0] = Math.round(0.299 * colours[0] + 0.587 * colours[1] + 0.114 * colours[2]);
      for (let c = 0; c < channels; c++) image[(c * height + y) * width + x] = colours[c] / 255;
    }
  }
  return image;
}

// --- the image of the moment ---

const times = []; // milliseconds of the last images
let wanted = false, busy = false, shown = 0;

function change() {
  if (!state.corners.length) return; // the model has not started
  wanted = true;
  if (!busy) show();
}

// Shows what is wanted when the last image is there: no waiting line of old mixtures.
async function show() {
  busy = true;
  wanted = false;
  try {
    const latent = mixed();
    const { result, time } = await decode(latent);
    state.latent = latent;
    paint($("image"), result);
    $("image").dataset.shown = String(++shown);
    times.push(time);
    if (times.length > 30) times.shift();
    const median = [...times].sort((a, b) => a - b)[times.length >> 1];
    say(`${median < 10 ? median.toFixed(1) : median.toFixed(0)} ms an image`);
  } catch (error) {
    failed(error.message);
  }
  busy = false;
  if (wanted) show();
  else preview();
}

// Both ends of each slider, as soon as the hand rests.
let rest = null;
function preview() {
  clearTimeout(rest);
  rest = setTimeout(async () => {
    for (const end of document.querySelectorAll("#sliders canvas")) {
      if (wanted || busy || !state.corners.length) return;
      const moved = [...state.moved];
      moved[end.dataset.slider] = Number(end.dataset.end);
      paint(end, (await decode(mixed(moved))).result);
    }
  }, 200);
}

function say(text) {
  $("state").removeAttribute("class");
  $("state").textContent = text;
}

function failed(text) {
  say(`The model does not run here: ${text}`);
  $("state").className = "alarm";
}

// --- the triangle ---

function place() {
  const [x, y] = [0, 1].map((axis) => CORNERS.reduce((sum, corner, k) => sum + state.weights[k] * corner[axis], 0));
  $("knob").style.left = `${x / 3}%`;
  $("knob").style.top = `${y / 2.6}%`;
  $("rays").setAttribute("d", CORNERS.map((corner) => `M${x},${y}L${corner}`).join(""));
  const shares = state.weights.map((weight) => `${Math.round(100 * weight)} %`);
  $("knob").setAttribute("aria-valuetext", shares.join(", "));
  document.querySelectorAll(".corner output").forEach((output, k) => (output.textContent = shares[k]));
}

function weigh(weights) {
  const positive = weights.map((weight) => Math.max(weight, 0));
  const sum = positive.reduce((all, weight) => all + weight, 0);
  state.weights = positive.map((weight) => weight / sum);
  place();
  change();
}

// The weights with which the corners give a point of the view box (barycentric coordinates).
function weightsAt(x, y) {
  const [[ax, ay], [bx, by], [cx, cy]] = CORNERS;
  const area = (by - cy) * (ax - cx) + (cx - bx) * (ay - cy);
  const a = ((by - cy) * (x - cx) + (cx - bx) * (y - cy)) / area;
  const b = ((cy - ay) * (x - cx) + (ax - cx) * (y - cy)) / area;
  return [a, b, 1 - a - b];
}

function pointed(event) {
  const box = $("triangle").getBoundingClientRect();
  return [(300 * (event.clientX - box.left)) / box.width, (260 * (event.clientY - box.top)) / box.height];
}

function drag(event) {
  if (event.type === "pointerdown") {
    if (event.target.closest(".corner")) return;
    $("triangle").setPointerCapture(event.pointerId);
    $("knob").focus({ preventScroll: true });
    event.preventDefault();
  } else if (!$("triangle").hasPointerCapture(event.pointerId)) return;
  weigh(weightsAt(...pointed(event)));
}

function nudge(event) {
  const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
  if (!step) return;
  event.preventDefault();
  const [x, y] = [0, 1].map((axis) => CORNERS.reduce((sum, corner, k) => sum + state.weights[k] * corner[axis], 0));
  weigh(weightsAt(x + 6 * step[0], y + 6 * step[1]));
}

function makeCorners() {
  CORNERS.forEach(([x, y], k) => {
    const corner = document.createElement("div");
    corner.className = "corner";
    corner.style.left = `${x / 3}%`;
    corner.style.top = `${y / 2.6}%`;
    const face = document.createElement("button");
    face.className = "face";
    face.ariaLabel = `Only image ${k + 1}`;
    face.append(document.createElement("canvas"));
    face.onclick = () => weigh([0, 1, 2].map((other) => Number(other === k)));
    const other = document.createElement("button");
    other.className = "other";
    other.textContent = "\u21bb";
    other.ariaLabel = other.title = `Another image ${k + 1}`;
    other.onclick = () => put(k, nextRow());
    corner.append(face, document.createElement("output"), other);
    $("triangle").append(corner);
  });
}

let row = 0;
const nextRow = () => state.rows[row++ % state.rows.length];

function put(k, latent) {
  if (!state.corners.length) return;
  state.corners[k] = latent;
  if (state.photo === k) state.photo = null;
  $("photo").hidden = state.photo === null;
  change();
  return thumbnail(k);
}

async function thumbnail(k) {
  const latent = state.corners[k];
  const { result } = await decode(latent);
  if (state.corners[k] === latent) paint(document.querySelectorAll(".corner canvas")[k], result);
}

// --- sliders ---

function makeSliders() {
  data.directions.forEach(({ left, right }, k) => {
    const line = document.createElement("label");
    const names = document.createElement("span");
    for (const name of [left, right].filter(Boolean)) {
      names.append(document.createElement("span"));
      names.lastChild.textContent = name;
    }
    const slider = document.createElement("input");
    Object.assign(slider, { type: "range", min: -data.span, max: data.span, step: 0.01, value: 0 });
    slider.ariaLabel = left ? `from ${left} to ${right}` : right;
    slider.oninput = () => {
      state.moved[k] = Number(slider.value);
      change();
    };
    const ends = [-data.span, data.span].map((end) => {
      const canvas = document.createElement("canvas");
      Object.assign(canvas.dataset, { slider: k, end });
      return canvas;
    });
    line.append(ends[0], names, slider, ends[1]);
    $("sliders").append(line);
  });
}

function slide(moved) {
  state.moved = moved;
  document.querySelectorAll("#sliders input").forEach((slider, k) => (slider.value = moved[k]));
}

// --- photos and files ---

async function open(file, corner = 0) {
  try {
    const saved = file.name.endsWith(".json");
    const latent = saved ? latentIn(await file.text()) : await encoded(file);
    slide(state.moved.map(() => 0));
    weigh([0, 1, 2].map((other) => Number(other === corner)));
    const done = put(corner, latent);
    if (!saved) {
      state.photo = corner;
      $("photo").hidden = false;
      $("photo").querySelector("figcaption").textContent =
        `${file.name} as the encoder gets it. Its reconstruction is image ${corner + 1} of the triangle.`;
    }
    await done;
  } catch (error) {
    say(`${file.name} cannot be used: ${error.message}`);
  }
}

function latentIn(text) {
  const { latent, shape, label } = JSON.parse(text);
  const fits = Array.isArray(latent) && latent.length === size && latent.every(Number.isFinite);
  if (!fits || String(shape) !== String(data.latent)) throw new Error(`no latent of the shape [${data.latent}]`);
  if (data.classes.length && Number.isInteger(label) && label >= 0 && label < data.classes.length) choose(label);
  return Float32Array.from(latent);
}

async function encoded(file) {
  if (!data.encoder) throw new Error("this model has no encoder");
  const image = await fitted(file);
  const { result } = await ask("encode", { image, shape: [channels, height, width], label: state.label });
  paint($("photo-image"), image);
  return result;
}

function save(blob, name) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

// An image and its latent get the same number.
let saved = 0, newest = null;
function named(ending) {
  if (newest !== state.latent) saved++;
  newest = state.latent;
  return `${data.name.replace(/[^\w.-]+/g, "_")}-${saved}${ending}`;
}

function saveImage() {
  const name = named(".png");
  $("image").toBlob((blob) => save(blob, name));
}

function saveLatent() {
  const label = data.classes.length ? state.label : null;
  const content = { run: data.name, step: data.step, shape: data.latent, label, latent: [...state.latent] };
  save(new Blob([JSON.stringify(content)], { type: "application/json" }), named(".json"));
}

// --- classes ---

function choose(label) {
  state.label = label;
  $("class").querySelector("select").value = label;
  change();
  if (state.corners.length) [0, 1, 2].forEach(thumbnail);
}

function makeClasses() {
  data.classes.forEach((name, label) => {
    const option = document.createElement("option");
    option.value = label;
    option.textContent = name;
    $("class").querySelector("select").append(option);
  });
  $("class").hidden = !data.classes.length;
  $("class").querySelector("select").onchange = (event) => choose(Number(event.target.value));
}

// --- the page ---

function listen() {
  for (const name of ["pointerdown", "pointermove"]) $("triangle").addEventListener(name, drag);
  $("knob").addEventListener("keydown", nudge);
  $("others").onclick = () => [0, 1, 2].forEach((k) => put(k, nextRow()));
  $("middle").onclick = () => weigh([1, 1, 1]);
  $("reset").onclick = () => {
    slide(state.moved.map(() => 0));
    change();
  };
  $("save-image").onclick = saveImage;
  $("save-latent").onclick = saveLatent;
  $("open-photo").onclick = () => $("file").click();
  $("file").onchange = () => {
    if ($("file").files.length) open($("file").files[0]);
    $("file").value = "";
  };
  document.addEventListener("dragover", (event) => event.preventDefault());
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    const weights = weightsAt(...pointed(event)); // the corner that is nearest
    const over = $("triangle").contains(event.target);
    if (event.dataTransfer.files.length) open(event.dataTransfer.files[0], over ? weights.indexOf(Math.max(...weights)) : 0);
  });
}

async function main() {
  $("name").textContent = data.name;
  for (const text of data.facts) {
    const line = document.createElement("p");
    line.textContent = text;
    $("facts").append(line);
  }
  makeCorners();
  makeSliders();
  makeClasses();
  $("directions").hidden = !data.directions.length;
  $("open-photo").textContent = data.encoder ? "Open a photo" : "Open a latent";
  $("open-photo").hidden = false;
  paint($("image"), new Float32Array(channels * width * height));
  place();
  try {
    await start();
  } catch (error) {
    return failed(error.message);
  }
  listen();
  state.corners = [nextRow(), nextRow(), nextRow()];
  change();
  [0, 1, 2].forEach(thumbnail);
  document.querySelectorAll("button").forEach((button) => (button.disabled = false));
}

main();
