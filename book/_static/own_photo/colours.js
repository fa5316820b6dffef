// A map over its image: the photograph pale, times the map's colour on the ramp "for" of gmcam/palette.css.

/** @import { Pixels } from "./resize.js" */
/** @import { CellMap } from "./saliency.js" */

/** @typedef {number[][]} Ramp stops from 0 to 1, evenly spaced, each three values in 0…255 */

const { fround } = Math;

/**
 * "#ffdeb8 #8c2800" as stops.
 * @param {string} text
 * @returns {Ramp}
 */
export function rampOf(text) {
  return [...text.matchAll(/#(..)(..)(..)/g)].map(([, ...parts]) => parts.map((part) => parseInt(part, 16)));
}

/** Each grey level made pale, in [0, 1]: contrast 62 %, brightness 142 %; every step is rounded as in numpy. */
const PALE = new Float32Array(256).map((_, grey) => {
  const contrast = fround(0.5 + fround(fround(0.62) * fround(fround(grey / 255) - 0.5)));
  return Math.min(Math.max(fround(contrast * fround(1.42)), 0), 1);
});

/**
 * RGBA bytes of the pale photograph times the map's colours. The map's cells, of any number, are enlarged
 * without smoothing; white, where the map is 0, leaves the photograph as it is.
 * @param {Pixels} shown
 * @param {CellMap} map values in [0, 1]
 * @param {Ramp} ramp
 */
export function overlay({ data, width, height }, { data: shares, shape: [h, w] }, ramp) {
  const tints = tint(shares, ramp);
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  const columns = Uint32Array.from({ length: width }, (_, x) => Math.floor(((x + 0.5) * w) / width));
  for (let y = 0, from = 0, to = 0; y < height; y++) {
    const row = Math.floor(((y + 0.5) * h) / height) * w;
    for (let x = 0; x < width; x++, from += 3, to += 4) {
      // Pillow's luminance: 0.299 R + 0.587 G + 0.114 B in units of 2^−16
      const grey = (19595 * data[from] + 38470 * data[from + 1] + 7471 * data[from + 2] + 0x8000) >> 16;
      const at = 3 * (row + columns[x]);
      rgba[to] = Math.trunc(fround(PALE[grey] * tints[at]));
      rgba[to + 1] = Math.trunc(fround(PALE[grey] * tints[at + 1]));
      rgba[to + 2] = Math.trunc(fround(PALE[grey] * tints[at + 2]));
    }
  }
  return rgba;
}

/**
 * @param {Float32Array} shares in [0, 1]
 * @param {Ramp} ramp
 */
function tint(shares, ramp) {
  const tints = new Uint8Array(3 * shares.length);
  shares.forEach((share, cell) => {
    const at = Math.min(share, 1) * (ramp.length - 1);
    const low = Math.min(Math.floor(at), ramp.length - 2);
    for (let channel = 0; channel < 3; channel++) {
      const [start, end] = [ramp[low][channel], ramp[low + 1][channel]];
      tints[3 * cell + channel] = start + (end - start) * (at - low) + 0.5;
    }
  });
  return tints;
}

/**
 * RGBA bytes of an image.
 * @param {Pixels} shown
 */
export function opaque({ data, width, height }) {
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  for (let from = 0, to = 0; from < data.length; to++) {
    for (let channel = 0; channel < 3; channel++) rgba[to++] = data[from++];
  }
  return rgba;
}

/**
 * Every `step`-th pixel of an image in both directions.
 * @param {Pixels} shown
 * @param {number} step
 * @returns {Pixels}
 */
export function smaller({ data, width, height }, step) {
  const [w, h] = [Math.ceil(width / step), Math.ceil(height / step)];
  const few = new Uint8Array(3 * w * h);
  for (let y = 0, to = 0; y < h; y++) {
    for (let x = 0; x < w; x++) {
      for (let channel = 0; channel < 3; channel++) few[to++] = data[3 * step * (y * width + x) + channel];
    }
  }
  return { data: few, width: w, height: h };
}
