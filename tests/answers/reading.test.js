import assert from "node:assert/strict";
import { test } from "node:test";

import { flat, numbersIn, setsIn, wordIn } from "../../book/_static/answers/reading.js";

/** Whether one of the readings of a text is this value. */
const reads = (text, value) => {
  const readings = numbersIn(text).map((reading) => JSON.stringify(reading));
  assert.ok(readings.includes(JSON.stringify(flat(value))), `${text}: ${readings}`);
};

test("a number in natural forms", () => {
  const forms = {
    0.25: ["0.25", "0,25", ".25", " 0.25 ", "+0.25", "1/4", "1 / 4", "¼", "1⁄4", "25%", "25 %", "25 per cent"],
    "-0.5": ["-0.5", "−0,5", "– 0.5", "-1/2", "−½", "-50 %", "(-0.5)", "≈ -0.5", '"-0.5"', "= -0.5"],
    1040.5: ["1040.5", "1,040.5", "1.040,5", "1040,5", "1.0405e3", "1.0405E+3"],
    1040: ["1,040", "1040", "1040."],
    5.85: ["13*9/20", "13 × 9 / 20", "13·9÷20"],
    0.75: ["tensor(0.75)", "np.float64(0.75)", "tensor(0.7500, dtype=torch.float64)", "float(0.75)"],
  };
  for (const [value, texts] of Object.entries(forms)) for (const text of texts) reads(text, Number(value));
  assert.equal(numbersIn("0,25")[0].values[0], 0.25);
  assert.deepEqual(numbersIn("1,040").map(({ values }) => values), [[1.04], [1, 40], [1040]]);
});

test("lists and rows of numbers in natural forms", () => {
  const pair = ["[0.5, -2]", "0.5, −2", "0.5 -2", "0,5 -2", "0,5; -2", "0,5, -2", "(1/2, -2)", "{½,-2}"];
  for (const text of pair) reads(text, [0.5, -2]);
  for (const text of ["7,10", "[7,10]", "7 10", "tensor([ 7, 10])", "array([7., 10.])"]) reads(text, [7, 10]);
  const rows = ["[[1, 2], [3, 4]]", "1 2\n3 4", "1, 2; 3, 4", "[1 2]\n[3 4]", "(1,2),(3,4)"];
  for (const text of [...rows, "[[1. 2.]\n [3. 4.]]", "tensor([[1., 2.],\n        [3., 4.]])"]) reads(text, [[1, 2], [3, 4]]);
  reads("0,5 1,5\n2,5 3,5", [[0.5, 1.5], [2.5, 3.5]]);
  assert.deepEqual(numbersIn("[0.5]"), [{ shape: [1], values: [0.5] }]); // as in Python
  assert.deepEqual(numbersIn("[[1, 2], [3]]")[0].shape, null);
  assert.deepEqual(flat([]).shape, [0]);
});

test("what is no number is not read as one", () => {
  const texts = ["half", "0.5 logits", "1//2", "1/", "[1, 2", "1, 2)", "[1, 2)", "--1", "1½", "", "sqrt(2)"];
  for (const text of texts) {
    assert.deepEqual(numbersIn(text), [], text);
  }
});

test("not a number, and infinity", () => {
  for (const text of ["nan", "NaN", "-inf", "1/0", "1e999", "infinity"]) {
    assert.ok(numbersIn(text).length && !Number.isFinite(numbersIn(text)[0].values[0]), text);
  }
});

test("words and sets of words", () => {
  for (const text of ["cat", ' "cat" ', "'cat'", "“cat”", "‘cat’"]) assert.equal(wordIn(text), "cat");
  const has = (text, words) => {
    const readings = setsIn(text).map((set) => String([...set].sort()));
    assert.ok(readings.includes(String(words)), `${text}: ${readings.join(" | ")}`);
  };
  const forms = ["Cat, cup", "{'cat', 'cup'}", '["cat", "cup"]', "cat cup", "cat; cup", "cat and cup"];
  for (const text of [...forms, "(cup, cat,)", "set(['cat', 'cup'])", 'frozenset({"cat","cup"})']) has(text, ["cat", "cup"]);
  has("more scenes, base  rate", ["base rate", "more scenes"]);
  has("cat, cup, and coin", ["cat", "coin", "cup"]);
  has("a: nothing, b = scenes", ["a nothing", "b scenes"]);
  has("6 7", ["6", "7"]);
  for (const text of ["{}", "set()", "[]", "( )", "∅"]) has(text, []);
  for (const text of ["{cat, cup", "cat, cup]", "{cat, (cup}"]) assert.deepEqual(setsIn(text), [], text);
});
