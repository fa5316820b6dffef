// The table of a cell: the channels with the largest products, the others, and their sum.

import { unsigned, signed } from "./words.js";

/** @import { Row } from "./sums.js" */

/**
 * What a column shows: its symbol, a word for it, and for a bar the value and the factors below it.
 * @typedef {object} Column
 * @property {string} symbol HTML
 * @property {string} word
 * @property {string} [map] a little map in place of a bar: "M", "C", or "mean", a flat one of λ
 * @property {(row: Row) => string} [factors] what the value is a product of
 * @property {boolean} [added] whether the column is added up
 */

const SUB = "<sub>k</sub>";

/** @type {Record<string, Column>} */
export const COLUMNS = {
  M: { symbol: `M${SUB}`, word: "activity", map: "M" },
  C: { symbol: `C${SUB}`, word: "gradient", map: "C" },
  mean: { symbol: `λ${SUB}`, word: "mean", map: "mean" },
  m: { symbol: `M${SUB}`, word: "in this cell", added: true },
  w: { symbol: `w${SUB}`, word: "weight of the class" },
  lambda: { symbol: `λ${SUB}`, word: "mean of C" },
  Mw: {
    symbol: `w${SUB}·M${SUB}`,
    word: "in logits",
    factors: ({ w, m }) => `${unsigned(w)} × ${unsigned(m)}`,
    added: true,
  },
  Ml: {
    symbol: `λ${SUB}·M${SUB}`,
    word: "mean gradient",
    factors: ({ lambda, m }) => `${unsigned(lambda)} × ${unsigned(m)}`,
    added: true,
  },
  MC: {
    symbol: `C${SUB}·M${SUB}`,
    word: "gradient in this cell",
    factors: ({ c, m }) => `${unsigned(c)} × ${unsigned(m)}`,
    added: true,
  },
};

/**
 * A bar from the middle, orange to the right and blue to the left, with its value on the other side.
 * @param {number} value
 * @param {number} scale the value of the longest bar
 * @param {string} name of the column
 */
function bar(value, scale, name) {
  const text = name === "m" ? unsigned(value) : signed(value);
  const kind = name === "m" ? "activity" : text === "0" ? "zero" : value > 0 ? "for" : "against";
  const width = Math.min(47, (Math.abs(value) / scale) * 47);
  return `<span class="gm-bar ${kind}" style="--width:${width.toFixed(2)}%"><i></i><b>${text}</b></span>`;
}

/**
 * The table's head.
 * @param {string[]} columns
 */
export function head(columns) {
  const cells = columns.map((name) => {
    const { symbol, word, map } = COLUMNS[name];
    const kind = map ? "gm-small" : `gm-${name === "m" ? "activity" : "signed"}`;
    return `<th scope="col" class="${kind}"><var>${symbol}</var> <span>${word}</span></th>`;
  });
  return `<tr><th scope="col" class="gm-k"><var>k</var></th>${cells.join("")}</tr>`;
}

/**
 * The table's body for one cell.
 * @param {string[]} columns
 * @param {ReturnType<import("./sums.js").strongest>} rows
 * @param {Record<string, number>} floors the least scale of a column's bars
 * @param {number} channels
 * @param {string} mark style of the mark at the cell in the little maps
 */
export function body(columns, { shown, others, active, total }, floors, channels, mark) {
  const bars = columns.filter((name) => !COLUMNS[name].map);
  const scales = Object.fromEntries(
    bars.map((name) => {
      const rows = COLUMNS[name].added ? [...shown, others, total] : shown;
      return [name, Math.max(floors[name], ...rows.map((row) => Math.abs(row[name]))) || 1];
    }),
  );
  const summed = (/** @type {Record<string, number>} */ row) =>
    bars.map((name) => `<td>${COLUMNS[name].added ? bar(row[name], scales[name], name) : ""}</td>`).join("");
  const lines = shown.map((row) => {
    const cells = columns.map((name) => {
      const { map, factors } = COLUMNS[name];
      if (map) {
        const canvas = `<canvas aria-hidden="true" data-map="${map}" data-k="${row.k}"></canvas>`;
        return `<td class="gm-small"><span class="gm-little">${canvas}<i style="${mark}"></i></span></td>`;
      }
      const below = factors ? `<span class="gm-factors">${factors(row)}</span>` : "";
      return `<td>${bar(row[name], scales[name], name)}${below}</td>`;
    });
    return `<tr><th scope="row" class="gm-k">${row.k}</th>${cells.join("")}</tr>`;
  });
  const span = 1 + columns.length - bars.length;
  const rest = `the other ${channels - shown.length} <span>${active} active here</span>`;
  return [
    ...lines,
    `<tr class="gm-rest"><th scope="row" colspan="${span}">${rest}</th>${summed(others)}</tr>`,
    `<tr class="gm-sum"><th scope="row" colspan="${span}">sum</th>${summed(total)}</tr>`,
  ].join("");
}
