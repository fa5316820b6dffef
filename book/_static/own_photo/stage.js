// An answer on the page: maps over the image, the curtain between two of them, and sentences.

import { overlay } from "./colours.js";
import { create } from "./entries.js";
import { METHODS } from "./saliency.js";
import { describe, describeClasses } from "./words.js";

/** @import { Answer, Description, Layer } from "./explainer.js" */

/** @typedef {(name: string) => any} Part finds an element of the page by its name */

const SIDES = ["left", "right"];

/**
 * Paints the maps over the image: one, or two with the curtain between them.
 * @param {Part} part
 * @param {Answer} answer
 * @param {number} opacity in [0, 1]
 * @param {Float32Array} colours (256, 3) in 0…255
 */
export function draw(part, { view, maps }, opacity, colours) {
  for (const [index, side] of SIDES.entries()) {
    /** @type {HTMLCanvasElement} */
    const canvas = part(`canvas-${side}`);
    canvas.hidden = !maps[index];
    if (!maps[index]) continue;
    if (canvas.width !== view.width) canvas.width = view.width;
    if (canvas.height !== view.height) canvas.height = view.height;
    const rgba = overlay(view, maps[index].fine, opacity, colours);
    const context = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    context.putImageData(new ImageData(rgba, view.width, view.height), 0, 0);
  }
  part("frame").dataset.both = maps.length > 1;
}

/**
 * Writes the sentences below the image.
 * @param {Part} part
 * @param {Answer} answer
 * @param {{name: string, network: Description, layer: number}} of the image's name, and what is explained
 */
export function write(part, answer, { name, network, layer }) {
  const sentences = answer.maps.map(({ method, map, empty }) =>
    describe(map, network.size, {
      title: METHODS[method].title,
      guess: answer.target,
      logit: answer.logits[answer.target.index],
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
