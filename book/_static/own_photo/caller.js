// The page's side of the worker, which does one job at a time. Of the explanations that are asked for in the
// meantime only the last is kept; measurements all get their turn. A worker that has run out of memory, or
// that the browser has suspended for good, is terminated, and the next job starts another one.

/** @import { Answer, Job } from "./explainer.js" */

/** @typedef {Omit<Job, "id">} Task */

/**
 * A task, and for a measurement what to do with the logits or the message of a fault.
 * @typedef {{task: Task, done?: (logits: Float32Array) => void, failed?: (fault: Error) => void}} Entry
 */

/**
 * @typedef {object} Listeners
 * @property {(progress: string) => void} progress
 * @property {(answer: Answer, task: Task) => void} answer
 * @property {(message: string, task: Task) => void} fault
 */

const PATIENCE = 5000; // milliseconds: a pass over a large network on an old telephone takes two seconds

export class Caller {
  /** @type {Worker | undefined} */ #worker;
  /** @type {Entry & {id: number} | undefined} */ #current;
  /** @type {Task | undefined} */ #next;
  /** @type {Entry[]} */ #measurements = [];
  #count = 0;
  /** @type {number | undefined} */ #waiting;

  /**
   * @param {string} address of explainer.js
   * @param {Map<string, string> | undefined} addresses by name, of the parts of the one-file version
   * @param {Listeners} listeners
   */
  constructor(address, addresses, listeners) {
    this.address = address;
    this.addresses = addresses;
    this.listeners = listeners;
    document.addEventListener("visibilitychange", () => this.#checkWorker());
  }

  /** @param {Task} task */
  submit(task) {
    if (this.#current) this.#next = task;
    else this.#send({ task });
  }

  /**
   * The logits of a covered image. Fails as the worker does.
   * @param {Task} task
   * @returns {Promise<Float32Array>}
   */
  measure(task) {
    return new Promise((done, failed) => {
      const entry = { task, done, failed };
      if (this.#current) this.#measurements.push(entry);
      else this.#send(entry);
    });
  }

  get busy() {
    return this.#current !== undefined;
  }

  /** @param {Entry} entry */
  #send(entry) {
    this.#current = { id: ++this.#count, ...entry };
    this.#worker ??= this.#startWorker();
    this.#worker.postMessage({ id: this.#count, ...entry.task });
  }

  #startWorker() {
    const worker = new Worker(this.address, { type: "module" });
    worker.onmessage = ({ data }) => this.#receive(data);
    worker.onerror = (event) => {
      event.preventDefault();
      const { message } = event; // none if the worker or one of its modules could not be loaded
      if (message) this.#fail(`The part of this page that computes has stopped (${message}).`);
      else this.#fail("A part of this page could not be loaded; check your connection and try again.");
    };
    if (this.addresses) worker.postMessage({ addresses: this.addresses });
    return worker;
  }

  #stopWorker() {
    clearTimeout(this.#waiting);
    this.#worker?.terminate();
    this.#worker = undefined;
  }

  /** @param {any} message */
  #receive(message) {
    clearTimeout(this.#waiting);
    if (!this.#current || message.id !== this.#current.id) return;
    const { task, done } = this.#current;
    if (message.progress) this.listeners.progress(message.progress);
    else if (message.fault) this.#fail(message.fault, message.spent);
    else if (message.logits) {
      this.#finish();
      if (done) done(message.logits);
      else this.listeners.answer(message, task);
    }
  }

  /**
   * @param {string} message
   * @param {boolean} [spent] whether the worker must be replaced
   */
  #fail(message, spent = true) {
    if (spent) this.#stopWorker();
    const entry = this.#current;
    this.#finish();
    entry?.failed?.(new Error(message));
    if (entry) this.listeners.fault(message, entry.task);
  }

  #finish() {
    clearTimeout(this.#waiting);
    this.#current = undefined;
    const next = this.#next ? { task: this.#next } : this.#measurements.shift();
    this.#next = undefined;
    if (next) this.#send(next);
  }

  /** The page is visible again: does the worker that has a job still respond? */
  #checkWorker() {
    if (document.hidden || !this.#current) return;
    const { id, ...entry } = this.#current;
    clearTimeout(this.#waiting);
    this.#worker?.postMessage({ id, ping: true });
    this.#waiting = setTimeout(() => {
      this.listeners.progress("The browser had suspended this page; computing again…");
      this.#stopWorker();
      this.#send(entry);
    }, PATIENCE);
  }
}
