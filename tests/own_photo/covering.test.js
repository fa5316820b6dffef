import assert from "node:assert/strict";
import { test } from "node:test";

import * as covering from "../../book/_static/own_photo/covering.js";
import { hiresCam } from "../../book/_static/own_photo/saliency.js";
import { close, expected, same, stack } from "./expected.js";

test("what covers an image, byte for byte", () => {
  for (const { pixels, expected: wanted } of expected.substitutes) {
    assert.deepEqual(Object.keys(wanted), Object.keys(covering.FILLS));
    for (const [name, value] of Object.entries(wanted)) {
      same(covering.FILLS[name](pixels), value, `${name}, ${pixels.width} × ${pixels.height}`);
    }
  }
});

test("masked pixels are those of the substitute, others stay", () => {
  const substitute = Uint8Array.of(9, 9, 9, 7, 8, 9);
  const found = covering.covered(Uint8Array.of(1, 2, 3, 4, 5, 6), Uint8Array.of(0, 1), substitute);
  assert.deepEqual([...found], [1, 2, 3, 7, 8, 9]);
});

test("the brush's square stays inside the image", () => {
  for (const { side, x, y, size, expected: wanted } of expected.stamps) {
    const mask = new Uint8Array(side * side);
    covering.stamp(mask, side, { x, y }, size);
    same(mask, wanted, `${size} at ${x}, ${y} of ${side}`);
  }
});

test("shares of cells, sums of the ledger, and as large an area elsewhere", () => {
  for (const { mask, ledger, ...wanted } of expected.masks) {
    const { shape } = ledger;
    const side = mask.shape[0];
    close(covering.coverage(mask, shape), wanted.coverage, 1e-12, `coverage ${shape}`);
    close([covering.under(stack(ledger), mask)], [wanted.under], 1e-9, `sum ${shape}`);
    same(covering.elsewhere(mask, shape), wanted.elsewhere, `elsewhere ${shape}`);
    assert.deepEqual(covering.brightestTenth(stack(ledger)), wanted.tenth);
    same(covering.maskOf(wanted.tenth, shape, side), wanted.cells, `cells ${shape}`);
  }
});

test("of equal cells, the first are the brightest", () => {
  assert.deepEqual(covering.brightestTenth({ data: new Float32Array(20), shape: [4, 5] }), [0, 1]);
});

test("a seed gives the same order everywhere", () => {
  for (const { seed, order } of expected.shuffled) {
    assert.deepEqual(covering.shuffled([...order.keys()], seed), order);
  }
});

test("the probability after a logit has changed", () => {
  for (const { logits, index, output, change, expected: wanted } of expected.chances) {
    close([covering.probability(logits, index, output, change)], [wanted], 1e-12, output);
  }
});

test("where averaging and a linear layer follow, the cells and the bias are the logit", () => {
  for (const { M, C, held } of expected.exact) {
    const ledger = hiresCam(stack(M), stack(C));
    const all = new Uint8Array((8 * ledger.shape[0]) ** 2).fill(1);
    close([covering.under(ledger, all)], [held], 1e-4, `${M.shape}`);
  }
});
