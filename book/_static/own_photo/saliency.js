// Saliency maps from feature maps M and gradient maps C, as gmcam/equations.py computes them, and the four
// steps from a raw map to one at the image's size, as in gmcam/postprocess.py. Sums are in float64.

/**
 * Feature or gradient maps of one layer: (K, h, w).
 * @typedef {{data: Float32Array, shape: [number, number, number]}} Stack
 */

/**
 * A saliency map: (h, w).
 * @typedef {{data: Float32Array, shape: [number, number]}} CellMap
 */

const SIGMA = 0.5;

/**
 * Equation 3: λ_k = (1/Z) Σ_ij C_k(i, j) with Z = h·w; (K, h, w) → (K).
 * @param {Stack} C
 */
export function channelWeights({ data, shape: [K, h, w] }) {
  const cells = h * w;
  return new Float64Array(K).map((_, k) => {
    let total = 0;
    for (let at = k * cells; at < (k + 1) * cells; at++) total += data[at];
    return total / cells;
  });
}

/**
 * CAM: Σ_k w_k M_k, not rectified.
 * @param {Stack} M
 * @param {ArrayLike<number>} weights K of them
 */
export function classMap({ data, shape: [K, h, w] }, weights) {
  const total = new Float64Array(h * w);
  for (let k = 0, at = 0; k < K; k++) {
    for (let cell = 0; cell < h * w; cell++, at++) total[cell] += weights[k] * data[at];
  }
  return asMap(total, h, w);
}

/**
 * Equation 4, Grad-CAM: ReLU(Σ_k λ_k M_k).
 * @param {Stack} M
 * @param {Stack} C
 */
export function gradCam(M, C) {
  return relu(classMap(M, channelWeights(C)));
}

/**
 * HiResCAM: Σ_k C_k ⊙ M_k, not rectified.
 * @param {Stack} M
 * @param {Stack} C
 */
export function hiresCam({ data, shape: [K, h, w] }, C) {
  const total = new Float64Array(h * w);
  for (let k = 0, at = 0; k < K; k++) {
    for (let cell = 0; cell < h * w; cell++, at++) total[cell] += C.data[at] * data[at];
  }
  return asMap(total, h, w);
}

/**
 * Equation 5, the global guidance map: GM = ReLU(Σ_k C_k ⊙ M_k).
 * @param {Stack} M
 * @param {Stack} C
 */
export function guidanceMap(M, C) {
  return relu(hiresCam(M, C));
}

/**
 * Equation 6, guided aggregation: ReLU(Σ_k λ_k (GM ⊙ M_k)). GM ≥ 0 is the same for every channel, so it
 * stands before the sum: GM ⊙ Grad-CAM.
 * @param {Stack} M
 * @param {Stack} C
 * @returns {CellMap}
 */
export function gmcam(M, C) {
  const guide = guidanceMap(M, C);
  const base = gradCam(M, C);
  return { data: base.data.map((value, cell) => guide.data[cell] * value), shape: base.shape };
}

/**
 * The methods in the order of the page. CAM's weights are the class's row of the last linear layer; after
 * global average pooling, λ is that row divided by Z, a factor that normalising removes.
 * @type {Record<string, {title: string, compute: (M: Stack, C: Stack) => CellMap}>}
 */
export const METHODS = {
  cam: { title: "CAM", compute: (M, C) => classMap(M, channelWeights(C)) },
  grad_cam: { title: "Grad-CAM", compute: gradCam },
  hires_cam: { title: "HiResCAM", compute: hiresCam },
  guidance_map: { title: "Guidance map", compute: guidanceMap },
  gmcam: { title: "GMCAM", compute: gmcam },
};

/**
 * @param {Float64Array} values
 * @param {number} h
 * @param {number} w
 * @returns {CellMap}
 */
function asMap(values, h, w) {
  return { data: new Float32Array(values), shape: [h, w] };
}

/**
 * @param {CellMap} map
 * @returns {CellMap}
 */
function relu({ data, shape }) {
  return { data: data.map((value) => Math.max(value, 0)), shape };
}

/**
 * Convolves with a Gaussian of `sigma` cells, cut at four σ; beyond the border the nearest cell is repeated.
 * @param {CellMap} map
 * @param {number} [sigma]
 * @returns {CellMap}
 */
export function smooth({ data, shape: [h, w] }, sigma = SIGMA) {
  const radius = Math.trunc(4 * sigma + 0.5);
  const heights = Array.from({ length: 2 * radius + 1 }, (_, tap) =>
    Math.exp(-0.5 * ((tap - radius) / (sigma || 1)) ** 2),
  );
  const total = heights.reduce((sum, height) => sum + height, 0);
  const bell = heights.map((height) => height / total);
  const inside = (/** @type {number} */ at, /** @type {number} */ end) => Math.min(Math.max(at, 0), end - 1);
  const smoothed = data.map((_, cell) => {
    const row = Math.floor(cell / w);
    const column = cell % w;
    let sum = 0;
    for (let down = -radius; down <= radius; down++) {
      for (let right = -radius; right <= radius; right++) {
        const value = data[inside(row + down, h) * w + inside(column + right, w)];
        sum += bell[radius + down] * bell[radius + right] * value;
      }
    }
    return sum;
  });
  return { data: smoothed, shape: [h, w] };
}

/**
 * Min–max: (S − min S)/(max S − min S). A flat map, whose range is within rounding of its size, is empty:
 * all zeros.
 * @param {CellMap} map
 * @returns {{map: CellMap, empty: boolean}}
 * @throws {RangeError} for values, or a range, that float32 cannot hold
 */
export function normalise({ data, shape }) {
  const low = data.reduce((least, value) => Math.min(least, value)); // unlike <, it hands NaN on
  const high = data.reduce((most, value) => Math.max(most, value));
  const spread = Math.fround(high - low);
  if (!Number.isFinite(spread)) {
    throw new RangeError("a saliency map and its range are finite; this one overflows float32 or holds NaN");
  }
  const empty = spread <= 8 * 2 ** -23 * Math.max(high, -low);
  return { map: { data: data.map((value) => (empty ? 0 : (value - low) / spread)), shape }, empty };
}

/**
 * Bilinear to `size` = [H, W]; the centres of cells stay where they are.
 * @param {CellMap} map
 * @param {[number, number]} size
 * @returns {CellMap}
 */
export function upsample({ data, shape: [h, w] }, [H, W]) {
  const columns = neighbours(w, W);
  const out = new Float32Array(H * W);
  let pixel = 0;
  for (const row of neighbours(h, H)) {
    for (const column of columns) {
      const upper = mix(data[row.low * w + column.low], data[row.low * w + column.high], column.share);
      const lower = mix(data[row.high * w + column.low], data[row.high * w + column.high], column.share);
      out[pixel++] = mix(upper, lower, row.share);
    }
  }
  return { data: out, shape: [H, W] };
}

/**
 * For every pixel of an axis, the cells on its two sides and the share of the higher one.
 * @param {number} cells
 * @param {number} pixels
 */
function neighbours(cells, pixels) {
  return Array.from({ length: pixels }, (_, pixel) => {
    const at = Math.max(0, ((pixel + 0.5) * cells) / pixels - 0.5);
    const low = Math.floor(at);
    return { low, high: Math.min(low + 1, cells - 1), share: at - low };
  });
}

/**
 * @param {number} a
 * @param {number} b
 * @param {number} share of `b`
 */
function mix(a, b, share) {
  return (1 - share) * a + share * b;
}

/**
 * Rectify, smooth, normalise, up-sample: raw (h, w) → values in [0, 1] for every pixel of `size` = [H, W].
 * @param {CellMap} raw
 * @param {[number, number]} size
 * @param {number} [sigma]
 * @returns {{map: Float32Array, empty: boolean}}
 */
export function postprocess(raw, size, sigma = SIGMA) {
  const { map, empty } = normalise(smooth(relu(raw), sigma));
  return { map: upsample(map, size).data, empty };
}

/**
 * The cells of a map as they are drawn: rectified, as shares of the maximum; all zeros without positive cells.
 * @param {CellMap} raw
 * @returns {CellMap}
 */
export function shares({ data, shape }) {
  const most = data.reduce((best, value) => Math.max(best, value), 0);
  return { data: data.map((value) => (value > 0 ? value / most : 0)), shape };
}
