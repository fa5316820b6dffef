// The equations for one class: maps from the feature maps M and the gradients C, (K, cells) each, row by row.
// Maps keep their sign, as in gmcam/equations.py before the outer rectifier.

/** @typedef {Record<string, Float64Array>} Maps by the name of the method, (cells) each */
/** @typedef {{k: number} & Record<string, number>} Row the values of a channel in one cell, by column */

/**
 * Equation 3: λ_k, the mean of each channel's gradients.
 * @param {Float64Array} C
 * @param {number} cells
 */
export function meanGradients(C, cells) {
  const means = new Float64Array(C.length / cells);
  for (let at = 0; at < C.length; at++) means[Math.floor(at / cells)] += C[at] / cells;
  return means;
}

/**
 * Equations 1 and 4 to 6, and CAM, whose weights are λ times the number of cells.
 * @param {Float64Array} M
 * @param {Float64Array} C
 * @param {Float64Array} weights λ, (K)
 * @param {number} cells
 * @returns {Maps}
 */
export function mapsOf(M, C, weights, cells) {
  const sum = (/** @type {(at: number, k: number) => number} */ term) => {
    const map = new Float64Array(cells);
    for (let at = 0; at < M.length; at++) map[at % cells] += term(at, Math.floor(at / cells));
    return map;
  };
  const grad = sum((at, k) => weights[k] * M[at]);
  const guidance = sum((at) => C[at] * M[at]);
  return {
    aggregated_map: sum((at) => M[at]),
    cam: grad.map((value) => value * cells),
    grad_cam: grad,
    guidance_map: guidance,
    gmcam: guidance.map((value, cell) => Math.max(value, 0) * grad[cell]),
  };
}

/** @param {ArrayLike<number>} map */
export function largest(map) {
  return Array.from(map).reduce((most, value) => Math.max(most, value), 0);
}

/** @param {Float64Array} map */
export function reach(map) {
  return largest(map.map(Math.abs));
}

/**
 * The share of a rectified map in the cells of an object; 0 for an empty map.
 * @param {Float64Array} map
 * @param {number[]} cover the share of each cell that the object covers
 */
export function shareOn(map, cover) {
  let inside = 0;
  let total = 0;
  map.forEach((value, cell) => {
    inside += Math.max(value, 0) * cover[cell];
    total += Math.max(value, 0);
  });
  return total ? inside / total : 0;
}

/**
 * Cells worth a look: the largest and the smallest value, the largest one in bare background, and where
 * Grad-CAM is largest among the cells that the guidance map drops. Places that do not exist are left out.
 * @param {Maps} maps
 * @param {string} name of the map in question
 * @param {number[]} bare cells that see no object
 * @returns {Record<string, number>}
 */
export function places(maps, name, bare) {
  const all = [...maps[name].keys()];
  const best = (/** @type {number[]} */ cells, /** @type {Float64Array} */ map, sign = 1) =>
    cells.reduce((top, cell) => (sign * map[cell] > sign * map[top] ? cell : top), cells[0]);
  const dropped = all.filter((cell) => maps.grad_cam[cell] > 0 && maps.guidance_map[cell] <= 0);
  const found = {
    apart: best(dropped, maps.grad_cam),
    most: best(all, maps[name]),
    least: best(all, maps[name], -1),
    bare: best(bare, maps[name]),
  };
  return Object.fromEntries(Object.entries(found).filter(([, cell]) => cell !== undefined));
}

/**
 * Every channel in one cell: activation M, gradient C, mean gradient, and the products, in the units of the
 * table (gradients and their products in thousandths of a logit, CAM's weights and products in logits).
 * @param {Float64Array} M
 * @param {Float64Array} C
 * @param {Float64Array} weights
 * @param {number} cells
 * @param {number} cell
 * @returns {Row[]}
 */
export function channelsIn(M, C, weights, cells, cell) {
  return Array.from(weights, (weight, k) => {
    const m = M[k * cells + cell];
    const c = C[k * cells + cell];
    return {
      k,
      m,
      c: 1000 * c,
      lambda: 1000 * weight,
      Ml: 1000 * weight * m,
      MC: 1000 * c * m,
      w: weight * cells,
      Mw: weight * cells * m,
    };
  });
}

/**
 * The channels with the largest products, and the sums of the others and of all.
 * @param {Row[]} rows
 * @param {string[]} columns that are added up
 * @param {number} count
 */
export function strongest(rows, columns, count) {
  const sizes = columns.map((name) => rows.reduce((sum, row) => sum + Math.abs(row[name]), 0) || 1);
  const weight = (/** @type {Row} */ row) =>
    columns.reduce((sum, name, at) => sum + Math.abs(row[name]) / sizes[at], 0);
  const sorted = [...rows].sort((a, b) => weight(b) - weight(a));
  const added = (/** @type {Row[]} */ some) =>
    Object.fromEntries(columns.map((name) => [name, some.reduce((sum, row) => sum + row[name], 0)]));
  const others = sorted.slice(count);
  return {
    shown: sorted.slice(0, count),
    others: added(others),
    active: others.filter(({ m }) => m !== 0).length,
    total: added(rows),
  };
}
