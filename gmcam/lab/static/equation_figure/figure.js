// The figure at work: which class, which map and which cell, by mouse, touch and keyboard.

import { unpack } from "./arrays.js";
import { body } from "./channels.js";
import { build } from "./controls.js";
import { paint, rampsOf } from "./paint.js";
import { listenToPointing } from "./pointing.js";
import { channelsIn, largest, mapsOf, meanGradients, places, reach, shareOn, strongest } from "./sums.js";
import { percent, sentence, signed } from "./words.js";

/** @import { Packed } from "./arrays.js" */
/** @import { Form } from "./controls.js" */
/** @import { Maps } from "./sums.js" */

/**
 * @typedef {object} Arrays
 * @property {[number, number]} cells rows and columns of a map
 * @property {number} channels
 * @property {Packed} M
 * @property {Record<string, number[]>} cover for each object the share of each cell that it covers
 * @property {number[]} bare cells that see no object
 * @property {[number, number] | null} seen height and width of what a cell sees, as shares of the image
 * @property {Record<string, {object: string, logit: number, probability: number, C: Packed}>} questions
 */

/** @typedef {{C: Float64Array, weights: Float64Array, maps: Maps, places: Record<string, number>}} Answer */

const CHANNELS_SHOWN = 6;
const FINEST = 0.12; // of the map's largest cell: bars have no finer scale, so quiet cells look quiet
const SPOKEN_AFTER = 500; // ms
const UNITS = 256; // on a side of the image

class Figure {
  /** @param {HTMLElement} root */
  constructor(root) {
    const { columns = "", maps = "", target = "", arrays = "" } = root.dataset;
    /** @type {Arrays} */
    this.data = JSON.parse(document.getElementById(arrays)?.textContent ?? "");
    const { cells, channels, cover, questions } = this.data;
    /** @type {Form} */
    this.form = {
      cells,
      columns: columns.split(" ").filter(Boolean),
      maps: maps.split(" "),
      short: "short" in root.dataset,
      targets: Object.keys(questions),
      objects: Object.keys(cover).length,
    };
    this.count = cells[0] * cells[1];
    this.M = unpack(this.data.M, channels, this.count);
    this.map = this.form.maps[this.form.maps.length - 1];
    this.last = this.map;
    this.signed = this.form.short;
    /** @type {Record<string, Answer>} */
    this.answers = {};
    const still = /** @type {HTMLElement} */ (root.querySelector(".gm-still"));
    this.live = build(still, this.form);
    still.after(this.live);
    this.stage = this.all(".gm-stage")[0];
    this.answer = this.answerFor(target);
    this.cell = this.answer.places.apart ?? this.answer.places.most;
    this.kept = this.cell;
    this.choose(target);
    this.listen();
    root.classList.add("is-live");
  }

  /** @param {string} selector */
  all(selector) {
    return /** @type {HTMLElement[]} */ ([...this.live.querySelectorAll(selector)]);
  }

  /** What follows from a class's gradients. @param {string} target */
  answerFor(target) {
    if (!this.answers[target]) {
      const C = unpack(this.data.questions[target].C, this.data.channels, this.count);
      const weights = meanGradients(C, this.count);
      const maps = mapsOf(this.M, C, weights, this.count);
      const name = this.last === "gmcam" ? "guidance_map" : this.last;
      const found = places(maps, name, this.data.bare);
      if (this.form.maps.length < 2) delete found.apart;
      this.answers[target] = { C, weights, maps, places: found };
    }
    return this.answers[target];
  }

  ramps() {
    return rampsOf(this.live, this.last === "aggregated_map" ? "activity" : "for");
  }

  /** Ask for a class. @param {string} target */
  choose(target) {
    this.target = target;
    this.answer = this.answerFor(target);
    const { object, logit, probability } = this.data.questions[target];
    for (const choice of this.all("[data-target]")) {
      if (choice.matches("button")) choice.ariaPressed = `${choice.dataset.target === target}`;
      else choice.hidden = choice.dataset.target !== target; // a ledger
    }
    const [chance, score] = this.all(".gm-score b");
    [chance.textContent, score.textContent] = [percent(probability), signed(logit)];
    for (const line of this.all(".gm-outline")) {
      line.classList.toggle("is-other", line.dataset.object !== object);
    }
    for (const chip of this.all("[data-place]")) {
      chip.hidden = !(/** @type {string} */ (chip.dataset.place) in this.answer.places);
    }
    for (const card of this.all(".gm-map")) {
      const map = this.answer.maps[/** @type {string} */ (card.dataset.map)];
      const shares = Object.entries(this.data.cover)
        .map(([each, cover]) => ({ each, share: shareOn(map, cover) }))
        .sort((a, b) => Number(b.each === object) - Number(a.each === object));
      card.querySelectorAll("i").forEach((strip, at) => {
        strip.style.width = `${100 * (shares[at]?.share ?? 0)}%`;
      });
      card.querySelectorAll(".gm-on").forEach((line, at) => {
        const value = document.createElement("b");
        value.textContent = percent(shares[at].share);
        line.replaceChildren(`on the ${shares[at].each} `, value);
      });
    }
    this.drawMaps();
    this.look(this.cell);
  }

  drawMaps() {
    const { above, below } = this.ramps();
    const draw = (/** @type {Element | null} */ canvas, /** @type {string} */ name) => {
      const map = this.answer.maps[name];
      const shown = this.signed ? map : map.map((value) => Math.max(value, 0));
      paint(/** @type {HTMLCanvasElement} */ (canvas), this.data.cells, shown, reach(shown), above, below);
    };
    draw(this.live.querySelector(".gm-heat"), this.map);
    for (const card of this.all("button.gm-map")) {
      const { map: name = "" } = card.dataset;
      card.ariaPressed = `${name === this.map}`;
      draw(card.querySelector("canvas"), name);
    }
  }

  /** Show a cell. @param {number} cell */
  look(cell) {
    this.cell = cell;
    const { cells, cover } = this.data;
    const [row, column] = [Math.floor(cell / cells[1]), cell % cells[1]];
    this.square(row, column);
    const { maps, places: known } = this.answer;
    for (const chip of this.all("[data-place]")) {
      chip.ariaPressed = `${known[/** @type {string} */ (chip.dataset.place)] === cell}`;
    }
    const values = Object.fromEntries(Object.entries(maps).map(([name, map]) => [name, map[cell]]));
    const peaks = Object.fromEntries(Object.entries(maps).map(([name, map]) => [name, largest(map)]));
    const parts = sentence(
      {
        target: /** @type {string} */ (this.target),
        row,
        column,
        values,
        peaks,
        cover: Object.entries(cover).map(([name, shares]) => [name, shares[cell]]),
      },
      this.form.short ? "short" : this.last,
    );
    const spans = parts.map(([kind, text]) => {
      const span = document.createElement("span");
      span.className = kind && `gm-${kind}`;
      span.textContent = text;
      return span;
    });
    this.all(".gm-read")[0].replaceChildren(...spans);
    for (const card of this.all(".gm-map")) {
      const { map: name = "" } = card.dataset;
      const here = /** @type {HTMLElement} */ (card.querySelector(".gm-here"));
      here.textContent = percent(Math.max(values[name], 0) / (peaks[name] || 1));
    }
    if (!this.form.short) this.tabulate(row, column);
  }

  /**
   * The picked cell, and what it sees.
   * @param {number} row
   * @param {number} column
   */
  square(row, column) {
    const { cells, seen } = this.data;
    const [height, width] = cells.map((count) => UNITS / count);
    const [middle, centre] = [(row + 0.5) * height, (column + 0.5) * width];
    const [seenHeight, seenWidth] = seen ? seen.map((share) => share * UNITS) : [0, 0];
    for (const [selector, tall, wide] of /** @type {[string, number, number][]} */ ([
      [".gm-halo", height, width],
      [".gm-cell", height, width],
      [".gm-seen", seenHeight, seenWidth],
    ])) {
      const box = { x: centre - wide / 2, y: middle - tall / 2, width: wide, height: tall };
      for (const [name, value] of Object.entries(box)) {
        this.live.querySelector(selector)?.setAttribute(name, `${value}`);
      }
    }
  }

  /**
   * @param {number} row
   * @param {number} column
   */
  tabulate(row, column) {
    const { C, weights, maps } = this.answer;
    const { columns } = this.form;
    const added = columns.filter((name) => ["m", "Mw", "Ml", "MC"].includes(name));
    const rows = strongest(channelsIn(this.M, C, weights, this.count, this.cell), added, CHANNELS_SHOWN);
    const floors = {
      m: FINEST * reach(maps.aggregated_map),
      Mw: FINEST * reach(maps.cam),
      Ml: 1000 * FINEST * reach(maps.grad_cam),
      MC: 1000 * FINEST * reach(maps.guidance_map),
      w: reach(weights) * this.count,
      lambda: 1000 * reach(weights),
    };
    const [rowCount, columnCount] = this.data.cells;
    const [left, top] = [(column + 0.5) / columnCount, (row + 0.5) / rowCount].map((share) => 100 * share);
    const table = this.all(".gm-channels tbody")[0];
    table.innerHTML = body(columns, rows, floors, this.data.channels, `left:${left}%;top:${top}%`);
    const ramps = this.ramps();
    for (const canvas of /** @type {NodeListOf<HTMLCanvasElement>} */ (table.querySelectorAll("canvas"))) {
      const { map = "", k = "" } = canvas.dataset;
      const [from, to] = [Number(k) * this.count, (Number(k) + 1) * this.count];
      const own = (map === "M" ? this.M : C).subarray(from, to);
      const shown = map === "mean" ? own.map(() => weights[Number(k)]) : own;
      const [above, below] = map === "M" ? [ramps.activity, ramps.activity] : [ramps.positive, ramps.negative];
      paint(canvas, this.data.cells, shown, reach(own), above, below);
    }
  }

  /** Show a cell until another one is kept, and say so. @param {number} cell */
  keep(cell) {
    this.kept = cell;
    this.look(cell);
    this.speak();
  }

  speak() {
    clearTimeout(this.timer);
    this.timer = setTimeout(() => {
      this.all(".gm-spoken")[0].textContent = this.all(".gm-read")[0].textContent;
    }, SPOKEN_AFTER);
  }

  listen() {
    for (const choice of this.all("button[data-target]")) {
      choice.addEventListener("click", () => {
        this.choose(/** @type {string} */ (choice.dataset.target));
        this.speak();
      });
    }
    for (const card of this.all("button.gm-map")) {
      card.addEventListener("click", () => {
        this.map = /** @type {string} */ (card.dataset.map);
        this.drawMaps();
      });
    }
    for (const chip of this.all("[data-place]")) {
      chip.addEventListener("click", () => {
        this.keep(this.answer.places[/** @type {string} */ (chip.dataset.place)]);
      });
    }
    this.all(".gm-relu input")[0]?.addEventListener("change", ({ target }) => {
      this.signed = /** @type {HTMLInputElement} */ (target).checked;
      this.drawMaps();
    });
    listenToPointing(this.stage, this.data.cells, {
      kept: () => this.kept,
      look: (cell) => cell === this.cell || this.look(cell),
      keep: (cell) => this.keep(cell),
    });
    // A page that changes between light and dark.
    const watcher = new MutationObserver(() => this.choose(/** @type {string} */ (this.target)));
    const attributeFilter = ["data-theme", "data-jp-theme-light", "theme"];
    for (const part of [document.documentElement, document.body]) watcher.observe(part, { attributeFilter });
  }
}

/** Every figure of the page that is still a still, and whose arrays are there. */
export function start() {
  for (const root of /** @type {NodeListOf<HTMLElement>} */ (
    document.querySelectorAll(".gm-figure:not(.is-live)")
  )) {
    if (document.getElementById(root.dataset.arrays ?? "")) new Figure(root);
  }
}
