// The worker: it decodes an image, runs the network and computes the maps, so that the page never waits.
// Every job is complete in itself, and results of earlier jobs are used again: after a restart, the page sends
// the same job once more.

import { inputOf, prepare } from "./resize.js";
import { METHODS, postprocess, upsample } from "./saliency.js";
import { topClasses } from "./words.js";
import { Fault, breath, read } from "./picture.js";

/** @import { Pixels, Preprocessing } from "./resize.js" */
/** @import { CellMap, Stack } from "./saliency.js" */
/** @import { Guess } from "./words.js" */

/** @typedef {{path: string, label: string, shape: [number, number, number], cam: boolean}} Layer */

/**
 * A network's description, as book/_tools/own_photo.py writes it.
 * @typedef {object} Description
 * @property {string} name
 * @property {string} title
 * @property {string} licence
 * @property {string} accuracy
 * @property {string[]} classes
 * @property {string} output what the logits mean, "softmax" or "sigmoid"
 * @property {Layer[]} layers shallow to deep
 * @property {[number, number]} size of its input
 * @property {Preprocessing} preprocessing
 * @property {string} model the file's name
 * @property {number} bytes of the file
 */

/**
 * A reader's file, or one of the book's, whose key is its file's name.
 * @typedef {{key: string, name: string, file?: Blob}} Picture
 */

/**
 * What to explain. `target` is null for the most probable class; `methods` are names in METHODS. With
 * `covered`, the pixels of a partly covered image as the network sees it, only logits are computed.
 * @typedef {object} Job
 * @property {number} id
 * @property {{script: string, wasm: string}} runtime names of files
 * @property {Description} network
 * @property {Picture} picture
 * @property {number | null} target
 * @property {string} layer path
 * @property {string[]} methods
 * @property {boolean} smooth
 * @property {Uint8Array} [covered]
 */

/** @typedef {{method: string, map: Float32Array, fine?: Float32Array, empty: boolean}} Drawn */

/**
 * `shown` is the part of the image that the network sees, `view` the same at a higher resolution. `maps` have
 * the size of the network's input and `fine` ones that of the view; `raw` are the cells of every method.
 * @typedef {object} Answer
 * @property {number} id
 * @property {Guess[]} top the most probable classes
 * @property {Float32Array} logits
 * @property {Guess} target
 * @property {Pixels} shown
 * @property {Pixels} view
 * @property {Drawn[]} maps
 * @property {Record<string, CellMap>} raw
 */

/** @typedef {{id: number, logits: Float32Array}} Measured the answer to a job with `covered` */

const VIEW = 448; // pixels of the image on the page, about

/** @type {Map<string, string>} addresses by name in the one-file version; else all files are in this folder */
let addresses = new Map();
/** @type {any} the runtime, without types */
let ort;
/** @type {{model: string, run: (feeds: object) => Promise<any>, release: () => Promise<void>} | undefined} */
let session;
/** @type {{key: string, shown: Pixels, view: Pixels, input: Float32Array} | undefined} */
let prepared;
/** @type {{key: string, outputs: Record<string, {data: Float32Array, dims: number[]}>} | undefined} */
let lastPass;

self.onmessage = async ({ data: job }) => {
  const { id } = job;
  if (job.addresses) {
    addresses = job.addresses;
    return;
  }
  if (job.ping) return self.postMessage({ id, pong: true });
  try {
    self.postMessage(await (job.covered ? measure(job) : explain(job)));
  } catch (error) {
    lastPass = undefined;
    self.postMessage({ id, fault: messageOf(error), spent: !(error instanceof Fault) || error.spent });
  }
};

/**
 * @param {Job} job
 * @returns {Promise<Answer>}
 */
async function explain(job) {
  const { id, network, picture, target, layer, methods, smooth } = job;
  const { model } = network;
  if (!ort) preload(job.runtime.wasm);
  if (session?.model !== model) preload(model); // loaded while the image is read
  const pictureKey = `${picture.key} ${network.name}`;
  if (prepared?.key !== pictureKey) {
    report(id, `Reading ${picture.name}…`);
    const file = picture.file ?? new Blob([await load(picture.key)]);
    prepared = { key: pictureKey, ...(await prepareImage(await read(file, picture.name), network)) };
  }
  await loadNetwork(job);
  let index = target;
  if (index === null) {
    const { logits } = await pass(network, pictureKey, 0); // the same for every class
    index = topClasses(logits.data, network.classes, 1, network.output)[0].index;
  }
  const outputs = await pass(network, pictureKey, index);
  const logits = outputs.logits.data;
  const stack = (/** @type {string} */ kind) => {
    const { data, dims } = outputs[`${kind}:${layer}`];
    return /** @type {Stack} */ ({ data, shape: dims.slice(1) });
  };
  const [M, C] = [stack("maps"), stack("gradients")];
  const { shown, view } = prepared;
  const raw = Object.fromEntries(Object.entries(METHODS).map(([name, { compute }]) => [name, compute(M, C)]));
  const maps = methods.map((method) => {
    const { map, empty } = postprocess(raw[method], network.size);
    if (!smooth) return { method, map, empty };
    const fine = upsample({ data: map, shape: network.size }, [view.height, view.width]).data;
    return { method, map, fine, empty };
  });
  const all = topClasses(logits, network.classes, network.classes.length, network.output);
  const chosen = /** @type {Guess} */ (all.find((guess) => guess.index === index));
  return { id, top: all.slice(0, 5), logits, target: chosen, shown, view, maps, raw };
}

/**
 * The logits of a covered image.
 * @param {Job} job
 * @returns {Promise<Measured>}
 */
async function measure(job) {
  await loadNetwork(job);
  const { id, network, covered } = job;
  const input = inputOf(/** @type {Uint8Array} */ (covered), network.preprocessing);
  const { logits } = await run(network, input, 0);
  return { id, logits: logits.data };
}

/**
 * Loads the runtime and the network, unless they are there.
 * @param {Job} job
 */
async function loadNetwork({ id, runtime, network }) {
  const { model } = network;
  if (!ort) {
    report(id, "Loading the runtime…");
    ort = await start(runtime);
  }
  if (session?.model !== model) {
    report(id, `Loading ${network.title} (${(network.bytes / 1e6).toFixed(1)} MB)…`);
    await session?.release();
    session = undefined;
    const running = await ort.InferenceSession.create(new Uint8Array(await load(model)));
    session = { model, run: (feeds) => running.run(feeds), release: () => running.release() };
  }
}

/**
 * @param {number} id
 * @param {string} progress
 */
function report(id, progress) {
  self.postMessage({ id, progress });
}

/**
 * The part of an image that the network sees, and the network's input.
 * @param {Pixels} pixels
 * @param {Description} network
 */
async function prepareImage(pixels, { preprocessing }) {
  const { resize, crop } = preprocessing;
  const times = Math.max(1, Math.round(VIEW / crop));
  let result;
  try {
    result = prepare(pixels, preprocessing);
  } catch (error) {
    const slender = error instanceof RangeError && /slender/.test(error.message);
    throw slender ? new Fault(sentence(error.message)) : error;
  }
  await breath();
  const finer = { ...preprocessing, resize: times * resize, crop: times * crop };
  return { ...result, view: prepare(pixels, finer).shown };
}

/**
 * One pass forwards and backwards, used again for the same image and class.
 * @param {Description} network
 * @param {string} pictureKey
 * @param {number} index
 */
async function pass(network, pictureKey, index) {
  const key = `${pictureKey} ${index}`;
  if (lastPass?.key === key) return lastPass.outputs;
  if (!prepared) throw new Error("no image");
  lastPass = undefined; // frees its memory
  const outputs = await run(network, prepared.input, index);
  lastPass = { key, outputs };
  return outputs;
}

/**
 * Logits, and the maps of all layers for one class.
 * @param {Description} network
 * @param {Float32Array} input
 * @param {number} index
 */
async function run({ classes, size }, input, index) {
  if (!session) throw new Error("no session");
  const weights = new Float32Array(classes.length);
  weights[index] = 1;
  return session.run({
    image: new ort.Tensor("float32", input, [1, 3, ...size]),
    weights: new ort.Tensor("float32", weights, [1, classes.length]),
  });
}

/**
 * The runtime in one thread: several need headers that few servers of static pages send.
 * @param {{script: string, wasm: string}} names of its files
 */
async function start({ script, wasm }) {
  const binary = await load(wasm);
  try {
    await WebAssembly.compile(new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0])); // the empty program
  } catch (error) {
    throw new Fault(
      `This browser does not allow WebAssembly here (${/** @type {Error} */ (error).message}); ` +
        "allow it for this page, or use another browser.",
    );
  }
  const loaded = await import(address(script)).catch((error) => {
    throw Object.assign(missing(error), { spent: true }); // a browser may remember a failed import
  });
  loaded.env.wasm.numThreads = 1;
  loaded.env.wasm.wasmBinary = binary;
  return loaded;
}

/** @param {string} name of a file of the book */
const address = (name) => addresses.get(name) ?? new URL(name, import.meta.url).href;

/** @type {Map<string, Promise<ArrayBuffer>>} files that are being loaded or not yet used */
const coming = new Map();

/**
 * Starts loading a file of the book, once.
 * @param {string} name
 */
function preload(name) {
  const file = coming.get(name) ?? unpacked(name);
  coming.set(name, file);
  file.catch(() => coming.delete(name)); // the next call tries again
  return file;
}

/**
 * A file of the book, which is not kept.
 * @param {string} name
 */
async function load(name) {
  const data = await preload(name);
  coming.delete(name);
  return data;
}

/**
 * A file of the book. Some servers unpack .gz files; the first two bytes show it.
 * @param {string} name
 */
async function unpacked(name) {
  try {
    const response = await fetch(address(name));
    if (!response.ok) throw new Error(`${response.status} for ${name}`);
    const data = await response.arrayBuffer();
    const [first, second] = new Uint8Array(data);
    if (first !== 0x1f || second !== 0x8b) return data;
    const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("gzip"));
    return await new Response(stream).arrayBuffer();
  } catch (error) {
    throw error instanceof RangeError ? error : missing(error); // the former means too little memory
  }
}

/** @param {unknown} error while a file of the book was loaded */
function missing(error) {
  const why = error instanceof Error ? error.message : String(error);
  return new Fault(`A part of this page could not be loaded (${why}); check your connection and try again.`);
}

/**
 * A message for the page.
 * @param {unknown} error
 */
function messageOf(error) {
  if (error instanceof Fault) return error.message;
  const message = error instanceof Error ? error.message : String(error);
  if (/memory|alloc|(array|buffer) length|too large/i.test(message)) {
    return (
      "This browser has too little memory; choose a smaller image, close other pages, " +
      "or use another browser."
    );
  }
  return sentence(`this image could not be explained (${message})`);
}

/** @param {string} text */
function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}.`;
}
