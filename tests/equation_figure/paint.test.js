import assert from "node:assert/strict";
import { test } from "node:test";

import { colours, onRamp } from "../../gmcam/lab/static/equation_figure/paint.js";
import { expected } from "../own_photo/expected.js";

test("colours are read as they stand in a style sheet", () => {
  assert.deepEqual(colours("#ffdeb8 #8c2800"), [
    [255, 222, 184],
    [140, 40, 0],
  ]);
});

test("ramps are Python's", () => {
  for (const { stops, shares, tints } of expected.ramps) {
    shares.forEach((share, at) => {
      const found = onRamp(colours(stops), share);
      found.forEach((value, channel) => {
        assert.ok(Math.abs(value - tints[3 * at + channel]) <= 0.5 + 1e-9, `${share} on ${stops}`);
      });
    });
  }
});
