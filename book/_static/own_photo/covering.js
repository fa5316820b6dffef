// Covering part of an image: what is put in its place, and what the signed ledger Σ_k C_k ⊙ M_k forecasts.
// Masks have a byte for every pixel of the network's input, 1 where it is covered.

/** @import { Pixels } from "./resize.js" */
/** @import { CellMap } from "./saliency.js" */

/**
 * The whole image as a fill has it. Halves are rounded up.
 *
 * blurred: three times the mean of a square of 2r + 1 pixels, r an eighth of the shorter side; beyond the
 * border the nearest pixel is repeated. mean: the mean colour. copied: the pixel half an image further right
 * and down, counted from the other border where it would be outside.
 * @type {Record<string, (pixels: Pixels) => Uint8Array>}
 */
export const FILLS = { blurred, mean, copied };

/** @param {Pixels} pixels */
function mean({ data, width, height }) {
  const sums = [0, 0, 0];
  for (let at = 0; at < data.length; at++) sums[at % 3] += data[at];
  const means = sums.map((sum) => rounded(sum, width * height));
  const filled = new Uint8Array(data.length);
  for (let at = 0; at < filled.length; at++) filled[at] = means[at % 3];
  return filled;
}

/** @param {Pixels} pixels */
function copied({ data, width, height }) {
  const moved = new Uint8Array(data.length);
  for (let row = 0, to = 0; row < height; row++) {
    const start = ((row + (height >> 1)) % height) * width;
    for (let column = 0; column < width; column++, to += 3) {
      const from = 3 * (start + ((column + (width >> 1)) % width));
      for (let channel = 0; channel < 3; channel++) moved[to + channel] = data[from + channel];
    }
  }
  return moved;
}

/**
 * Sums stay whole numbers, exact in float64, until the last step divides.
 * @param {Pixels} pixels
 */
function blurred({ data, width, height }) {
  const reach = Math.min(width, height) >> 3;
  let sums = Float64Array.from(data);
  for (let pass = 0; pass < 3; pass++) {
    sums = boxSums(boxSums(sums, 1, height, 3 * width, reach), height, width, 3, reach);
  }
  const weight = (2 * reach + 1) ** 6;
  const means = new Uint8Array(data.length);
  for (let at = 0; at < means.length; at++) means[at] = rounded(sums[at], weight);
  return means;
}

/**
 * Sums over 2 · reach + 1 neighbours along the middle axis of (before, length, after).
 * @param {Float64Array} values
 * @param {number} before
 * @param {number} length
 * @param {number} after
 * @param {number} reach
 */
function boxSums(values, before, length, after, reach) {
  const sums = new Float64Array(values.length);
  const places = Int32Array.from({ length: length + 2 * reach + 1 }, (_, at) =>
    after * Math.min(Math.max(at - reach, 0), length - 1),
  );
  for (let block = 0; block < before; block++) {
    for (let item = 0; item < after; item++) {
      const start = block * length * after + item;
      let sum = 0;
      for (let at = 0; at <= 2 * reach; at++) sum += values[start + places[at]];
      for (let at = 0; at < length; at++) {
        sums[start + at * after] = sum;
        sum += values[start + places[at + 2 * reach + 1]] - values[start + places[at]];
      }
    }
  }
  return sums;
}

/**
 * @param {number} sum
 * @param {number} count
 */
function rounded(sum, count) {
  return Math.floor((2 * sum + count) / (2 * count));
}

/**
 * The image with the masked pixels of a substitute.
 * @param {Uint8Array | Uint8ClampedArray} data
 * @param {Uint8Array} mask
 * @param {Uint8Array} substitute
 */
export function covered(data, mask, substitute) {
  const pixels = Uint8Array.from(data);
  for (let pixel = 0; pixel < mask.length; pixel++) {
    if (mask[pixel]) pixels.set(substitute.subarray(3 * pixel, 3 * pixel + 3), 3 * pixel);
  }
  return pixels;
}

/**
 * Marks a square of `size` pixels, moved inside the image where it would reach beyond.
 * @param {Uint8Array} mask
 * @param {number} side of the image
 * @param {{x: number, y: number}} centre in pixels
 * @param {number} size
 */
export function stamp(mask, side, { x, y }, size) {
  const start = (/** @type {number} */ at) =>
    Math.min(Math.max(Math.round(at - size / 2), 0), Math.max(side - size, 0));
  const [left, top] = [start(x), start(y)];
  for (let row = top; row < Math.min(top + size, side); row++) {
    mask.fill(1, row * side + left, row * side + Math.min(left + size, side));
  }
}

/**
 * The pixels of cells in the order given, row by row, and no more than `most` of them.
 * @param {number[]} cells
 * @param {[number, number]} shape of the map
 * @param {number} side of the image
 * @param {number} [most]
 */
export function maskOf(cells, shape, side, most = Infinity) {
  const mask = new Uint8Array(side * side);
  /** @type {Map<number, number[]>} */
  const pixels = new Map(cells.map((cell) => [cell, []]));
  cellOf(shape, side).forEach((cell, pixel) => pixels.get(cell)?.push(pixel));
  let left = most;
  for (const own of pixels.values()) {
    for (const pixel of own.slice(0, left)) mask[pixel] = 1;
    left = Math.max(left - own.length, 0);
  }
  return mask;
}

/** @type {Map<string, Uint32Array>} */
const owners = new Map();

/**
 * For every pixel, the cell that its middle is in.
 * @param {[number, number]} shape
 * @param {number} side
 */
function cellOf([h, w], side) {
  const key = `${h} ${w} ${side}`;
  const cells =
    owners.get(key) ??
    Uint32Array.from({ length: side * side }, (_, pixel) => {
      const row = Math.floor(((Math.floor(pixel / side) + 0.5) * h) / side);
      return row * w + Math.floor((((pixel % side) + 0.5) * w) / side);
    });
  owners.set(key, cells);
  return cells;
}

/**
 * The share of each cell that is covered.
 * @param {Uint8Array} mask
 * @param {[number, number]} shape
 */
export function coverage(mask, [h, w]) {
  const side = Math.sqrt(mask.length);
  const inside = new Float64Array(h * w);
  const all = new Float64Array(h * w);
  cellOf([h, w], side).forEach((cell, pixel) => {
    inside[cell] += mask[pixel];
    all[cell]++;
  });
  return inside.map((count, cell) => count / all[cell]);
}

/**
 * What lies under a mask: Σ over cells of the share that is covered × the ledger, in logits.
 * @param {CellMap} ledger Σ_k C_k ⊙ M_k, signed
 * @param {Uint8Array} mask
 */
export function under({ data, shape }, mask) {
  return coverage(mask, shape).reduce((sum, share, cell) => sum + share * data[cell], 0);
}

/**
 * The cells of the brightest tenth, at least one; of equals the first.
 * @param {CellMap} map
 */
export function brightestTenth({ data }) {
  const order = [...data.keys()].sort((one, other) => data[other] - data[one] || one - other);
  return order.slice(0, Math.max(1, Math.round(data.length / 10)));
}

/**
 * As many pixels as `mask` covers, in cells that it leaves free, drawn at random; all of them where they are
 * fewer.
 * @param {Uint8Array} mask
 * @param {[number, number]} shape
 * @param {number} [seed]
 */
export function elsewhere(mask, shape, seed = 1) {
  const free = [...coverage(mask, shape).entries()].filter(([, share]) => !share).map(([cell]) => cell);
  const area = mask.reduce((sum, one) => sum + one, 0);
  return maskOf(shuffled(free, seed), shape, Math.sqrt(mask.length), area);
}

/**
 * In an order that depends on the seed alone (Fisher and Yates, with the numbers of mulberry32).
 * @param {number[]} items
 * @param {number} seed
 */
export function shuffled(items, seed) {
  const order = [...items];
  let state = seed;
  const random = () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  for (let last = order.length - 1; last > 0; last--) {
    const other = Math.floor(random() * (last + 1));
    [order[last], order[other]] = [order[other], order[last]];
  }
  return order;
}

/**
 * A class's probability after its logit alone has changed.
 * @param {ArrayLike<number>} logits
 * @param {number} index
 * @param {string} output "softmax" or "sigmoid"
 * @param {number} [change]
 */
export function probability(logits, index, output, change = 0) {
  const own = logits[index] + change;
  if (output === "sigmoid") return 1 / (1 + Math.exp(-own));
  const others = Array.from(logits).filter((_, at) => at !== index);
  return 1 / others.reduce((sum, logit) => sum + Math.exp(logit - own), 1);
}
