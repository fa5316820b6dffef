// From an image's pixels to a network's input, byte for byte as Pillow and gmcam/preprocessing.py do it: one
// grey level can change a saliency map by more than the choice of the method does.

/**
 * An image: RGB, three bytes a pixel, row after row.
 * @typedef {{data: Uint8Array | Uint8ClampedArray, width: number, height: number}} Pixels
 */

/**
 * The fields of Python's Preprocessing: shorter side to `resize`, no smaller than `crop`, then the central
 * `crop` × `crop`, to [0, 1], (x − mean)/std. With `squash` the whole image is resized to `crop` × `crop`.
 * @typedef {{resize: number, crop: number, mean: number[], std: number[], squash?: boolean}} Preprocessing
 */

const MAX_ASPECT = 50;
const PRECISION = 22; // bits of a weight behind the point: a sum of 255s still fits 31 bits

/**
 * The part of an image that the network sees, and its input (3, crop, crop), normalised.
 * @param {Pixels} pixels
 * @param {Preprocessing} preprocessing
 * @returns {{shown: Pixels, input: Float32Array}}
 * @throws {RangeError} for an image too slender to be resized
 */
export function prepare(pixels, preprocessing) {
  const { width, height } = pixels;
  const shorter = Math.min(width, height);
  if (Math.max(width, height) > MAX_ASPECT * shorter) {
    throw new RangeError(
      `an image of ${width} × ${height} pixels is too slender; ` +
        `its longer side is at most ${MAX_ASPECT} times the shorter one`,
    );
  }
  const { resize: to, crop: side, squash } = preprocessing;
  const scaled = (/** @type {number} */ length) => (squash ? side : Math.floor((to * length) / shorter));
  const shown = centre(resize(pixels, scaled(width), scaled(height)), side);
  return { shown, input: inputOf(shown.data, preprocessing) };
}

/**
 * A network's input (3, crop, crop) from the pixels that it sees, (crop, crop, 3).
 * @param {Uint8Array | Uint8ClampedArray} data
 * @param {Preprocessing} preprocessing
 */
export function inputOf(data, { mean, std }) {
  const cells = data.length / 3;
  const input = new Float32Array(3 * cells);
  for (let channel = 0; channel < 3; channel++) {
    const values = normalised(mean[channel], std[channel]);
    for (let cell = 0; cell < cells; cell++) {
      input[channel * cells + cell] = values[data[3 * cell + channel]];
    }
  }
  return input;
}

/**
 * What each of the 256 bytes becomes: (byte/255 − mean)/std, in float32 at every step, as in torch.
 * @param {number} mean
 * @param {number} std
 */
function normalised(mean, std) {
  const { fround } = Math;
  const values = new Float32Array(256);
  return values.map((_, byte) => fround(fround(byte / 255) - fround(mean)) / fround(std));
}

/**
 * The central `side` × `side`.
 * @param {Pixels} pixels
 * @param {number} side
 * @returns {Pixels}
 */
function centre({ data, width, height }, side) {
  const left = halfToEven((width - side) / 2);
  const upper = halfToEven((height - side) / 2);
  const cut = new Uint8Array(3 * side * side);
  for (let row = 0; row < side; row++) {
    const start = 3 * ((upper + row) * width + left);
    cut.set(data.subarray(start, start + 3 * side), 3 * row * side);
  }
  return { data: cut, width: side, height: side };
}

/**
 * Rounds a half to the even neighbour, as Python does; Math.round would take the larger one.
 * @param {number} value a multiple of ½
 */
function halfToEven(value) {
  const below = Math.floor(value);
  return value > below ? below + (below % 2) : below;
}

/**
 * Pillow's bilinear resize with antialiasing: each pixel is a triangle-weighted mean of those it covers. One
 * axis after the other; between them bytes are rounded, so that their order shows. From Pillow 13 on, it is
 * first the height where that shrinks by over twice as many pixels as the width.
 * @param {Pixels} pixels
 * @param {number} width
 * @param {number} height
 * @returns {Pixels}
 */
export function resize(pixels, width, height) {
  const { data, width: w, height: h } = pixels;
  if (h > height && h - height > 2 * (w - width)) {
    const lower = along(data, [1, h, 3 * w], height);
    return { data: along(lower, [height, w, 3], width), width, height };
  }
  const across = along(data, [h, w, 3], width);
  return { data: along(across, [1, h, 3 * width], height), width, height };
}

/**
 * Resizes the middle axis of bytes (before, length, after).
 * @param {Uint8Array | Uint8ClampedArray} data
 * @param {[number, number, number]} shape
 * @param {number} newLength
 */
function along(data, [before, length, after], newLength) {
  if (newLength === length) return data;
  const all = triangles(length, newLength);
  const out = new Uint8Array(before * newLength * after);
  let to = 0;
  for (let line = 0; line < before; line++) {
    for (const { start, weights } of all) {
      const from = (line * length + start) * after;
      for (let item = 0; item < after; item++) {
        let total = 1 << (PRECISION - 1); // so that cutting bits off rounds
        for (let tap = 0; tap < weights.length; tap++) {
          total += weights[tap] * data[from + tap * after + item];
        }
        out[to++] = total >> PRECISION;
      }
    }
  }
  return out;
}

/**
 * For every new pixel, where those that it covers start and their weights in units of 2^−PRECISION.
 * @param {number} length
 * @param {number} newLength
 */
function triangles(length, newLength) {
  const scale = length / newLength;
  const reach = Math.max(scale, 1); // enlarging, a triangle still spans two pixels
  return Array.from({ length: newLength }, (_, pixel) => {
    const middle = (pixel + 0.5) * scale;
    const start = Math.max(0, Math.trunc(middle - reach + 0.5));
    const end = Math.min(length, Math.trunc(middle + reach + 0.5));
    const heights = new Float64Array(end - start).map((_, tap) =>
      Math.max(0, 1 - Math.abs((start + tap - middle + 0.5) / reach)),
    );
    const total = heights.reduce((sum, height) => sum + height, 0);
    return { start, weights: Int32Array.from(heights, (one) => 0.5 + (one / total) * (1 << PRECISION)) };
  });
}

/**
 * RGB of RGBA, transparency over white, as gmcam/reading.py does.
 * @param {Uint8Array | Uint8ClampedArray} rgba
 * @param {number} width
 * @param {number} height
 * @returns {Pixels}
 */
export function overWhite(rgba, width, height) {
  const data = new Uint8Array(3 * width * height);
  for (let from = 0, to = 0; to < data.length; from++) {
    const alpha = rgba[from + 3];
    for (const end = from + 3; from < end; from++) {
      data[to++] = Math.round((rgba[from] * alpha + 255 * (255 - alpha)) / 255);
    }
  }
  return { data, width, height };
}
