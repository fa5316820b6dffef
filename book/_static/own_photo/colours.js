// A saliency map over its image, in the colours of gmcam/show.py.

/** @import { Pixels } from "./resize.js" */

const { fround } = Math;

/**
 * RGBA bytes: a pixel of value s shows the map's colour with weight `opacity` · s over the greyed picture.
 * Every step is rounded to float32 and the last one cut to a byte, as numpy does.
 * @param {Pixels} shown
 * @param {Float32Array} map values in [0, 1], one a pixel
 * @param {number} opacity in [0, 1]
 * @param {Float32Array} colours (256, 3) in 0…255, the table of gmcam/show.py
 */
export function overlay({ data, width, height }, map, opacity, colours) {
  const rgba = new Uint8ClampedArray(4 * width * height).fill(255);
  map.forEach((value, pixel) => {
    const weight = fround(fround(opacity) * value);
    const rest = fround(1 - weight);
    const grey = fround(greyed(data, 3 * pixel) * rest);
    const colour = 3 * Math.trunc(255 * value);
    for (let channel = 0; channel < 3; channel++) {
      rgba[4 * pixel + channel] = Math.trunc(fround(grey + fround(colours[colour + channel] * weight)));
    }
  });
  return rgba;
}

/**
 * The grey of the pixel at `at`, less dark than the map's darkest colour.
 * @param {Uint8Array | Uint8ClampedArray} data
 * @param {number} at
 */
function greyed(data, at) {
  // Pillow's luminance: 0.299 R + 0.587 G + 0.114 B in units of 2^−16
  const luminance = (19595 * data[at] + 38470 * data[at + 1] + 7471 * data[at + 2] + 0x8000) >> 16;
  return fround(fround(luminance * fround(0.8)) + 25);
}
