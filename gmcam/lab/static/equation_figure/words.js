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
  const [mean, local] = [1000 * values.grad_cam, 1000 * values.guidance_map];
  const where = whereIs(cell);
  if (name === "short") {
    const local = values.guidance_map;
    const amount = signed(local) === "0" ? /** @type {Part} */ (["", "nothing"]) : number(local);
    return [["where", `${where}, `], ["", "adds "], amount, ["", ` to the logit of “${target}”.`]];
  }
  /** @type {Part[]} */
  const sums = [["", " With mean gradients the channels add up to "], number(mean)];
  if (name === "aggregated_map") {
    sums.splice(0, 2, ["", ` The sum is ${unsigned(values.aggregated_map)}, whatever the class.`]);
  } else if (name === "cam") {
    const rest = " logits. The mean of the class map, plus the bias, is the logit.";
    sums.splice(0, 2, ["", " The weighted sum is "], number(values.cam), ["", rest]);
  } else {
    if (name !== "grad_cam") sums.push(["", ", with the gradients in this cell to "], number(local));
    sums.push(["", " thousandths of a logit."]);
  }
  return [["where", `${where}. `], ["verdict", verdict(cell, name)], ...sums];
}

/**
 * @param {number} value
 * @returns {Part}
 */
function number(value) {
  const text = signed(value);
  return [text === "0" ? "" : value > 0 ? "for" : "against", text];
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
  const share = (/** @type {string} */ map) => percent(values[map] / peaks[map]);
  const against = `counts against “${target}”`;
  if (name === "aggregated_map") return `The feature maps add up to ${share(name)} of their largest sum here.`;
  if (name === "cam" || name === "grad_cam") {
    const title = name === "cam" ? "CAM" : "Grad-CAM";
    if (mean > 0) return `${title} marks this cell, at ${share(name)} of its maximum.`;
    return `The weighted sum ${mean < 0 ? against : "is zero"}: ${title} is zero here.`;
  }
  const gmcam = name === "gmcam";
  const dropped = gmcam ? "GMCAM drops it" : "the guidance map drops it";
  if (mean > 0 && local > 0) {
    if (!gmcam) return `Both maps mark this cell, the guidance map at ${share(name)} of its maximum.`;
    return values.gmcam < 0.005 * peaks.gmcam
      ? "Both maps mark this cell, but so faintly that almost nothing is left in GMCAM."
      : `Both maps mark this cell: GMCAM keeps it, at ${share(name)} of its maximum.`;
  }
  if (mean > 0) {
    const reason = local < 0 ? `the sum with its gradients ${against}` : "its gradients add nothing";
    return `Grad-CAM marks this cell, but ${reason}: ${dropped}.`;
  }
  if (local > 0) return `The guidance map marks this cell, Grad-CAM does not${gmcam ? `: ${dropped}` : ""}.`;
  const maps = gmcam ? "all three maps are" : "both maps are";
  return `${mean < 0 && local < 0 ? `Both sums count against “${target}”` : "Neither sum is positive"}: ${maps} zero here.`;
}
