"use strict";
// Runs the networks beside the page, so that the page never waits. `ort` is in the script before.
const sessions = {};

async function open({ wasm, networks }) {
  ort.env.wasm.wasmBinary = wasm;
  ort.env.wasm.numThreads = 1; // more need headers that a file on a disk does not have
  for (const [name, bytes] of Object.entries(networks)) {
    sessions[name] = await ort.InferenceSession.create(new Uint8Array(bytes), {
      executionProviders: ["wasm"],
    });
  }
}

function withLabel(session, inputs, label) {
  if (session.inputNames.includes("labels")) {
    inputs.labels = new ort.Tensor("int64", BigInt64Array.of(BigInt(label)), [1]);
  }
  return inputs;
}

async function decode({ latent, shape, label }) {
  const inputs = { latents: new ort.Tensor("float32", latent, [1, ...shape]) };
  return (await sessions.decoder.run(withLabel(sessions.decoder, inputs, label))).images.data;
}

async function encode({ image, shape, label }) {
  const inputs = { images: new ort.Tensor("float32", image, [1, ...shape]) };
  return (await sessions.encoder.run(withLabel(sessions.encoder, inputs, label))).latents.data;
}

const jobs = { open, decode, encode };
let last = Promise.resolve(); // one job after another
self.onmessage = ({ data }) => {
  last = last.then(async () => {
    try {
      const start = performance.now();
      const result = await jobs[data.job](data);
      self.postMessage({ id: data.id, result, time: performance.now() - start });
    } catch (error) {
      self.postMessage({ id: data.id, error: String(error) });
    }
  });
};
