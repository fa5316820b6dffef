import assert from "node:assert/strict";
import { test } from "node:test";

import { unpack } from "../../gmcam/lab/static/equation_figure/arrays.js";
import * as sums from "../../gmcam/lab/static/equation_figure/sums.js";
import { close, expected } from "../own_photo/expected.js";

const { channelsIn, mapsOf, meanGradients, places, shareOn, strongest } = sums;

test("the numbers of the docstring of gmcam/equations.py", () => {
  const M = Float64Array.of(1, 2, 0, 3, 1, 0, 2, 1);
  const C = Float64Array.of(2, 0, 1, 1, -3, 0, 0, -1);
  const weights = meanGradients(C, 4);
  assert.deepEqual([...weights], [1, -1]);
  const maps = mapsOf(M, C, weights, 4);
  assert.deepEqual([...maps.aggregated_map], [2, 2, 2, 4]);
  assert.deepEqual([...maps.grad_cam], [0, 2, -2, 2]);
  assert.deepEqual([...maps.cam], [0, 8, -8, 8]);
  assert.deepEqual([...maps.guidance_map], [-1, 0, 0, 2]);
  close(maps.gmcam, [0, 0, 0, 4], 0, "GMCAM");
});

test("maps, shares and places of whole networks", () => {
  for (const { name, M, channels, cells, bare, classes, tolerance } of expected.subjects) {
    const maps = unpack(M, channels, cells);
    for (const [target, { C, maps: wanted, shares, found }] of Object.entries(classes)) {
      const gradients = unpack(C, channels, cells);
      const computed = mapsOf(maps, gradients, meanGradients(gradients, cells), cells);
      for (const [method, map] of Object.entries(wanted)) {
        close(computed[method], map, tolerance, `${method} of ${target}, ${name}`);
      }
      for (const [method, cover, share] of shares) {
        assert.ok(Math.abs(shareOn(computed[method], cover) - share) < 1e-9, `${method} of ${target}`);
      }
      for (const [method, cellsByPlace] of Object.entries(found)) {
        assert.deepEqual(places(computed, method, bare), cellsByPlace, `${method} of ${target}, ${name}`);
      }
    }
  }
});

test("the channels of a cell add up to its maps, and the strongest are shown", () => {
  const [{ M, channels, cells, classes }] = expected.subjects;
  const maps = unpack(M, channels, cells);
  const C = unpack(classes.cat.C, channels, cells);
  const weights = meanGradients(C, cells);
  const computed = mapsOf(maps, C, weights, cells);
  for (let cell = 0; cell < cells; cell += 17) {
    const rows = channelsIn(maps, C, weights, cells, cell);
    const { shown, others, active, total } = strongest(rows, ["Ml", "MC"], 6);
    close([total.Ml, total.MC], [1000 * computed.grad_cam[cell], 1000 * computed.guidance_map[cell]], 1e-9, "");
    for (const name of ["Ml", "MC"]) {
      const sum = shown.reduce((all, row) => all + row[name], others[name]);
      assert.ok(Math.abs(sum - total[name]) < 1e-9);
    }
    const left = rows.filter((row) => !shown.includes(row));
    assert.equal(active, left.filter(({ m }) => m !== 0).length);
    const [alone] = strongest(rows, ["Ml"], 1).shown;
    assert.equal(Math.abs(alone.Ml), Math.max(...rows.map(({ Ml }) => Math.abs(Ml))));
  }
});

test("an empty map has no share, and no place without such cells", () => {
  const nothing = new Float64Array(4);
  assert.equal(shareOn(nothing, [1, 1, 0, 0]), 0);
  const maps = { grad_cam: nothing, guidance_map: nothing };
  assert.deepEqual(places(maps, "grad_cam", []), { most: 0, least: 0 });
});
