// The verdict on an answer, in the words of `gmcam.lab.exercises.check`.

import { compared, flat, numbersIn, setsIn, wordIn } from "./reading.js";

/** @import { Nested, Numbers } from "./reading.js" */

/**
 * What book/_tools/answers.py writes for an exercise. `wrong` has pairs: a slip, and the answer it leads to.
 * @typedef {object} Exercise
 * @property {"word" | "set" | "numbers"} kind
 * @property {any} right a word, a list of words, or a number or lists of numbers
 * @property {[string, any][]} wrong
 * @property {number} tolerance share of the largest right value
 */

/**
 * `help` says how an answer is written, if this one could not be read or has another shape.
 * @typedef {{right: boolean, words: string, help?: string}} Verdict
 */

/**
 * @param {Exercise} exercise
 * @param {string} text what the reader typed
 * @returns {Verdict}
 */
export function judge(exercise, text) {
  const answer = text.trim();
  if (!answer) return refused("No answer yet: write your answer in the field.");
  if (/^(?:\.\.\.|…)$/.test(answer)) {
    return refused("No answer yet: replace the three dots with your answer.");
  }
  if (exercise.kind === "word") return judgeWord(exercise, answer);
  if (exercise.kind === "set") return judgeSet(exercise, answer);
  return judgeNumbers(exercise, answer);
}

/**
 * @param {string} words
 * @param {string} [help]
 * @returns {Verdict}
 */
function refused(words, help) {
  return { right: false, words, help };
}

const RIGHT = { right: true, words: "Right." };

/**
 * @param {Exercise} exercise
 * @param {string} answer
 */
function judgeWord({ right, wrong }, answer) {
  const given = compared(answer);
  if (given === right) return RIGHT;
  const slip = wrong.find(([, value]) => value === given);
  if (slip) return refused(`Not right: ${slip[0]}.`);
  const options = [...new Set([right, ...wrong.map(([, value]) => value)])].sort().map(quoted);
  return refused(`Expected one of ${options.join(", ")}, got ${quoted(wordIn(answer))}.`);
}

/**
 * @param {Exercise} exercise
 * @param {string} answer
 */
function judgeSet({ right, wrong }, answer) {
  const readings = setsIn(answer);
  if (!readings.length) {
    return refused(
      `Expected a set of words, got ${quoted(answer)}.`,
      "Write the words with commas between them, or {} for none.",
    );
  }
  /** @type {(one: Set<string>, other: string[]) => number} */
  const lacking = (one, other) => other.filter((word) => !one.has(word)).length;
  const verdicts = readings.map((given) => {
    /** @param {string[]} value */
    const same = (value) => given.size === value.length && !lacking(given, value);
    if (same(right)) return { rank: 0, verdict: RIGHT };
    const slip = wrong.find(([, value]) => same(value));
    if (slip) return { rank: 1, verdict: refused(`Not right: ${slip[0]}.`) };
    const missing = lacking(given, right);
    const extra = lacking(new Set(right), [...given]);
    const words = `Not right: ${missing} missing, ${extra} too many.`;
    return { rank: 2 + missing + extra, verdict: refused(words) };
  });
  return best(verdicts);
}

/**
 * @param {Exercise} exercise
 * @param {string} answer
 */
function judgeNumbers(exercise, answer) {
  const right = flat(exercise.right);
  const help = howToWrite(right);
  const readings = numbersIn(answer);
  if (!readings.length) return refused(`Expected ${kindOf(right)}, got ${quoted(answer)}.`, help);
  const verdicts = readings.map((given) => {
    if (!given.shape) {
      return { rank: 3, verdict: refused(`Expected ${kindOf(right)}, got a value of type list.`, help) };
    }
    if (!given.values.every(Number.isFinite)) {
      return { rank: 4, verdict: refused("Expected finite values, got NaN or infinity.") };
    }
    if (same(given, right, exercise.tolerance)) return { rank: 0, verdict: RIGHT };
    const slip = exercise.wrong.find(([, value]) => same(given, flat(value), exercise.tolerance));
    if (slip) return { rank: 1, verdict: refused(`Not right: ${slip[0]}.`) };
    const fits = sameShape(given, right);
    const hint = fits
      ? hintFor(given, right, exercise.tolerance)
      : `expected ${kindOf(right)}, got ${kindOf(given)}`;
    return { rank: fits ? 2 : 3, verdict: refused(`Not right: ${hint}.`, fits ? undefined : help) };
  });
  return best(verdicts);
}

/**
 * The verdict of least rank, the first of equals.
 * @param {{rank: number, verdict: Verdict}[]} verdicts
 */
function best(verdicts) {
  return verdicts.reduce((least, each) => (each.rank < least.rank ? each : least)).verdict;
}

/**
 * @param {Numbers} given
 * @param {Numbers} expected
 */
function sameShape(given, expected) {
  return String(given.shape) === String(expected.shape);
}

/**
 * @param {Numbers} given
 * @param {Numbers} expected
 * @param {number} tolerance
 */
function same(given, expected, tolerance) {
  return sameShape(given, expected) && countOff(given, expected, tolerance) === 0;
}

/**
 * How many values differ, with some room for float32 even where the answer must be exact.
 * @param {Numbers} given
 * @param {Numbers} expected
 * @param {number} tolerance
 */
function countOff(given, expected, tolerance) {
  const largest = expected.values.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const room = Math.max(tolerance, 1e-6) * largest;
  return given.values.filter((value, at) => Math.abs(value - expected.values[at]) > room).length;
}

/**
 * What is wrong with numbers of the right shape that no known slip explains.
 * @param {Numbers} given
 * @param {Numbers} right
 * @param {number} tolerance
 */
function hintFor(given, right, tolerance) {
  /** @param {number} divisor */
  const divided = (divisor) => ({ ...given, values: given.values.map((value) => value / divisor) });
  const single = right.shape?.length === 0;
  if (single && same(divided(100), right, tolerance)) {
    return "this is a percentage; give a share, where 1 means all";
  }
  if (same(divided(-1), right, tolerance)) return "the sign is reversed";
  if (!single) return `wrong in ${countOff(given, right, tolerance)} of ${given.values.length} values`;
  return `the number is too ${given.values[0] > right.values[0] ? "large" : "small"}`;
}

/**
 * A value in words for the reader.
 * @param {Numbers} numbers
 */
function kindOf({ shape }) {
  if (!shape?.length) return "a number";
  return `an array of shape (${shape.join(", ")}${shape.length === 1 ? "," : ""})`;
}

/**
 * @param {Numbers} right
 */
function howToWrite({ shape }) {
  if (!shape?.length) return "Write a number such as 0.25, 1/4 or 25 %.";
  if (shape.length === 1) return `Write ${shape[0]} numbers with commas between them: 0.5, 1/4, …`;
  return `Write ${shape[0]} rows of ${shape[1]} numbers, each row on a line of its own.`;
}

/**
 * A text as Python prints it.
 * @param {string} text
 */
function quoted(text) {
  const quote = text.includes("'") && !text.includes('"') ? '"' : "'";
  const escaped = text.replace(/\\/g, "\\\\").replace(/\n/g, "\\n").replace(/\t/g, "\\t");
  return quote + (quote === "'" ? escaped.replace(/'/g, "\\'") : escaped) + quote;
}
