import assert from "node:assert/strict";
import { test } from "node:test";

import { opaque, overlay, rampOf, smaller } from "../../book/_static/own_photo/colours.js";
import { expected, same, stack } from "./expected.js";

test("overlay, byte for byte", () => {
  const ramp = rampOf(expected.ramp);
  assert.equal(ramp.length, 5);
  for (const { shown, map, expected: wanted } of expected.overlays) {
    const rgba = overlay(shown, stack(map), ramp);
    const what = `${map.shape} over ${shown.width} × ${shown.height}`;
    same(rgba.filter((_, at) => at % 4 !== 3), wanted, what);
    assert.ok(rgba.every((value, at) => at % 4 !== 3 || value === 255), `alpha of ${what}`);
  }
});

test("an image without a map, and a smaller one", () => {
  const shown = { data: Uint8Array.from({ length: 18 }, (_, at) => at), width: 3, height: 2 };
  assert.deepEqual([...opaque(shown)].slice(0, 8), [0, 1, 2, 255, 3, 4, 5, 255]);
  const { data, width, height } = smaller(shown, 2);
  assert.deepEqual([[...data], width, height], [[0, 1, 2, 6, 7, 8], 2, 1]);
});
