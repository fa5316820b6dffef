// "Test the map": parts of the image are covered, the signed ledger forecasts the change of the logit, and
// the network measures it.

import { listenToBrush } from "./brush.js";
import { digits, fill, panel, reach, signed } from "./chart.js";
import { opaque } from "./colours.js";
import * as covering from "./covering.js";
import { put } from "./entries.js";
import { shares } from "./saliency.js";
import { percent } from "./words.js";

/** @import { Answer, Description, Layer } from "./explainer.js" */
/** @import { CellMap } from "./saliency.js" */
/** @import { Bar } from "./chart.js" */

/**
 * A covered image, and the logits that the network then gives.
 * @typedef {{mask: Uint8Array, pixels: Uint8Array, logits?: Float32Array, other?: Trial}} Trial
 */

/**
 * What is explained: `key` changes with the image and the network.
 * @typedef {{key: string, answer: Answer, network: Description, layer: Layer, method: string}} Given
 */

const MOST = 50; // steps that can be undone
const WRONG = "A wrong forecast need not mean a wrong map: covered cells still have activations.";

export class Testing {
  /** @type {Given | undefined} */ #given;
  /** @type {Map<string, Uint8Array>} */ #fills = new Map();
  /** @type {Trial | undefined} */ #trial;
  /** @type {Trial | undefined} */ #stroke;
  /** @type {(Trial | undefined)[]} */ #history = [];
  /** @type {Map<string, Trial>} */ #rows = new Map();
  /** @type {Set<Trial>} */ #running = new Set();
  #active = false;

  /**
   * @param {HTMLElement} root
   * @param {(name: string) => any} part finds an element of the page by its name
   * @param {(pixels: Uint8Array, network: Description) => Promise<Float32Array>} measure the logits of a
   *   covered image
   */
  constructor(root, part, measure) {
    this.root = root;
    this.part = part;
    this.measure = measure;
    this.moveCursor = listenToBrush(part("frame"), part("brush"), {
      grid: () => (this.#active && this.#given ? { cells: this.#shape, size: this.#size } : undefined),
      paint: (x, y) => this.#paint(x, y),
      finish: () => this.#finish(),
    });
    for (const row of this.#tableRows()) {
      const button = row.querySelector("button");
      button?.addEventListener("click", () => this.#experiment(row.dataset.experiment ?? ""));
    }
    for (const input of root.querySelectorAll('input[name="own-photo-brush"]')) {
      input.addEventListener("change", this.moveCursor);
    }
    for (const input of root.querySelectorAll('input[name="own-photo-fill"]')) {
      input.addEventListener("change", () => {
        this.#rows.clear();
        this.#update();
      });
    }
    part("undo").addEventListener("click", () => this.#return(this.#history.pop()));
    part("clear").addEventListener("click", () => {
      this.#history.push(this.#trial);
      this.#return(undefined);
    });
  }

  /** @param {boolean} active whether the brush is in use */
  activate(active) {
    this.#active = active;
    const frame = this.part("frame");
    if (active) {
      const label = "Brush: arrow keys move it, the space bar covers what is under it";
      Object.assign(frame, { tabIndex: 0, role: "application", ariaLabel: label });
    } else for (const name of ["tabindex", "role", "aria-label"]) frame.removeAttribute(name);
    this.moveCursor();
    this.#update();
    this.#complete(this.#trial);
  }

  /** @param {Given} given */
  show(given) {
    const before = this.#given;
    this.#given = given;
    if (before?.key !== given.key) {
      this.#trial = this.#stroke = undefined;
      this.#fills.clear();
      this.#history = [];
    }
    const same = before?.key === given.key && before.layer === given.layer;
    if (!same || before.method !== given.method || before.answer.target.index !== given.answer.target.index) {
      this.#rows.clear();
    }
    if (!same) {
      for (const trial of [this.#trial, ...this.#history]) if (trial) delete trial.other;
      this.moveCursor();
    }
    this.#update();
    this.#complete(this.#trial);
  }

  /** Rows and columns of the layer's map. @returns {[number, number]} */
  get #shape() {
    return this.#ledger.shape;
  }

  get #size() {
    return Number(this.#checked("brush"));
  }

  /** Σ_k C_k ⊙ M_k, signed. @returns {CellMap} */
  get #ledger() {
    return /** @type {Given} */ (this.#given).answer.raw.hires_cam;
  }

  /** @param {string} name */
  #checked(name) {
    const input = this.root.querySelector(`input[name="own-photo-${name}"]:checked`);
    return /** @type {HTMLInputElement} */ (input).value;
  }

  /** @returns {NodeListOf<HTMLElement>} */
  #tableRows() {
    return this.root.querySelectorAll("[data-experiment]");
  }

  /** The image as the chosen fill has it. */
  get #substitute() {
    const name = this.#checked("fill");
    const { shown } = /** @type {Given} */ (this.#given).answer;
    const filled = this.#fills.get(name) ?? covering.FILLS[name](shown);
    this.#fills.set(name, filled);
    return filled;
  }

  /**
   * @param {number} x
   * @param {number} y
   */
  #paint(x, y) {
    const { shown } = /** @type {Given} */ (this.#given).answer;
    const side = shown.width;
    this.#stroke ??= {
      mask: Uint8Array.from(this.#trial?.mask ?? new Uint8Array(side * side)),
      pixels: Uint8Array.from(this.#trial?.pixels ?? shown.data),
    };
    const dab = new Uint8Array(side * side);
    const size = Math.max(1, Math.round((side * this.#size) / this.#shape[1]));
    covering.stamp(dab, side, { x: x * side, y: y * side }, size);
    this.#stroke.pixels = covering.covered(this.#stroke.pixels, dab, this.#substitute);
    dab.forEach((one, pixel) => {
      if (one && this.#stroke) this.#stroke.mask[pixel] = 1;
    });
    this.#update();
  }

  #finish() {
    const stroke = this.#stroke;
    this.#stroke = undefined;
    if (stroke) this.#start(stroke);
  }

  /** @param {Trial} trial */
  #start(trial) {
    this.#history.push(this.#trial);
    this.#history.splice(0, this.#history.length - MOST);
    this.#return(trial);
  }

  /** @param {Trial | undefined} trial */
  #return(trial) {
    this.#trial = trial;
    this.#update();
    this.#complete(trial);
  }

  /**
   * A trial of the image with the masked part covered.
   * @param {Uint8Array} mask
   * @returns {Trial}
   */
  #covered(mask) {
    const { data } = /** @type {Given} */ (this.#given).answer.shown;
    return { mask, pixels: covering.covered(data, mask, this.#substitute) };
  }

  /** @param {string} name */
  #experiment(name) {
    if (!this.#given) return;
    const { answer, method } = this.#given;
    const side = answer.shown.width;
    const brightest = covering.maskOf(covering.brightestTenth(shares(answer.raw[method])), this.#shape, side);
    const mask = {
      brightest,
      random: covering.elsewhere(brightest, this.#shape),
      rest: brightest.map((one) => 1 - one),
    }[name];
    if (!mask) return;
    const trial = this.#covered(mask);
    this.#rows.set(name, trial);
    this.#start(trial);
  }

  /**
   * Runs the network on what a trial lacks.
   * @param {Trial | undefined} trial
   */
  async #complete(trial) {
    const given = this.#given;
    if (!trial || !given || !this.#active) return;
    if (!given.layer.cam) trial.other ??= this.#covered(covering.elsewhere(trial.mask, this.#shape));
    for (const one of [trial, trial.other]) {
      if (!one || one.logits || this.#running.has(one)) continue;
      this.#running.add(one);
      try {
        one.logits = await this.measure(one.pixels, given.network);
      } catch {
        return; // the page reports it
      } finally {
        this.#running.delete(one);
      }
      this.#update();
    }
    const complete = [trial, trial.other].every((one) => !one || one.logits);
    if (complete) this.root.dispatchEvent(new CustomEvent("covered", { detail: trial }));
  }

  /** Shows what is covered, the forecast and the measurement. */
  #update() {
    if (!this.#given) return;
    const trial = this.#stroke ?? this.#trial;
    this.#drawCover(trial);
    this.part("undo").disabled = this.#history.length === 0;
    this.part("clear").disabled = !trial;
    this.#writeOutcome(trial);
    this.#writeChart();
  }

  /** @param {Trial | undefined} trial */
  #drawCover(trial) {
    const { shown } = /** @type {Given} */ (this.#given).answer;
    const canvas = this.part("canvas-cover");
    canvas.hidden = !trial || !this.#active;
    if (!trial || canvas.hidden) return;
    const rgba = opaque({ ...shown, data: trial.pixels });
    for (let pixel = 0; pixel < trial.mask.length; pixel++) rgba[4 * pixel + 3] = 255 * trial.mask[pixel];
    put(canvas, rgba, shown);
  }

  /**
   * Forecast and measurement for a mask: logits held by the cells under it, and the change of the logit.
   * @param {Trial} trial
   */
  #numbers(trial) {
    const { answer, network } = /** @type {Given} */ (this.#given);
    const { index } = answer.target;
    const held = covering.under(this.#ledger, trial.mask);
    const { logits } = trial;
    return {
      held,
      change: logits && logits[index] - answer.logits[index],
      logit: logits?.[index],
      chance: logits && covering.probability(logits, index, network.output),
      forecastChance: covering.probability(answer.logits, index, network.output, -held),
    };
  }

  /** @param {Trial | undefined} trial */
  #writeOutcome(trial) {
    const { answer, layer } = /** @type {Given} */ (this.#given);
    const { index, probability } = answer.target;
    const [verdict, bars] = [this.part("verdict"), this.part("bars")];
    if (!trial) {
      verdict.textContent = "Nothing is covered yet.";
      bars.replaceChildren();
      return;
    }
    const now = answer.logits[index];
    const own = this.#numbers(trial);
    const logitNote = `now ${digits(now)}`;
    const chanceNote = `now ${percent(probability)}`;
    bars.style.setProperty("--panels", layer.cam ? "2" : "3");
    const chances = { axis: /** @type {[number, number]} */ ([0, 1]), mark: probability };
    if (layer.cam) {
      const total = this.#ledger.data.reduce((sum, value) => sum + value, 0);
      const measured = own.change === undefined ? "…" : signed(own.change);
      verdict.textContent = `Forecast ${signed(-own.held)} logits, measured ${measured}.`;
      bars.replaceChildren(
        panel("Logit", logitNote, pair(now - own.held, own.logit, digits), { mark: now }),
        panel("Probability", chanceNote, pair(own.forecastChance, own.chance, percent), chances),
        note(
          `The ledger's cells add up to ${digits(total)} logits. With the bias, ${digits(now - total)}, ` +
            "this is the logit. The forecast of the probability leaves the other logits as they were. " +
            WRONG,
        ),
      );
      return;
    }
    const other = trial.other && this.#numbers(trial.other);
    verdict.textContent = comparison(own, other);
    const two = (
      /** @type {(value: number) => string} */ text,
      /** @type {number | undefined} */ here,
      /** @type {number | undefined} */ there,
    ) => [entry("covered", here, text, "measured"), entry("elsewhere", there, text, "forecast")];
    bars.replaceChildren(
      panel("Ledger", "of the area", two(signed, own.held, other?.held)),
      panel("Logit", logitNote, two(digits, own.logit, other?.logit), { mark: now }),
      panel("Probability", chanceNote, two(percent, own.chance, other?.chance), chances),
      note(
        "At this layer the forecast is only an order: whether the covered area counts more than an area of " +
          `the same size, or all that is left, drawn at random from the rest. ${WRONG}`,
      ),
    );
  }

  #writeChart() {
    const { layer, answer, method } = /** @type {Given} */ (this.#given);
    const known = new Map([...this.#rows].map(([name, trial]) => [name, this.#numbers(trial)]));
    const values = [...known.values()];
    const forecasts = values.map(({ held }) => (layer.cam ? -held : held));
    const measured = values.map(({ change }) => change);
    const common = reach([...forecasts, ...measured]);
    /** @type {[[number, number], [number, number]]} */
    const axes = layer.cam ? [common, common] : [reach(forecasts), reach(measured)];
    const empty = answer.raw[method].data.every((value) => value <= 0);
    for (const row of this.#tableRows()) {
      const button = /** @type {HTMLButtonElement} */ (row.querySelector("button"));
      const cell = /** @type {Element} */ (row.querySelector("td"));
      button.disabled = empty;
      const numbers = known.get(row.dataset.experiment ?? "");
      cell.replaceChildren();
      if (!numbers) continue;
      const { held, change, chance } = numbers;
      const measuredText = () => `${signed(change ?? 0)}, ${percent(chance ?? 0)}`;
      fill(
        cell,
        [
          entry(layer.cam ? "forecast" : "ledger", layer.cam ? -held : held, signed, "forecast"),
          entry("measured", change, measuredText, "measured"),
        ],
        axes,
      );
    }
    this.part("chart-legend").textContent = layer.cam
      ? "forecast (pale) and measured (dark), with the probability after covering"
      : "measured (dark), and the ledger of the area (pale, on another scale)";
    this.part("lesson").textContent = empty
      ? "This map is empty, so no cell is the strongest."
      : lesson(known.get("brightest")?.change, known.get("random")?.change);
  }
}

/**
 * A forecast and a measurement as bars.
 * @param {number} forecast
 * @param {number | undefined} measured
 * @param {(value: number) => string} text
 */
function pair(forecast, measured, text) {
  return [entry("forecast", forecast, text, "forecast"), entry("measured", measured, text, "measured")];
}

/**
 * @param {string} label
 * @param {number | undefined} value
 * @param {(value: number) => string} text
 * @param {"forecast" | "measured"} kind
 * @returns {Bar}
 */
function entry(label, value, text, kind) {
  return { label, value, text: value === undefined ? "" : text(value), kind };
}

/** @param {string} text */
function note(text) {
  const element = document.createElement("p");
  element.className = "own-photo-note";
  element.textContent = text;
  return element;
}

/**
 * Which of two areas counts more by the ledger, and which by the network.
 * @param {{held: number, change?: number}} own
 * @param {{held: number, change?: number} | undefined} other
 */
export function comparison(own, other) {
  if (!other || own.change === undefined || other.change === undefined) return "The network is running…";
  const more = own.held > other.held;
  const agrees = more === own.change < other.change;
  return (
    `The forecast is that the covered area counts ${more ? "more" : "less"} than the area elsewhere. ` +
    `The measurement ${agrees ? "agrees" : "disagrees"}: ${signed(own.change)} logits, compared with ` +
    `${signed(other.change)}.`
  );
}

/**
 * What the first two experiments say about the map.
 * @param {number | undefined} brightest the change of the logit without the brightest tenth
 * @param {number | undefined} random without a random one
 */
export function lesson(brightest, random) {
  if (brightest === undefined || random === undefined) return "";
  return brightest < random
    ? "Here the map passes: its strongest tenth counts more than a random one."
    : "Here the map fails: its strongest tenth counts no more than a random one.";
}
