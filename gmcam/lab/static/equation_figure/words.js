// Numbers as the figure writes them, and the sentence about a cell.

/** @typedef {[kind: "where" | "verdict" | "for" | "against" | "", text: string]} Part of a sentence */

/**
 * What a sentence about a cell needs.
 * @typedef {object} Cell
 * @property {string} target class
 * @property {number} row
 * @property {number} column
 * @property {[string, number][]} cover the share of the cell that each object covers
 * @property {Record<string, number>} values of each map, before its rectifier
 * @property {Record<string, number>} peaks the largest value of each map
 */

const NOTHING = 5e-6; // logits: what rounding leaves of a sum that is zero

/**
 * At most three digits and a true minus: "+1.37", "−14.0", "0". The sizes lose a decimal at 10 and at 100.
 * @param {number} value
 */
export function signed(value) {
  const size = Math.abs(value);
  const text = size.toFixed(size < 9.995 ? 2 : size < 99.95 ? 1 : 0);
  return Number(text) === 0 ? "0" : `${value < 0 ? "\u2212" : "+"}${text}`;
}

/**
 * The same without a plus.
 * @param {number} value
 */
export function unsigned(value) {
  return signed(value).replace("+", "");
}

/** @param {number} share */
export function percent(share) {
  return `${(100 * share).toFixed(0)}\u00a0%`;
}

/**
 * The sentences about a cell: where it is, the verdict, and the sums.
 * @param {Cell} cell
 * @param {string} name of the figure's last map, or "short"
 * @returns {Part[]}
 */
export function sentence(cell, name) {
  const { target, values } = cell;
  const where = whereIs(cell);
  if (name === "short") {
    const sum = number(values.guidance_map, "nothing");
    return [["where", `${where}, `], ["", "adds "], sum, ["", ` to the logit of “${target}”.`]];
  }
  return [["where", `${where}. `], ["verdict", verdict(cell, name)], ...sums(values, name)];
}

/**
 * @param {Record<string, number>} values
 * @param {string} name
 * @returns {Part[]}
 */
function sums({ cam, grad_cam: mean, guidance_map: local }, name) {
  if (name === "aggregated_map") return [["", " Every class gets the same sum."]];
  if (name === "cam") {
    const rest = " logits. The mean of these sums over all cells, plus the bias, is the logit.";
    return [["", " The weighted channels add up to "], number(cam), ["", rest]];
  }
  const unit = " thousandths of a logit";
  /** @type {Part[]} */
  const parts = [["", " With mean gradients the channels add up to "], number(1000 * mean), ["", unit]];
  if (name !== "grad_cam") parts.push(["", ", with the gradients here to "], number(1000 * local));
  return [...parts, ["", "."]];
}

/**
 * @param {number} value
 * @param {string} zero what is written for nothing
 * @returns {Part}
 */
function number(value, zero = "0") {
  const text = signed(value);
  return text === "0" ? ["", zero] : [value > 0 ? "for" : "against", text];
}

/** @param {Cell} cell */
export function whereIs({ row, column, cover }) {
  const covered = cover.reduce((sum, [, share]) => sum + share, 0);
  /** @type {[string, number][]} */
  const named = cover.map(([name, share]) => [`on the ${name}`, share]);
  const [place, share] = [...named, /** @type {[string, number]} */ (["in the background", 1 - covered])].sort(
    (a, b) => b[1] - a[1],
  )[0];
  return `Cell (${row}, ${column}), ${share > 0.98 ? "" : "mostly "}${place}`;
}

/**
 * @param {Cell} cell
 * @param {string} name
 */
export function verdict({ target, values, peaks }, name) {
  const [mean, local] = [values.grad_cam, values.guidance_map].map((v) => (Math.abs(v) < NOTHING ? 0 : v));
  const share = `${percent(values[name] / (peaks[name] || 1))} of its maximum`;
  const against = `against “${target}”`;
  if (name === "aggregated_map") {
    return `The feature maps add up to ${unsigned(values[name])}: A is at ${share}.`;
  }
  if (name === "cam" || name === "grad_cam") {
    const title = name === "cam" ? "CAM" : "Grad-CAM";
    if (mean > 0) return `${title} highlights this cell, at ${share}.`;
    if (mean < 0) return `The weighted sum counts ${against}: the rectifier sets ${title} to zero here.`;
    return `The weighted sum is zero here, and so is ${title}.`;
  }
  const product = name === "gmcam";
  const dropped = product ? "GMCAM drops it" : "the guidance map drops it";
  if (mean > 0 && local > 0) {
    if (!product) return `Both maps highlight this cell, the guidance map at ${share}.`;
    return values.gmcam < 0.005 * peaks.gmcam
      ? "Both maps are positive here, but so faint that almost nothing is left in GMCAM."
      : `Both maps highlight this cell: GMCAM keeps it, at ${share}.`;
  }
  if (mean > 0) {
    const reason = local < 0 ? `count ${against}` : "add nothing";
    return `Grad-CAM highlights this cell, but the gradients here ${reason}: ${dropped}.`;
  }
  if (local > 0) {
    return `The guidance map highlights this cell, Grad-CAM does not${product ? `: ${dropped}` : ""}.`;
  }
  const sums = mean < 0 && local < 0 ? `Both sums count ${against}` : "Neither sum is positive";
  return `${sums}: the rectifier sets ${product ? "all three" : "both"} maps to zero here.`;
}
