import assert from "node:assert/strict";
import { test } from "node:test";

import { digits, reach, signed } from "../../book/_static/own_photo/chart.js";
import { comparison, lesson } from "../../book/_static/own_photo/testing.js";

test("numbers have three digits and a true minus", () => {
  const values = [7.784, -0.004, -3.816, 12.345, -123.4, 9.996, 0];
  assert.deepEqual(values.map(digits), ["7.78", "0.00", "−3.82", "12.3", "−123", "10.0", "0.00"]);
  assert.deepEqual([1.5, -1.5, 0.001, 0].map(signed), ["+1.50", "−1.50", "0.00", "0.00"]);
});

test("an axis has all known values and 0 on it", () => {
  assert.deepEqual(reach([-2, undefined, 1]), [-2, 1]);
  assert.deepEqual(reach([3]), [0, 3]);
  assert.deepEqual(reach([undefined]), [0, 0]);
});

test("which of two areas counts more, by the ledger and by the network", () => {
  const own = { held: 2, change: -3 };
  assert.match(comparison(own, { held: 1, change: -0.5 }), /more than .* agrees: −3.00 logits, compared with −0.50\.$/);
  assert.match(comparison(own, { held: 1, change: -4 }), /more than .* disagrees: /);
  assert.match(comparison(own, { held: 5, change: -4 }), /less than .* agrees: /);
  for (const other of [undefined, { held: 1 }]) assert.match(comparison(own, other), /is running/);
});

test("a map passes if its strongest tenth counts more than a random one", () => {
  assert.match(lesson(-3, -1), /passes/);
  assert.match(lesson(-1, -1), /fails/);
  assert.equal(lesson(-3, undefined), "");
});
