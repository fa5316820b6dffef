import assert from "node:assert/strict";
import { test } from "node:test";

import { overWhite, prepare, resize } from "../../book/_static/own_photo/resize.js";
import { expected, same } from "./expected.js";

const size = ({ width, height }) => `${width} × ${height}`;

test("resize", () => {
  assert.ok(expected.resized.length > 200);
  for (const { from, to } of expected.resized) {
    const result = resize(from, to.width, to.height);
    assert.equal(size(result), size(to));
    same(result.data, to.data, `${size(from)} to ${size(to)}`);
  }
});

test("what the network sees, and its input, bit for bit", () => {
  for (const { from, preprocessing, shown, input } of expected.prepared) {
    const result = prepare(from, preprocessing);
    const what = `${size(from)}, ${JSON.stringify(preprocessing)}`;
    assert.equal(size(result.shown), size(shown));
    same(result.shown.data, shown.data, what);
    same(result.input, input, what);
  }
});

test("an image too slender is refused", () => {
  const slender = { data: new Uint8Array(3 * 51), width: 1, height: 51 };
  const preprocessing = { resize: 256, crop: 224, mean: [0, 0, 0], std: [1, 1, 1] };
  assert.throws(() => prepare(slender, preprocessing), { name: "RangeError", message: /too slender/ });
});

test("transparency is laid over white", () => {
  const { data, width, height } = expected.over_white;
  same(overWhite(expected.rgba, width, height).data, data, "RGB");
});
