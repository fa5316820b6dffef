import { test } from "node:test";

import { unpack } from "../../gmcam/lab/static/equation_figure/arrays.js";
import { expected, same } from "../own_photo/expected.js";

test("arrays are those that Python unpacks", () => {
  for (const { packed, maps } of expected.packs) {
    const [channels, ...sides] = maps.shape;
    const cells = sides.reduce((product, side) => product * side, 1);
    same(unpack(packed, channels, cells), maps, `${packed[0]} ${maps.shape}`);
  }
});
