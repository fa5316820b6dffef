// What a reader types, read as numbers or as words. A text can often be read in more ways than one: is the
// comma in "7,10" a decimal one? All ways are returned, and verdict.js takes the one that fits best.

/**
 * An array of numbers: a shape as in Python, and the values row by row. A number has the shape [].
 * `shape` is null for lists of different lengths in one list.
 * @typedef {{shape: number[] | null, values: number[]}} Numbers
 */

/** @typedef {any} Nested a number, or a list of such: a type cannot name itself here */

const FACTOR = /^[+-]?(?:(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?%?|nan|inf(?:inity)?)$/i;
const FRACTIONS = /(^|[^\d])([¼½¾⅐-⅞])/g;
const THOUSANDS = /(^|[^\d.,])([1-9]\d{0,2}(?:,\d{3})+)(?![\d,])/g; // 1,040.5
const POINTS = /(^|[^\d.,])([1-9]\d{0,2}(?:\.\d{3})+)(?=,\d)/g; // 1.040,5
const CLOSING = new Map([["[", "]"], ["(", ")"], ["{", "}"]]);
// How libraries print a value: "tensor([0.5, 0.25], dtype=torch.float64)", "np.float64(0.5)".
const PRINTED = /\b(?:np\.|torch\.)?(?:tensor|array|float\d*|int\d*)\(([^()]*?)(?:,\s*\w+=[^()]*)?\)/g;

/**
 * All ways to read a text as numbers, the likeliest first; none if it cannot be read.
 * @param {string} text
 * @returns {Numbers[]}
 */
export function numbersIn(text) {
  const plain = plainNumbers(text);
  const bracketed = /[[({]/.test(plain);
  /** @type {(_: string, before: string, digits: string) => string} */
  const ungrouped = (_, before, digits) => before + digits.replace(/[.,]/g, "");
  const spellings = bracketed ? [plain, withPoints(plain)] : [withPoints(plain), plain];
  spellings.push(plain.replace(THOUSANDS, ungrouped), withPoints(plain.replace(POINTS, ungrouped)));
  return [...new Set(spellings)].flatMap((spelling) => {
    const lines = spelling.split("\n");
    const rows = lines.length > 1 ? lines : spelling.split(";"); // semicolons may also separate numbers
    const apart = bracketed || rows.length === 1 ? [] : [rows.map((row) => `[${row}]`).join()];
    const ways = lines.length > 1 ? [...apart, spelling] : [spelling, ...apart];
    return ways.map(nested).filter((value) => value !== undefined).map(flat);
  });
}

/**
 * Commas between digits as decimal points.
 * @param {string} text
 */
function withPoints(text) {
  return text.replace(/(\d),(?=\d)/g, "$1.");
}

/**
 * Signs that look alike as one sign, without quotes and without the names of types.
 * @param {string} text
 */
function plainNumbers(text) {
  return text
    .replace(FRACTIONS, (_, before, sign) => before + sign.normalize("NFKC"))
    .replace(/["'“”‘’`]|^\s*[=≈~]/g, "")
    .replace(/[−–—‐‑‒]/g, "-")
    .replace(/[×·⋅]/g, "*")
    .replace(/[⁄∕÷]/g, "/")
    .replace(/\s*(?:[%％]|per\s?cent\b)/gi, "%")
    .replace(/[^\S\n]*([*/])[^\S\n]*/g, "$1")
    .replace(/([+-])\s+(?=[\d.])/g, "$1")
    .replace(PRINTED, "$1")
    .trim();
}

/**
 * A number, or lists within lists; undefined if a part is no number or a bracket has no partner.
 * @param {string} text
 * @returns {Nested | undefined}
 */
function nested(text) {
  /** @type {Nested[]} */
  const top = [];
  const open = [{ items: top, sign: "", closing: "" }];
  for (const token of text.match(/[[\](){}]|[^\s,;[\](){}]+/g) ?? []) {
    const { items, sign, closing } = open[open.length - 1];
    const partner = CLOSING.get(token);
    if (partner) {
      open.push({ items: [], sign: token, closing: partner });
    } else if (token === closing) {
      open.pop();
      const grouped = sign === "(" && items.length === 1; // brackets around a number are no list
      open[open.length - 1].items.push(grouped ? items[0] : items);
    } else {
      const value = number(token);
      if (value === undefined) return undefined;
      items.push(value);
    }
  }
  if (open.length > 1 || !top.length) return undefined;
  return top.length === 1 ? top[0] : top;
}

/**
 * A number, a percentage, a fraction or a product: "0.25", "25%", "1/4", "13*9/20".
 * @param {string} text
 */
function number(text) {
  const [first, ...others] = text.split(/([*/])/);
  let value = factor(first);
  for (let at = 0; at < others.length; at += 2) {
    const other = factor(others[at + 1]);
    value = others[at] === "*" ? value * other : value / other;
  }
  const parts = [first, ...others.filter((_, at) => at % 2)];
  return parts.every((part) => FACTOR.test(part)) ? value : undefined;
}

/** @param {string} text */
function factor(text) {
  const unit = text.endsWith("%") ? 100 : 1;
  const endless = text.replace(/inf(?:inity)?/i, "Infinity");
  return Number(unit === 100 ? text.slice(0, -1) : endless) / unit;
}

/**
 * Shape and values of lists within lists.
 * @param {Nested} value
 * @returns {Numbers}
 */
export function flat(value) {
  if (typeof value === "number") return { shape: [], values: [value] };
  const parts = /** @type {Numbers[]} */ (value.map(flat));
  const inner = parts.length ? parts[0].shape : [];
  const equal = inner && parts.every(({ shape }) => shape && String(shape) === String(inner));
  const values = parts.flatMap((part) => part.values);
  return { shape: equal ? [value.length, ...inner] : null, values };
}

/**
 * A word without the quotes around it.
 * @param {string} text
 */
export function wordIn(text) {
  return text.trim().replace(/^["'“”‘’`]+|["'“”‘’`]+$/g, "");
}

/**
 * A word as `check` compares it.
 * @param {string} text
 */
export function compared(text) {
  return wordIn(text).trim().replace(/\s+/g, " ").toLowerCase();
}

/**
 * All ways to read a text as a set of words: with commas or line breaks between them, or with spaces.
 * None if a bracket has no partner. Empty brackets are the empty set.
 * @param {string} text
 * @returns {Set<string>[]}
 */
export function setsIn(text) {
  const list = text.trim().replace(/^(?:frozen)?set(?=\()/, "").replace(/^∅$/, "{}");
  const inner = withoutBrackets(withoutBrackets(list)); // set({"a"}) has two
  if (/[[\](){}]/.test(inner)) return [];
  const words = inner.split(/[,;\n]|\s(?:and|&)\s/).map((word) => word.replace(/\s*[:=]\s*/g, " "));
  const sets = [words, words.flatMap((word) => wordIn(word).split(/\s+/))];
  return sets.map((items) => new Set(items.map(compared).filter(Boolean)));
}

/** @param {string} text */
function withoutBrackets(text) {
  const closed = text.length > 1 && CLOSING.get(text[0]) === text[text.length - 1];
  return closed ? text.slice(1, -1).trim() : text;
}
