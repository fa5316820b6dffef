// The page "Try your own photo": its controls, and what they show. Nothing is computed here: explainer.js.

import { Caller } from "./caller.js";
import { classEntry, made, pictureEntry, thumbnail } from "./entries.js";
import { METHODS } from "./saliency.js";
import { draw, drawCurtain, tell } from "./stage.js";
import { search, topClasses } from "./words.js";

/** @import { Answer, Description, Picture } from "./explainer.js" */
/** @import { Wish } from "./caller.js" */

/** @typedef {{file: string, title: string}} Ours */

/**
 * @typedef {object} Contents what book/_tools/own_photo.py made
 * @property {{script: string, wasm: string, version: string} | null} runtime
 * @property {Description[]} networks
 * @property {Ours[]} pictures
 * @property {number[]} colours (256, 3) in 0…255
 * @property {string[]} missing sentences
 */

/**
 * What is chosen. `target` is null for the most probable class, `right` empty for one method alone.
 * @typedef {object} State
 * @property {Picture} picture
 * @property {Description} network
 * @property {number | null} target
 * @property {number} layer
 * @property {string} left
 * @property {string} right
 */

const MATCHES = 8; // classes that are listed for what is typed
const root = /** @type {HTMLElement} */ (document.getElementById("own-photo"));

/** @param {string} name */
const part = (name) => /** @type {any} */ (root.querySelector(`[data-part="${name}"]`));
/** @type {HTMLInputElement[]} */
const methods = Array.from(root.querySelectorAll('input[name="own-photo-method"]'));

/** @type {Map<string, string> | undefined} in the version that is one file, the addresses of its parts */
const inside = /** @type {any} */ (globalThis).ownPhotoParts;

/** @param {string} name of a file of the page */
const address = (name) => inside?.get(name) ?? new URL(name, import.meta.url).href;

/** @type {Contents} */
let contents;
/** @type {Float32Array} */
let colours;
/** @type {Caller} */
let caller;
/** @type {State} */
let state;
/** @type {{state: State, answer: Answer} | undefined} what is shown */
let shown;
/** @type {Picture | undefined} the reader's own that was read last */
let own;
/** @type {WeakMap<Wish, State>} what was chosen when it was wished for */
const asked = new WeakMap();

start().catch((error) => {
  part("fault").textContent = `This page could not be started (${error.message}); load it again.`;
  part("fault").hidden = false;
});

async function start() {
  listenForDrops();
  contents = await (await fetch(address("own_photo.json"))).json();
  if (contents.missing.length) {
    part("missing").replaceChildren(...contents.missing.map((text) => made("p", { textContent: text })));
    part("missing").hidden = false;
  }
  if (!contents.runtime || !contents.networks.length) {
    part("status").textContent = "Nothing can be computed on this copy of the page.";
    root.dataset.state = "incomplete";
    return;
  }
  colours = Float32Array.from(contents.colours);
  caller = new Caller(address("explainer.js"), inside, { progress: say, answer: show, fault: complain });
  listen();
  part("network").replaceChildren(...contents.networks.map(({ name, title }) => new Option(title, name)));
  part("right").append(...Object.entries(METHODS).map(([name, { title }]) => new Option(title, name)));
  listPictures();
  part("controls").disabled = false;
  const network = contents.networks[0];
  const picture = ours(contents.pictures[0]);
  state = { picture, network, target: null, layer: network.layers.length - 1, left: "gmcam", right: "" };
  ask();
}

/** Sends what is chosen to the worker. */
function ask() {
  const { picture, network, target, layer } = state;
  if (!network.layers[layer].cam) {
    if (state.left === "cam") state.left = "grad_cam";
    if (state.right === "cam") state.right = "";
  }
  render();
  /** @type {Wish} */
  const wish = {
    runtime: /** @type {any} */ (contents.runtime),
    network,
    picture,
    target,
    layer: network.layers[layer].path,
    methods: state.right ? [state.left, state.right] : [state.left],
  };
  asked.set(wish, { ...state });
  part("fault").hidden = true;
  root.dataset.state = "busy";
  caller.ask(wish);
}

/**
 * @param {Partial<State>} change
 */
function choose(change) {
  state = { ...state, ...change };
  ask();
}

/** @param {string} progress */
function say(progress) {
  part("status").textContent = progress;
}

/**
 * @param {Answer} answer
 * @param {Wish} wish
 */
function show(answer, wish) {
  const of = /** @type {State} */ (asked.get(wish));
  shown = { state: of, answer };
  if (state.picture === of.picture && state.network === of.network) state.target ??= answer.target.index;
  if (contents.pictures.every(({ file }) => file !== of.picture.key)) listOwn(of.picture, answer);
  paint();
  tell(part, answer, { ...of, name: of.picture.name });
  render();
  settle();
  root.dispatchEvent(new CustomEvent("explained", { detail: shown }));
}

/**
 * What went wrong is said, and the page goes back to what it shows; unless something else has been asked for
 * meanwhile, which will tell by itself.
 * @param {string} message
 */
function complain(message) {
  if (caller.busy) return;
  part("fault").textContent = message;
  part("fault").hidden = false;
  if (shown) {
    state = { ...shown.state, target: shown.answer.target.index };
    render();
  }
  settle();
}

function settle() {
  if (caller.busy) return;
  root.dataset.state = "ready";
  say(shown ? `Ready. ${state.picture.name} on ${state.network.title}.` : "Choose another picture.");
}

function paint() {
  if (shown) draw(part, shown.answer, part("opacity").value / 100, colours);
}

/** Brings every control to the state. */
function render() {
  const { network, layer, left, right } = state;
  part("network").value = network.name;
  part("about").textContent = `${network.licence} ${network.accuracy}`;
  const { cam, shape } = network.layers[layer];
  const cells = `${shape[1]} × ${shape[2]} cells`;
  Object.assign(part("layer"), { max: network.layers.length - 1, value: layer, ariaValueText: cells });
  part("cells").textContent = cells;
  for (const input of methods) {
    const card = /** @type {HTMLElement} */ (input.closest(".own-photo-method"));
    input.checked = input.value === left;
    input.disabled = input.value === "cam" && !cam;
    const sides = [input.value === left && "left", input.value === right && "right"].filter(Boolean);
    card.dataset.lit = sides.length > 0 ? "chosen" : "";
    card.dataset.side = right ? sides.join(" and ") : "";
  }
  for (const element of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-used-by]"))) {
    const by = element.dataset.usedBy?.split(" ") ?? [];
    const uses = [left, right].some((method) => method && by.includes(method));
    if (element.dataset.lit !== "chosen") element.dataset.lit = uses ? "used" : "";
  }
  part("right").value = right;
  part("right").querySelector('[value="cam"]').disabled = !cam;
  part("no-cam").hidden = cam;
  part("curtain-row").hidden = !right;
  for (const input of part("pictures").querySelectorAll("input")) {
    input.checked = input.value === state.picture.key;
  }
  listClasses();
}

/** The most probable classes and the chosen one, or those that fit what is typed. */
function listClasses() {
  const list = part("classes");
  const { picture, network, target } = state;
  const { classes } = network;
  const current = shown?.state.network === network && shown.state.picture === picture;
  const answer = current ? shown?.answer : undefined;
  const chosen = target ?? answer?.target.index;
  const typed = part("search").value.trim();
  const probable = answer ? answer.top.map(({ index }) => index) : [];
  if (chosen !== undefined && !probable.includes(chosen)) probable.push(chosen);
  const found = typed ? search(classes, typed) : probable;
  const indices = found.slice(0, MATCHES);
  const key = `${network.name} ${answer ? picture.key : ""} ${indices}`;
  if (list.dataset.key !== key) {
    list.dataset.key = key; // a list that stays as it is keeps the keyboard's focus by itself
    const all = answer ? topClasses(answer.logits, classes, classes.length, network.output) : [];
    const probability = new Map(all.map((guess) => [guess.index, guess.probability]));
    const entry = (/** @type {number} */ index) => classEntry(index, classes[index], probability.get(index));
    const focused = list.contains(document.activeElement);
    list.replaceChildren(...indices.map(entry));
    if (focused) list.querySelector(`[value="${chosen}"]`)?.focus();
  }
  for (const input of list.querySelectorAll("input")) input.checked = Number(input.value) === chosen;
  const more = found.length > MATCHES ? `, the first ${MATCHES} are listed` : "";
  part("found").textContent = typed ? `${found.length} of ${classes.length} classes${more}` : "";
}

function listPictures() {
  part("pictures").replaceChildren(
    ...contents.pictures.map((one) => {
      const image = made("img", { src: address(one.file), alt: one.title, className: "dark-light" });
      return pictureEntry(one.file, one.title, image);
    }),
  );
}

/**
 * The reader's picture stands beside ours once it has been read.
 * @param {Picture} picture
 * @param {Answer} answer
 */
function listOwn(picture, { view }) {
  if (own === picture) return;
  own = picture;
  const list = part("pictures");
  list.querySelector("[data-own]")?.remove();
  const entry = pictureEntry(picture.key, picture.name, thumbnail(view));
  entry.dataset.own = "";
  list.append(entry);
}

/**
 * @param {Ours} one
 * @returns {Picture}
 */
function ours({ file, title }) {
  return { key: file, name: title };
}

let taken = 0;

/**
 * Files are taken wherever they fall: beside the controls, the browser would open them in the page's place.
 * Dragged from another page, a picture is an address, which this page does not follow.
 */
function listenForDrops() {
  const carried = (/** @type {DragEvent} */ { dataTransfer }) =>
    ["Files", "text/uri-list"].some((type) => dataTransfer?.types.includes(type));
  document.addEventListener("dragover", (event) => {
    if (!carried(event)) return;
    event.preventDefault();
    root.dataset.over = "";
  });
  document.addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) delete root.dataset.over;
  });
  document.addEventListener("drop", (event) => {
    if (!carried(event)) return;
    event.preventDefault();
    delete root.dataset.over;
    if (!state) return;
    if (event.dataTransfer?.files.length) take(event.dataTransfer.files);
    else complain("What was dropped is no file; save the picture on this machine, and drop it from there.");
  });
}

/** @param {Iterable<File> | null | undefined} files of which the first is taken */
function take(files) {
  const [file] = files ?? [];
  if (!file) return;
  choose({ picture: { key: `own-${++taken}`, name: file.name || "the picture", file }, target: null });
}

function listen() {
  for (const name of ["choose", "camera"]) {
    part(name).addEventListener("change", () => {
      take(part(name).files);
      part(name).value = ""; // so that the same file can be chosen again
    });
  }
  document.addEventListener("paste", (event) => take(event.clipboardData?.files));

  part("pictures").addEventListener("change", (/** @type {Event} */ event) => {
    const key = /** @type {HTMLInputElement} */ (event.target).value;
    const one = contents.pictures.find(({ file }) => file === key);
    const picture = one ? ours(one) : own;
    if (picture) choose({ picture, target: null });
  });
  part("network").addEventListener("change", () => {
    const network = /** @type {Description} */ (
      contents.networks.find(({ name }) => name === part("network").value)
    );
    part("search").value = "";
    choose({ network, target: null, layer: network.layers.length - 1 });
  });
  part("classes").addEventListener("change", (/** @type {Event} */ event) => {
    choose({ target: Number(/** @type {HTMLInputElement} */ (event.target).value) });
  });
  part("search").addEventListener("input", listClasses);
  part("layer").addEventListener("input", () => choose({ layer: Number(part("layer").value) }));
  for (const input of methods) input.addEventListener("change", () => choose({ left: input.value }));
  part("right").addEventListener("change", () => choose({ right: part("right").value }));
  part("opacity").addEventListener("input", () => {
    part("percent").textContent = `${part("opacity").value}%`;
    paint();
  });
  part("curtain").addEventListener("input", () => drawCurtain(part, Number(part("curtain").value)));
  const frame = part("frame");
  for (const kind of ["pointerdown", "pointermove"]) {
    frame.addEventListener(kind, (/** @type {PointerEvent} */ event) => {
      if (!event.buttons || !state.right) return;
      const { left, width } = frame.getBoundingClientRect();
      drawCurtain(part, Math.min(100, Math.max(0, (100 * (event.clientX - left)) / width)));
    });
  }
}
