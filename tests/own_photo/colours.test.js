import { test } from "node:test";

import { overlay } from "../../book/_static/own_photo/colours.js";
import { expected, same } from "./expected.js";

test("overlay", () => {
  for (const { shown, map, opacity, expected: wanted } of expected.overlays) {
    const rgba = overlay(shown, map, opacity, expected.colours);
    const what = `${shown.width} × ${shown.height}, opacity ${opacity}`;
    same(rgba.filter((_, at) => at % 4 !== 3), wanted, what);
    same(rgba.filter((_, at) => at % 4 === 3), new Uint8Array(map.length).fill(255), `alpha of ${what}`);
  }
});
