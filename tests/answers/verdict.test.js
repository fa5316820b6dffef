import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";

import { judge } from "../../book/_static/answers/verdict.js";

const expected = JSON.parse(readFileSync(process.env.EXPECTED, "utf8"));

test("every verdict is Python's", () => {
  const differing = [];
  for (const { name, exercise, cases } of expected.exercises) {
    for (const { text, words, right } of cases) {
      const found = judge(exercise, text);
      if (found.words !== words || found.right !== right) differing.push([name, text, words, found.words]);
    }
  }
  assert.deepEqual(differing.slice(0, 20), []);
});

test("an answer that cannot be read is told how to be written", () => {
  for (const { exercise, unreadable } of expected.exercises) {
    const { words, right, help } = judge(exercise, unreadable);
    assert.ok(words.startsWith("Expected ") && !right);
    assert.equal(help !== undefined, exercise.kind !== "word"); // the sentence lists the words
  }
});

test("no answer yet", () => {
  const [{ exercise }] = expected.exercises;
  assert.equal(judge(exercise, "  ").words, "No answer yet: write your answer in the field.");
  for (const dots of ["...", " … "]) assert.equal(judge(exercise, dots).words, expected.dots);
});

test("of several readings the one that fits best is judged", () => {
  const numbers = (right, wrong = []) => ({ kind: "numbers", right, wrong, tolerance: 0.01 });
  assert.ok(judge(numbers(1040), "1,040").right);
  assert.ok(judge(numbers(1.04), "1,040").right);
  assert.ok(judge(numbers([1, 40]), "1,040").right);
  assert.equal(judge(numbers(3, [["thousands", 1040]]), "1,040").words, "Not right: thousands.");
  assert.equal(judge(numbers(0.3), "0,25").words, "Not right: the number is too small.");
  assert.equal(judge(numbers([0.3, 1]), "0,25 2").words, "Not right: wrong in 2 of 2 values.");
  const { words, help } = judge(numbers([0.3, 1]), "0.25");
  assert.equal(words, "Not right: expected an array of shape (2,), got a number.");
  assert.ok(help.startsWith("Write 2 numbers"));
  const set = { kind: "set", right: ["base rate", "rivals"], wrong: [["slip", ["6", "7"]]], tolerance: 0 };
  assert.ok(judge(set, "base rate, rivals").right);
  assert.equal(judge(set, "6 7").words, "Not right: slip.");
  assert.equal(judge(set, "more scenes, rivals").words, "Not right: 1 missing, 1 too many.");
});
