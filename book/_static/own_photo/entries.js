// Elements that stand in lists of the page: a class to choose, a picture to choose.

/** @import { Pixels } from "./resize.js" */

/**
 * @param {number} index
 * @param {string} name
 * @param {number | undefined} probability
 */
export function classEntry(index, name, probability) {
  const input = made("input", { type: "radio", name: "own-photo-class", value: String(index) });
  const share = made("span", { className: "own-photo-share" });
  if (probability !== undefined) {
    share.textContent = probability < 0.0005 ? "< 0.1%" : `${(100 * probability).toFixed(1)}%`;
  }
  const label = made("label", { className: "own-photo-class" });
  label.style.setProperty("--share", `${100 * (probability ?? 0)}%`);
  label.append(input, made("span", { textContent: name }), share);
  return label;
}

/**
 * @param {string} key
 * @param {string} title
 * @param {HTMLElement} image
 */
export function pictureEntry(key, title, image) {
  const label = made("label", { className: "own-photo-picture", title });
  const input = made("input", { type: "radio", name: "own-photo-picture", value: key, ariaLabel: title });
  label.append(input, image);
  return label;
}

/**
 * A small picture of what the network sees of the reader's own.
 * @param {Pixels} view
 */
export function thumbnail({ data, width, height }) {
  const canvas = made("canvas", { width, height });
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
export function made(tag, properties) {
  return Object.assign(document.createElement(tag), properties);
}
