// The page "Try your own photo": its controls, and what they show. explainer.js computes.

import { Caller } from "./caller.js";
import { digits } from "./chart.js";
import { classEntry, create, layerEntry, pictureEntry, thumbnail } from "./entries.js";
import { METHODS } from "./saliency.js";
import { draw, drawCurtain, drawSwitches, write } from "./stage.js";
import { Testing } from "./testing.js";
import { search, topClasses } from "./words.js";

/** @import { Answer, Description, Picture } from "./explainer.js" */
/** @import { Task } from "./caller.js" */

/** @typedef {{file: string, title: string}} Example */

/**
 * @typedef {object} Contents what book/_tools/own_photo.py writes
 * @property {{script: string, wasm: string, version: string} | null} runtime
 * @property {Description[]} networks
 * @property {Example[]} pictures
 * @property {string[]} missing sentences
 */

/**
 * The settings. `target` is null for the most probable class, `right` is empty without a second map.
 * @typedef {object} State
 * @property {Picture} picture
 * @property {Description} network
 * @property {number | null} target
 * @property {number} layer
 * @property {string} left
 * @property {string} right
 * @property {boolean} smooth
 */

const MATCHES = 50; // classes that a search lists
const root = /** @type {HTMLElement} */ (document.getElementById("own-photo"));

/** @param {string} name */
const part = (name) => /** @type {any} */ (root.querySelector(`[data-part="${name}"]`));
/** @type {HTMLInputElement[]} */
const methods = Array.from(root.querySelectorAll('input[name="own-photo-method"]'));

/** @type {Map<string, string> | undefined} addresses of the parts of the one-file version */
const addresses = /** @type {any} */ (globalThis).ownPhotoParts;

/** @param {string} name of a file of the page */
const address = (name) => addresses?.get(name) ?? new URL(name, import.meta.url).href;

/** @type {Contents} */
let contents;
/** @type {Caller} */
let caller;
/** @type {Testing} */
let testing;
/** @type {State} */
let state;
/** @type {{state: State, answer: Answer} | undefined} what is shown */
let shown;
/** @type {Picture | undefined} the reader's last image */
let ownPicture;
/** @type {WeakMap<Task, State>} the settings of each task */
const stateOf = new WeakMap();

start().catch((error) => {
  part("fault").textContent = `This page could not start (${error.message}); load it again.`;
  part("fault").hidden = false;
});

async function start() {
  listenForDrops();
  contents = await (await fetch(address("own_photo.json"))).json();
  if (contents.missing.length) {
    part("missing").replaceChildren(...contents.missing.map((text) => create("p", { textContent: text })));
    part("notes").open = true;
  }
  if (!contents.runtime || !contents.networks.length) {
    part("status").textContent = "Nothing can be computed on this copy of the page.";
    root.dataset.state = "incomplete";
    return;
  }
  const listeners = { progress: report, answer: show, fault: reportFault };
  caller = new Caller(address("explainer.js"), addresses, listeners);
  testing = new Testing(root, part, (covered, network) =>
    caller.measure({ ...taskOf({ ...state, network }), covered }),
  );
  listen();
  part("network").replaceChildren(...contents.networks.map(({ name, title }) => new Option(title, name)));
  part("right").append(...Object.entries(METHODS).map(([name, { title }]) => new Option(title, name)));
  listPictures();
  for (const name of ["controls", "source", "tries"]) part(name).disabled = false;
  state = initial();
  compute();
}

/** @returns {State} */
function initial() {
  const network = contents.networks[0];
  const layer = network.layers.length - 1;
  const picture = exampleOf(contents.pictures[0]);
  return { picture, network, target: null, layer, left: "gmcam", right: "", smooth: false };
}

/** Sends the settings to the worker. */
function compute() {
  const { picture, network, target, layer } = state;
  if (!network.layers[layer].cam) {
    if (state.left === "cam") state.left = "grad_cam";
    if (state.right === "cam") state.right = "";
  }
  render();
  const task = taskOf(state);
  stateOf.set(task, { ...state });
  part("fault").hidden = true;
  root.dataset.state = "busy";
  caller.submit(task);
}

/**
 * @param {State} of
 * @returns {Task}
 */
function taskOf({ picture, network, target, layer, left, right, smooth }) {
  const runtime = /** @type {any} */ (contents.runtime);
  const methods = right ? [left, right] : [left];
  return { runtime, network, picture, target, layer: network.layers[layer].path, methods, smooth };
}

/**
 * @param {Partial<State>} change
 */
function choose(change) {
  state = { ...state, ...change };
  compute();
}

/** @param {string} progress */
function report(progress) {
  part("status").textContent = progress;
}

/**
 * @param {Answer} answer
 * @param {Task} task
 */
function show(answer, task) {
  const of = /** @type {State} */ (stateOf.get(task));
  shown = { state: of, answer };
  if (state.picture === of.picture && state.network === of.network) state.target ??= answer.target.index;
  if (contents.pictures.every(({ file }) => file !== of.picture.key)) listOwn(of.picture, answer);
  paint();
  write(part, answer, { ...of, name: of.picture.name });
  const layer = of.network.layers[of.layer];
  const key = `${of.picture.key} ${of.network.name}`;
  testing.show({ key, answer, network: of.network, layer, method: of.left });
  render();
  settle();
  root.dispatchEvent(new CustomEvent("explained", { detail: shown }));
}

/**
 * Reports the fault and returns to what the page shows, unless a later task is running, which reports for
 * itself.
 * @param {string} message
 */
function reportFault(message) {
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
  report(shown ? `Ready. ${state.picture.name}, ${state.network.title}.` : "Choose another image.");
}

function paint() {
  if (!shown) return;
  draw(part, shown.answer, root.dataset.mode === "test" && part("bare").checked);
  drawSwitches(shown.answer, root.querySelectorAll("[data-method]"));
}

/** Sets every control to the state. */
function render() {
  const { network, layer, left, right } = state;
  part("network").value = network.name;
  part("about").textContent = `${network.licence} ${network.accuracy}`;
  const { cam } = network.layers[layer];
  listLayers();
  part("smooth").checked = state.smooth;
  for (const input of methods) {
    const one = /** @type {HTMLElement} */ (input.closest("[data-method]"));
    input.checked = input.value === left;
    input.disabled = input.value === "cam" && !cam;
    const factor = left === "gmcam" && ["grad_cam", "guidance_map"].includes(input.value);
    one.dataset.lit = [left, right].includes(input.value) ? "chosen" : factor ? "used" : "";
  }
  for (const line of /** @type {NodeListOf<HTMLElement>} */ (root.querySelectorAll("[data-equation]"))) {
    line.hidden = ![left, right].includes(line.dataset.equation ?? "");
  }
  part("right").value = right;
  part("right").querySelector('[value="cam"]').disabled = !cam;
  part("curtain").disabled = !right;
  for (const input of part("pictures").querySelectorAll("input")) {
    input.checked = input.value === state.picture.key;
  }
  const answer = currentAnswer();
  const target = state.target ?? answer?.target.index;
  part("why").textContent = target === undefined ? "this class" : network.classes[target];
  part("logit").textContent = answer && target !== undefined ? `logit ${digits(answer.logits[target])}` : "";
  const narrow = matchMedia("(max-width: 1023px)").matches;
  const count = network.classes.length.toLocaleString("en");
  part("search").placeholder = narrow ? "Search all" : `Search ${count} classes`;
  listClasses();
}

/** What is shown, if it is of the chosen image and network. */
function currentAnswer() {
  const { picture, network } = state;
  return shown?.state.network === network && shown.state.picture === picture ? shown.answer : undefined;
}

/** The layers as segments; those of the same network stay, with the focus. */
function listLayers() {
  const { network, layer } = state;
  const list = part("layers");
  if (list.dataset.network !== network.name) {
    list.dataset.network = network.name;
    const legend = create("legend", { textContent: "Layer", className: "own-photo-hidden" });
    list.replaceChildren(legend, ...network.layers.map(({ shape }, number) => layerEntry(number, shape)));
  }
  for (const input of list.querySelectorAll("input")) input.checked = Number(input.value) === layer;
}

/** Lists the most probable classes and the chosen one, or those that match the search. */
function listClasses() {
  const list = part("classes");
  const { picture, network, target } = state;
  const { classes } = network;
  const answer = currentAnswer();
  const chosen = target ?? answer?.target.index;
  const typed = part("search").value.trim();
  const probable = answer ? answer.top.map(({ index }) => index) : [];
  if (chosen !== undefined && !probable.includes(chosen)) probable.push(chosen);
  const found = typed ? search(classes, typed) : probable;
  const indices = found.slice(0, MATCHES);
  const key = `${network.name} ${answer ? picture.key : ""} ${indices}`;
  if (list.dataset.key !== key) {
    list.dataset.key = key; // an unchanged list keeps the focus
    const all = answer ? topClasses(answer.logits, classes, classes.length, network.output) : [];
    const probability = new Map(all.map((guess) => [guess.index, guess.probability]));
    const entry = (/** @type {number} */ index) => classEntry(index, classes[index], probability.get(index));
    const focused = list.contains(document.activeElement);
    list.replaceChildren(...indices.map(entry));
    if (focused) list.querySelector(`[value="${chosen}"]`)?.focus();
  }
  for (const input of list.querySelectorAll("input")) input.checked = Number(input.value) === chosen;
  const more = found.length > MATCHES ? `, the first ${MATCHES} are listed` : "";
  const enter = found.length ? "; Enter chooses the first" : "";
  part("found").textContent = typed ? `${found.length} of ${classes.length} classes${more}${enter}` : "";
}

function listPictures() {
  part("pictures").replaceChildren(
    ...contents.pictures.map((one) => {
      const image = create("img", { src: address(one.file), alt: one.title, className: "dark-light" });
      return pictureEntry(one.file, one.title, image);
    }),
  );
}

/**
 * Lists the reader's image after the examples once it has been read.
 * @param {Picture} picture
 * @param {Answer} answer
 */
function listOwn(picture, { view }) {
  if (ownPicture === picture) return;
  ownPicture = picture;
  const list = part("pictures");
  list.querySelector("[data-own]")?.remove();
  const entry = pictureEntry(picture.key, picture.name, thumbnail(view));
  entry.dataset.own = "";
  list.prepend(entry);
  list.scrollLeft = 0;
}

/**
 * @param {Example} one
 * @returns {Picture}
 */
function exampleOf({ file, title }) {
  return { key: file, name: title };
}

let filesUsed = 0;

/**
 * Files are accepted anywhere: dropped outside the controls, they would replace the page in the browser. An
 * image dragged from another page is an address, which this page does not load.
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
    if (event.dataTransfer?.files.length) useFile(event.dataTransfer.files);
    else reportFault("What you dropped is not a file; save the image on this machine and drop that file.");
  });
}

/** @param {Iterable<File> | null | undefined} files of which the first is used */
function useFile(files) {
  const [file] = files ?? [];
  if (!file) return;
  choose({ picture: { key: `own-${++filesUsed}`, name: file.name || "the image", file }, target: null });
}

function listen() {
  for (const name of ["choose", "camera"]) {
    part(name).addEventListener("change", () => {
      useFile(part(name).files);
      part(name).value = ""; // so that the same file can be chosen again
    });
  }
  document.addEventListener("paste", (event) => useFile(event.clipboardData?.files));

  part("pictures").addEventListener("change", (/** @type {Event} */ event) => {
    const key = /** @type {HTMLInputElement} */ (event.target).value;
    const one = contents.pictures.find(({ file }) => file === key);
    const picture = one ? exampleOf(one) : ownPicture;
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
  part("search").addEventListener("input", () => {
    listClasses();
    part("classes").scrollTop = 0;
  });
  part("search").addEventListener("keydown", (/** @type {KeyboardEvent} */ event) => {
    const first = part("classes").querySelector("input");
    if (!first || !["Enter", "ArrowDown"].includes(event.key)) return;
    event.preventDefault();
    first.click();
    if (event.key === "ArrowDown") first.focus();
  });
  part("layers").addEventListener("change", (/** @type {Event} */ event) => {
    choose({ layer: Number(/** @type {HTMLInputElement} */ (event.target).value) });
  });
  for (const input of methods) input.addEventListener("change", () => choose({ left: input.value }));
  part("smooth").addEventListener("change", () => choose({ smooth: part("smooth").checked }));
  part("right").addEventListener("change", () => choose({ right: part("right").value }));
  for (const input of root.querySelectorAll('input[name="own-photo-mode"]')) {
    input.addEventListener("change", () => setMode(/** @type {HTMLInputElement} */ (input).value));
  }
  part("bare").addEventListener("change", paint);
  part("tries").addEventListener("click", (/** @type {Event} */ event) => {
    const name = /** @type {HTMLElement} */ (event.target).dataset.try;
    if (name) choose({ ...initial(), ...tryOf(name) });
    if (name) root.scrollIntoView({ block: "center" });
  });
  part("curtain").addEventListener("input", () => drawCurtain(part, Number(part("curtain").value)));
  const frame = part("frame");
  for (const kind of ["pointerdown", "pointermove"]) {
    frame.addEventListener(kind, (/** @type {PointerEvent} */ event) => {
      if (!event.buttons || !state?.right || root.dataset.mode === "test") return;
      const { left, width } = frame.getBoundingClientRect();
      drawCurtain(part, Math.min(100, Math.max(0, (100 * (event.clientX - left)) / width)));
    });
  }
  for (const kind of ["scroll", "resize"]) addEventListener(kind, shrink, { passive: true });
  // Colours of the page's style sheet change with the scheme.
  new MutationObserver(paint).observe(document.documentElement, { attributeFilter: ["data-theme"] });
}

/** @param {string} mode "explain" or "test" */
function setMode(mode) {
  root.dataset.mode = mode;
  part("test").hidden = mode !== "test";
  paint();
  testing.activate(mode === "test");
}

/**
 * The settings of an experiment to try.
 * @param {string} name
 * @returns {Partial<State>}
 */
function tryOf(name) {
  const named = (/** @type {string} */ label) => contents.networks[0].classes.indexOf(label);
  if (name === "absent") return { picture: state.picture, target: named("zebra") };
  const target = named("Egyptian cat");
  return name === "methods" ? { target, layer: 1, right: "grad_cam" } : { target, layer: 0 };
}

/** On a phone, the image stays in sight, smaller, once most of it has been scrolled away. */
function shrink() {
  const frame = part("frame");
  const top = part("sentinel").getBoundingClientRect().top;
  const { clientWidth } = part("sentinel");
  const small = 0.4 * innerHeight;
  root.toggleAttribute("data-small", clientWidth > small && top + clientWidth < small + barHeight());
  frame.style.setProperty("--full", `${clientWidth}px`);
}

/** The height of the book's bar, which stays at the top. */
function barHeight() {
  return document.querySelector(".bd-header-article")?.getBoundingClientRect().bottom ?? 0;
}
