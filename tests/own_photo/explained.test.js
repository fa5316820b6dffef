import assert from "node:assert/strict";
import { test } from "node:test";

import { METHODS, postprocess } from "../../book/_static/own_photo/saliency.js";
import { close, expected, stack } from "./expected.js";

test("maps of explain", () => {
  assert.ok(expected.explained.length > 0);
  for (const { M, C, size, maps } of expected.explained) {
    for (const [method, value] of Object.entries(maps)) {
      const { map, empty } = postprocess(METHODS[method].compute(stack(M), stack(C)), size);
      assert.equal(empty, value.empty, method);
      close(map, value.map, 1e-5, `${method} ${M.shape}`);
    }
  }
});
