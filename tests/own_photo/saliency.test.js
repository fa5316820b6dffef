import assert from "node:assert/strict";
import { test } from "node:test";

import * as saliency from "../../book/_static/own_photo/saliency.js";
import { close, expected, same, stack } from "./expected.js";

const { METHODS, normalise, postprocess, smooth, upsample } = saliency;

test("the numbers of the docstring of gmcam/equations.py", () => {
  const M = { data: Float32Array.of(1, 2, 0, 3, 1, 0, 2, 1), shape: [2, 2, 2] };
  const C = { data: Float32Array.of(2, 0, 1, 1, -3, 0, 0, -1), shape: [2, 2, 2] };
  assert.deepEqual([...saliency.channelWeights(C)], [1, -1]);
  assert.deepEqual([...saliency.classMap(M, [1, -1]).data], [0, 2, -2, 2]);
  const maps = Object.values(METHODS).map(({ compute }) => [...compute(M, C).data]);
  assert.deepEqual(maps, [
    [0, 2, -2, 2],
    [0, 2, 0, 2],
    [-1, 0, 0, 2],
    [0, 0, 0, 2],
    [0, 0, 0, 4],
  ]);
});

test("equations", () => {
  for (const { M, C, expected: outputs } of expected.stacks) {
    const [maps, gradients] = [stack(M), stack(C)];
    const { channelWeights, classMap, ...pairs } = outputs;
    const weights = saliency.channelWeights(gradients);
    close(weights, channelWeights, 1e-12, `channelWeights ${M.shape}`);
    const map = saliency.classMap(maps, weights);
    assert.deepEqual(map.shape, M.shape.slice(1));
    close(map.data, classMap, 1e-6, `classMap ${M.shape}`);
    for (const [name, value] of Object.entries(pairs)) {
      close(saliency[name](maps, gradients).data, value, 1e-6, `${name} ${M.shape}`);
    }
  }
});

test("methods have Python's order and titles", () => {
  const titles = Object.entries(METHODS).map(([name, { title }]) => [name, title]);
  assert.deepEqual(titles, Object.entries(expected.titles));
});

test("smoothing, normalising, up-sampling, and all three", () => {
  for (const { raw, size, sigma, ...steps } of expected.steps) {
    const map = stack(raw);
    const what = `${raw.shape} to ${size}, sigma ${sigma}`;
    close(smooth(map, sigma).data, steps.smooth, 1e-6, `smooth ${what}`);
    const normalised = normalise(map);
    assert.equal(normalised.empty, steps.normalise.empty, `empty ${what}`);
    close(normalised.map.data, steps.normalise.map, 1e-6, `normalise ${what}`);
    const fine = upsample(map, size);
    assert.deepEqual(fine.shape, size);
    close(fine.data, steps.upsample, 1e-5, `upsample ${what}`);
    const result = postprocess(map, size, sigma);
    assert.equal(result.empty, steps.postprocess.empty, `empty map ${what}`);
    close(result.map, steps.postprocess.map, 1e-5, `postprocess ${what}`);
    assert.ok(result.map.every((value) => value >= 0 && value <= 1));
    if (sigma === 0.5) same(postprocess(map, size).map, result.map, `default ${what}`);
  }
});

test("a map is flat up to a range of eight units in the last place", () => {
  const empty = (units) => normalise({ data: Float32Array.of(1, 1 + units * 2 ** -23), shape: [1, 2] }).empty;
  assert.deepEqual([0, 1, 8, 9].map(empty), [true, true, true, false]);
});

test("a map that float32 cannot hold is refused", () => {
  for (const values of [[0, NaN], [NaN, 1], [Infinity, 0], [-3e38, 3e38]]) {
    const raw = { data: Float32Array.from(values), shape: [1, 2] };
    assert.throws(() => normalise(raw), RangeError, `${values}`);
  }
});

test("cells are drawn as shares of the maximum", () => {
  const drawn = (...values) => {
    const { data } = saliency.shares({ data: Float32Array.from(values), shape: [1, values.length] });
    return [...data];
  };
  assert.deepEqual(drawn(-2, 1, 4), [0, 0.25, 1]);
  assert.deepEqual(drawn(-2, 0), [0, 0]);
});
