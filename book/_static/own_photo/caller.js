// The page's end of the worker. It answers one job at a time; of those that come meanwhile only the last is
// wanted. A worker that has run out of memory, or that the browser put to sleep for good, is dismissed, and
// another one hired with the next job.

/** @import { Answer, Job } from "./explainer.js" */

/** @typedef {Omit<Job, "id">} Wish */

/**
 * @typedef {object} Listeners
 * @property {(progress: string) => void} progress
 * @property {(answer: Answer, wish: Wish) => void} answer
 * @property {(message: string, wish: Wish) => void} fault
 */

const PATIENCE = 5000; // milliseconds: a pass over a large network on an old telephone takes two seconds

export class Caller {
  /** @type {Worker | undefined} */ #worker;
  /** @type {{id: number, wish: Wish} | undefined} */ #current;
  /** @type {Wish | undefined} */ #next;
  #count = 0;
  /** @type {number | undefined} */ #waiting;

  /**
   * @param {string} address of explainer.js
   * @param {Map<string, string> | undefined} inside addresses by name, in the version that is one file
   * @param {Listeners} listeners
   */
  constructor(address, inside, listeners) {
    this.address = address;
    this.inside = inside;
    this.listeners = listeners;
    document.addEventListener("visibilitychange", () => this.#wake());
  }

  /** @param {Wish} wish */
  ask(wish) {
    if (this.#current) this.#next = wish;
    else this.#send(wish);
  }

  get busy() {
    return this.#current !== undefined;
  }

  /** @param {Wish} wish */
  #send(wish) {
    this.#current = { id: ++this.#count, wish };
    this.#worker ??= this.#hire();
    this.#worker.postMessage({ id: this.#count, ...wish });
  }

  #hire() {
    const worker = new Worker(this.address, { type: "module" });
    worker.onmessage = ({ data }) => this.#hear(data);
    worker.onerror = (event) => {
      event.preventDefault();
      const { message } = event; // there is none where the worker, or a module of its, could not be loaded
      if (message) this.#fail(`The part of this page that computes has stopped (${message}).`);
      else this.#fail("A part of this page could not be loaded; look at your connection and try again.");
    };
    if (this.inside) worker.postMessage({ inside: this.inside });
    return worker;
  }

  #dismiss() {
    clearTimeout(this.#waiting);
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  /** @param {any} message */
  #hear(message) {
    clearTimeout(this.#waiting);
    if (!this.#current || message.id !== this.#current.id) return;
    const { wish } = this.#current;
    if (message.progress) this.listeners.progress(message.progress);
    else if (message.fault) this.#fail(message.fault, message.spent);
    else if (message.maps) {
      this.#finish();
      this.listeners.answer(message, wish);
    }
  }

  /**
   * @param {string} message
   * @param {boolean} [spent] whether the worker's memory is of no more use
   */
  #fail(message, spent = true) {
    if (spent) this.#dismiss();
    const wish = this.#current?.wish;
    this.#finish();
    if (wish) this.listeners.fault(message, wish);
  }

  #finish() {
    clearTimeout(this.#waiting);
    this.#current = undefined;
    const next = this.#next;
    this.#next = undefined;
    if (next) this.#send(next);
  }

  /** The page is seen again: does the worker that has a job still live? */
  #wake() {
    if (document.hidden || !this.#current) return;
    const { id, wish } = this.#current;
    clearTimeout(this.#waiting);
    this.#worker?.postMessage({ id, ping: true });
    this.#waiting = setTimeout(() => {
      this.listeners.progress("The browser had put this page to sleep; computing again…");
      this.#dismiss();
      this.#send(wish);
    }, PATIENCE);
  }
}
