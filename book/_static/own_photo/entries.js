// Entries of lists: a class to choose, an image to choose.

import { opaque } from "./colours.js";
import { percent } from "./words.js";

/** @import { Pixels } from "./resize.js" */

/**
 * @param {number} index
 * @param {string} name
 * @param {number | undefined} probability
 */
export function classEntry(index, name, probability) {
  const input = create("input", { type: "radio", name: "own-photo-class", value: String(index) });
  const share = create("span", { className: "own-photo-share" });
  if (probability !== undefined) share.textContent = percent(probability);
  const label = create("label", { className: "own-photo-class" });
  label.style.setProperty("--share", `${100 * (probability ?? 0)}%`);
  label.append(input, create("span", { textContent: name }), share);
  return label;
}

/**
 * @param {string} key
 * @param {string} title
 * @param {HTMLElement} image
 */
export function pictureEntry(key, title, image) {
  const label = create("label", { className: "own-photo-picture", title });
  const input = create("input", { type: "radio", name: "own-photo-picture", value: key, ariaLabel: title });
  label.append(input, image);
  return label;
}

/**
 * A layer as a segment: the size of its map.
 * @param {number} number
 * @param {[number, number, number]} shape
 */
export function layerEntry(number, [, rows, columns]) {
  const input = create("input", { type: "radio", name: "own-photo-layer", value: String(number) });
  input.ariaLabel = `${rows} × ${columns} cells`;
  const label = create("label", {});
  label.append(input, create("span", { textContent: `${rows} × ${columns}` }));
  return label;
}

/**
 * A small version of the part of the reader's image that the network sees.
 * @param {Pixels} view
 */
export function thumbnail(view) {
  return put(create("canvas", {}), opaque(view), view);
}

/**
 * Gives a canvas its pixels.
 * @template {HTMLCanvasElement} Canvas
 * @param {Canvas} canvas
 * @param {Uint8ClampedArray<ArrayBuffer>} rgba
 * @param {{width: number, height: number}} size
 */
export function put(canvas, rgba, { width, height }) {
  if (canvas.width !== width) canvas.width = width;
  if (canvas.height !== height) canvas.height = height;
  canvas.getContext("2d")?.putImageData(new ImageData(rgba, width, height), 0, 0);
  return canvas;
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {Partial<HTMLElementTagNameMap[Tag]>} properties
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function create(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
