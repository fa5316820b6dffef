import assert from "node:assert/strict";
import { test } from "node:test";

import * as words from "../../book/_static/own_photo/words.js";
import { close, expected } from "./expected.js";

const { describe, describeClasses, percent, search, strongest, topClasses } = words;

test("where a map is strongest, and its share there", () => {
  for (const { map, size, place, share } of expected.places) {
    const result = strongest(map, size);
    assert.equal(result.place, place);
    close([result.share], [share], 1e-9, `${size}`);
  }
  assert.equal(new Set(expected.places.map(({ place }) => place)).size, 9);
  assert.equal(strongest(Float32Array.of(0, 1, 1), [1, 3]).place, "in the middle"); // the first of equals
});

test("a sentence on a map", () => {
  const guess = { index: 0, name: "cat", probability: 0.2391 };
  const of = { title: "GMCAM", guess, logit: -1.256, cells: "7 × 7 cells", empty: false };
  const map = Float32Array.of(0, 0, 0.25, 0, 0, 0.5, 0, 0.25, 1);
  const start = "GMCAM for cat (probability 23.9\u00a0%, logit −1.26) at 7 × 7 cells: ";
  const share = "50\u00a0% of the map is in that ninth of the image.";
  const sentence = `${start}strongest at the bottom right; ${share}`;
  assert.equal(describe(map, [3, 3], of), sentence);
  assert.equal(describe(new Float32Array(9), [3, 3], { ...of, empty: true }), `${start}the map is empty.`);
});

test("the most probable classes", () => {
  for (const { logits, indices, probabilities, output } of expected.guesses) {
    const classes = Array.from(logits, (_, index) => `class ${index}`);
    const result = topClasses(logits, classes, 5, output);
    assert.deepEqual(result.map(({ index }) => index), indices);
    assert.deepEqual(result.map(({ name }) => name), indices.map((index) => `class ${index}`));
    close(result.map(({ probability }) => probability), probabilities, 1e-12, `${logits.length} classes`);
  }
  const equal = topClasses([1, 2, 2, 2], ["a", "b", "c", "d"], 2);
  assert.deepEqual(equal.map(({ name }) => name), ["b", "c"]);
});

test("classes in words", () => {
  const guesses = [
    { index: 1, name: "cat", probability: 0.93149 },
    { index: 0, name: "cup", probability: 0.0004 },
  ];
  assert.deepEqual([0.0005, 1].map(percent), ["0.1\u00a0%", "100.0\u00a0%"]);
  assert.equal(describeClasses(guesses), "Most probable: cat (93.1\u00a0%), cup (< 0.1\u00a0%).");
});

test("classes that match the text typed", () => {
  const classes = ["tabby", "tiger cat", "Egyptian cat", "catamaran", "Cardigan", "cat", "cardigan"];
  const matches = (text) => search(classes, text).map((index) => classes[index]);
  assert.deepEqual(matches("cat"), ["cat", "tiger cat", "Egyptian cat", "catamaran"]);
  assert.deepEqual(matches("  CAT "), matches("cat"));
  assert.deepEqual(matches("cat egypt"), ["Egyptian cat"]);
  assert.deepEqual(matches("cardigan"), ["Cardigan", "cardigan"]);
  assert.deepEqual(matches("zebra"), []);
  assert.deepEqual(matches(" "), classes);
});
