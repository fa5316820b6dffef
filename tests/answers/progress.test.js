import assert from "node:assert/strict";
import { test } from "node:test";

import { Progress, openStorage } from "../../book/_static/answers/progress.js";

const KEY = "gmcam.answers";

/** A storage as the browser's, of one tab or of two. */
const storage = (text) => {
  const items = new Map(text === undefined ? [] : [[KEY, text]]);
  return { getItem: (key) => items.get(key) ?? null, setItem: (key, value) => void items.set(key, value) };
};

test("right answers are kept, and cleared by name", () => {
  const shared = storage();
  const [one, other] = [new Progress(shared), new Progress(shared)];
  one.keep("cam.1", "2,335");
  other.keep("cam.3", "c");
  other.keep("explorer.1", "256");
  const later = new Progress(shared);
  const names = ["cam.1", "cam.3", "explorer.1"];
  assert.deepEqual(names.map((name) => later.answerTo(name)), ["2,335", "c", "256"]);
  one.clear(["cam.1", "cam.3"]); // what the other tab has added stays, unless it is cleared
  assert.deepEqual(new Progress(shared).answers, { "explorer.1": "256" });
  assert.ok(one.lasting);
});

test("what is stored but no progress of ours is ignored", () => {
  for (const text of ["{", "null", "[1]", "7", '{"cam.1": 3}']) {
    const progress = new Progress(storage(text));
    assert.equal(progress.answerTo("cam.1"), undefined);
    progress.keep("cam.1", "1");
    assert.equal(progress.answerTo("cam.1"), "1");
  }
});

test("where storage is blocked or full, answers last as long as the page", () => {
  const refuse = () => {
    throw new Error("blocked");
  };
  const full = { ...storage(), setItem: refuse };
  for (const blocked of [undefined, full, { getItem: refuse, setItem: refuse }]) {
    const progress = new Progress(blocked);
    progress.keep("cam.1", "1");
    progress.keep("cam.2", "2");
    progress.clear(["cam.2"]);
    assert.deepEqual(progress.answers, { "cam.1": "1" });
    assert.equal(progress.lasting, false);
  }
});

test("a browser that refuses its storage has none", () => {
  Object.defineProperty(globalThis, "localStorage", {
    configurable: true,
    get: () => {
      throw new Error("SecurityError");
    },
  });
  assert.equal(openStorage(), undefined);
});
