// Arrays as gmcam/lab/equation_data.py packs them: int16 in base64, each kind in the shortest form.

/** @typedef {[kind: "flat" | "dense" | "sparse", scale: number, text: string]} Packed */

const SKIP = 255; // as many zeros as a gap can name

/**
 * Maps (K, cells), row by row. "flat": one value a channel; "dense": all values; "sparse": for each value
 * other than zero, the number of zeros before it in a byte, and the value.
 * @param {Packed} packed
 * @param {number} channels
 * @param {number} cells
 */
export function unpack([kind, scale, text], channels, cells) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  const maps = new Float64Array(channels * cells);
  if (kind === "flat") {
    for (let k = 0; k < channels; k++) {
      maps.fill(view.getInt16(2 * k, true) * scale, k * cells, (k + 1) * cells);
    }
  } else if (kind === "dense") {
    for (let at = 0; at < maps.length; at++) maps[at] = view.getInt16(2 * at, true) * scale;
  } else {
    let at = -1;
    for (let byte = 0; byte < bytes.length; byte += 3) {
      if (bytes[byte] === SKIP) {
        at += SKIP;
      } else {
        at += bytes[byte] + 1;
        maps[at] = view.getInt16(byte + 1, true) * scale;
      }
    }
  }
  return maps;
}
