// What Python expects, and how closely it has to be met.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";

const TYPES = { Uint8Array, Float32Array, Float64Array };

/** Python's values; an array becomes a typed one, with its shape as a property. */
export const expected = JSON.parse(readFileSync(process.env.EXPECTED, "utf8"), (_, value) => {
  if (!value?.base64 && value?.base64 !== "") return value;
  const bytes = new Uint8Array(Buffer.from(value.base64, "base64"));
  return Object.assign(new TYPES[value.type](bytes.buffer), { shape: value.shape });
});

/** Such an array as the modules take it. */
export const stack = (array) => ({ data: array, shape: array.shape });

/** Bytes that are the same, or the first that is not. */
export function same(found, wanted, what) {
  assert.equal(found.length, wanted.length, `${what}: length`);
  const differing = found.findIndex((value, at) => value !== wanted[at]);
  assert.equal(differing, -1, `${what}: ${found[differing]} at ${differing}, not ${wanted[differing]}`);
}

/** Values that differ by at most `tolerance` of the largest. */
export function close(found, wanted, tolerance, what) {
  assert.equal(found.length, wanted.length, `${what}: length`);
  const size = wanted.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const differing = found.findIndex((value, at) => !(Math.abs(value - wanted[at]) <= tolerance * size));
  assert.equal(differing, -1, `${what}: ${found[differing]} at ${differing}, not ${wanted[differing]}`);
}
