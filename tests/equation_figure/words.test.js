import assert from "node:assert/strict";
import { test } from "node:test";

import * as words from "../../gmcam/lab/static/equation_figure/words.js";
import { expected } from "../own_photo/expected.js";

const { percent, sentence, signed, unsigned, whereIs } = words;

test("numbers are written as Python writes them", () => {
  for (const [value, text] of expected.numbers) assert.equal(signed(value), text);
  for (const [share, text] of expected.shares) assert.equal(percent(share), text);
  assert.equal(unsigned(1.25), "1.25");
  assert.equal(unsigned(-1.25), "\u22121.25");
});

/** A cell in row 5, column 7, on the cat. */
function cell(mean, local, cover = [["cat", 1], ["cup", 0]]) {
  const values = { aggregated_map: 2, cam: 256 * mean, grad_cam: mean, guidance_map: local };
  values.gmcam = mean * Math.max(local, 0);
  const peaks = { aggregated_map: 4, cam: 256 * 0.02, grad_cam: 0.02, guidance_map: 0.1, gmcam: 0.002 };
  return { target: "cat", row: 5, column: 7, values, peaks, cover };
}

const text = (parts) => parts.map(([, words]) => words).join("");

test("a sentence says where the cell is, the verdict and the sums", () => {
  const parts = sentence(cell(0.014, -0.0036), "gmcam");
  assert.deepEqual(parts[0], ["where", "Cell (5, 7), on the cat. "]);
  assert.equal(parts[1][0], "verdict");
  assert.deepEqual(
    parts.filter(([kind]) => kind === "for" || kind === "against"),
    [
      ["for", "+14.0"],
      ["against", "\u22123.60"],
    ],
  );
  assert.ok(text(parts).endsWith("+14.0 thousandths of a logit, with the gradients here to \u22123.60."));
});

test("every verdict of Equation 6", () => {
  for (const [mean, local, said] of [
    [0.01, 0.05, "GMCAM keeps it, at 25\u00a0%"],
    [0.0001, 0.0001, "almost nothing is left in GMCAM"],
    [0.01, -0.05, "the gradients here count against “cat”: GMCAM drops it"],
    [0.01, 0, "the gradients here add nothing: GMCAM drops it"],
    [-0.01, 0.05, "The guidance map highlights this cell, Grad-CAM does not: GMCAM drops it"],
    [-0.01, -0.05, "Both sums count against “cat”: the rectifier sets all three maps to zero"],
    [0, -0.05, "Neither sum is positive: the rectifier sets all three maps to zero here"],
  ]) {
    assert.ok(text(sentence(cell(mean, local), "gmcam")).includes(said), said);
  }
});

test("the other equations have verdicts of their own maps", () => {
  for (const [name, mean, local, said] of [
    ["aggregated_map", 0.01, 0, "add up to 2.00: A is at 50\u00a0% of its maximum"],
    ["cam", 0.01, 0, "CAM highlights this cell, at 50\u00a0% of its maximum"],
    ["cam", -0.01, 0, "The weighted sum counts against “cat”: the rectifier sets CAM to zero here"],
    ["grad_cam", 0.01, 0, "Grad-CAM highlights this cell, at 50\u00a0% of its maximum"],
    ["grad_cam", 0, 0, "The weighted sum is zero here, and so is Grad-CAM"],
    ["guidance_map", 0.01, 0.05, "Both maps highlight this cell, the guidance map at 50\u00a0%"],
    ["guidance_map", 0.01, 0, "the gradients here add nothing: the guidance map drops it"],
    ["guidance_map", -0.01, -0.05, "sets both maps to zero here"],
    ["short", 0.01, 0.05, "Cell (5, 7), on the cat, adds +0.05 to the logit of “cat”."],
    ["short", 0.01, 1e-7, "adds nothing to the logit"],
  ]) {
    assert.ok(text(sentence(cell(mean, local), name)).includes(said), `${name}: ${said}`);
  }
});

test("a cell on a border is mostly on something", () => {
  const on = (cat, cup) => whereIs(cell(0, 0, [["cat", cat], ["cup", cup]]));
  assert.equal(on(0.7, 0.1), "Cell (5, 7), mostly on the cat");
  assert.equal(on(0.1, 0.2), "Cell (5, 7), mostly in the background");
  assert.equal(on(0, 0.99), "Cell (5, 7), on the cup");
  assert.equal(on(0, 0), "Cell (5, 7), in the background");
});
