// Small bars with their values next to them: forecasts pale, measurements dark.

import { create } from "./entries.js";

/**
 * A value, which is undefined until it has been measured.
 * @typedef {{label: string, value: number | undefined, text: string, kind: "forecast" | "measured"}} Bar
 */

/**
 * At most three digits, and a true minus.
 * @param {number} value
 */
export function digits(value) {
  const size = Math.abs(value);
  const text = size.toFixed(size >= 99.95 ? 0 : size >= 9.995 ? 1 : 2);
  return `${value < 0 && Number(text) !== 0 ? "−" : ""}${text}`;
}

/**
 * With its sign, as changes are written.
 * @param {number} value
 */
export function signed(value) {
  const text = digits(value);
  return value > 0 && Number(text) !== 0 ? `+${text}` : text;
}

/**
 * From the lowest to the highest of the values and 0.
 * @param {(number | undefined)[]} values
 * @returns {[number, number]}
 */
export function reach(values) {
  const known = values.filter((value) => value !== undefined);
  return [Math.min(0, ...known), Math.max(0, ...known)];
}

/**
 * A bar from 0 to the value, on an axis that has a line at 0, and one at `mark`.
 * @param {number | undefined} value
 * @param {[number, number]} axis
 * @param {string} kind
 * @param {number} [mark]
 */
function bar(value, [low, high], kind, mark) {
  const place = (/** @type {number} */ at) => (100 * (at - low)) / (high - low || 1);
  const element = create("span", { className: "own-photo-bar" });
  const line = (/** @type {string} */ name, /** @type {number} */ at) => {
    const one = create("i", { className: name });
    one.style.left = `${place(at)}%`;
    element.append(one);
  };
  if (value !== undefined) {
    const filled = create("b", { className: kind });
    filled.style.left = `${place(Math.min(0, value))}%`;
    filled.style.width = `${Math.abs(place(value) - place(0))}%`;
    element.append(filled);
  }
  line("zero", 0);
  if (mark !== undefined) line("mark", mark);
  return element;
}

/**
 * Bars on one axis under a title.
 * @param {string} title
 * @param {string} note beside the title
 * @param {Bar[]} bars
 * @param {{axis?: [number, number], mark?: number}} [scale] the axis, if the values do not say it
 */
export function panel(title, note, bars, { axis, mark } = {}) {
  const element = create("div", { className: "own-photo-panel" });
  const head = create("p", {});
  head.append(create("b", { textContent: title }), ` ${note}`);
  element.append(head);
  const of = axis ?? reach([...bars.map(({ value }) => value), mark]);
  for (const { label, value, text, kind } of bars) {
    const words = create("span", { className: "own-photo-label", textContent: `${label} ` });
    words.append(create("b", { textContent: value === undefined ? "…" : text }));
    element.append(words, bar(value, of, kind, mark));
  }
  return element;
}

/**
 * A row of the chart of experiments: two bars, each on an axis, and the values.
 * @param {Element} cell
 * @param {[Bar, Bar]} bars
 * @param {[[number, number], [number, number]]} axes
 */
export function fill(cell, bars, axes) {
  cell.replaceChildren(
    ...bars.flatMap(({ value, text, label, kind }, at) => {
      const words = create("span", { className: `own-photo-value ${kind}` });
      words.append(create("span", { className: "own-photo-hidden", textContent: `${label} ` }));
      words.append(value === undefined ? "…" : text);
      return [bar(value, axes[at], kind), words];
    }),
  );
}
