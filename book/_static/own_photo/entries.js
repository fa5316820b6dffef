// Entries of lists: a class to choose, an image to choose.

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
 * A small version of the part of the reader's image that the network sees.
 * @param {Pixels} view
 */
export function thumbnail({ data, width, height }) {
  const canvas = create("canvas", { width, height });
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let from = 0, to = 0; from < data.length; to++) {
    for (let channel = 0; channel < 3; channel++) rgba[to++] = data[from++];
  }
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
