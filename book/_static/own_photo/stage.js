// An answer on the page: maps over the image, the curtain between two of them, little maps, and sentences.

import { opaque, overlay, rampOf, smaller } from "./colours.js";
import { create, put } from "./entries.js";
import { METHODS, shares } from "./saliency.js";
import { describe, describeClasses } from "./words.js";

/** @import { Answer, Description, Layer } from "./explainer.js" */
/** @import { CellMap } from "./saliency.js" */

/** @typedef {(name: string) => any} Part finds an element of the page by its name */

const SIDES = ["left", "right"];
const MINI = 4; // each side of a little map's image has a fourth of the pixels

/** The ramp "for" of the page's style sheet. */
export function pageRamp() {
  return rampOf(getComputedStyle(document.documentElement).getPropertyValue("--gm-ramp-for"));
}

/**
 * Each map of an answer as it is drawn: the smoothed one where the answer has it, else the cells.
 * @param {Answer} answer
 * @returns {CellMap[]}
 */
export function drawnMaps({ view, maps, raw }) {
  return maps.map(({ method, fine }) =>
    fine ? { data: fine, shape: [view.height, view.width] } : shares(raw[method]),
  );
}

/**
 * Paints the maps over the image: one, or two with the curtain between them; or the image alone.
 * @param {Part} part
 * @param {Answer} answer
 * @param {boolean} bare
 */
export function draw(part, answer, bare) {
  const { view } = answer;
  const maps = drawnMaps(answer);
  for (const [index, side] of SIDES.entries()) {
    /** @type {HTMLCanvasElement} */
    const canvas = part(`canvas-${side}`);
    canvas.hidden = !maps[index];
    if (maps[index]) put(canvas, bare ? opaque(view) : overlay(view, maps[index], pageRamp()), view);
  }
  part("frame").dataset.both = maps.length > 1;
}

/**
 * Paints the methods' little maps, which are switches.
 * @param {Answer} answer
 * @param {Iterable<HTMLElement>} switches
 */
export function drawSwitches({ view, raw }, switches) {
  const small = smaller(view, MINI);
  for (const one of switches) {
    const canvas = one.querySelector("canvas");
    const method = one.dataset.method ?? "";
    if (canvas) put(canvas, overlay(small, shares(raw[method]), pageRamp()), small);
  }
}

/**
 * Writes the sentences below the image.
 * @param {Part} part
 * @param {Answer} answer
 * @param {{name: string, network: Description, layer: number}} of the image's name, and what is explained
 */
export function write(part, answer, { name, network, layer }) {
  const drawn = drawnMaps(answer);
  const logit = answer.logits[answer.target.index];
  const sentences = answer.maps.map(({ method, empty }, index) =>
    describe(drawn[index].data, drawn[index].shape, {
      title: METHODS[method].title,
      guess: answer.target,
      logit,
      cells: cellsOf(network.layers[layer]),
      empty,
    }),
  );
  const maps = sentences.length > 1 ? [`Left: ${sentences[0]}`, `Right: ${sentences[1]}`] : sentences;
  const lines = [...maps, describeClasses(answer.top)];
  part("words").replaceChildren(...lines.map((text) => create("p", { textContent: text })));
  for (const [index, side] of SIDES.entries()) {
    part(`canvas-${side}`).ariaLabel = `${name}: ${sentences[index] ?? ""}`;
  }
}

/**
 * The size of a layer's map, in words.
 * @param {Layer} layer
 */
export function cellsOf({ shape }) {
  return `${shape[1]} × ${shape[2]} cells`;
}

/**
 * @param {Part} part
 * @param {number} percent of the image that is left of the curtain
 */
export function drawCurtain(part, percent) {
  part("curtain").value = percent;
  part("frame").style.setProperty("--curtain", `${percent}%`);
}
