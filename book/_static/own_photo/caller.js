// The page's side of the worker, which does one job at a time; of the jobs that arrive in the meantime only the
// last is kept. A worker that has run out of memory, or that the browser has suspended for good, is terminated,
// and the next job starts another one.

/** @import { Answer, Job } from "./explainer.js" */

/** @typedef {Omit<Job, "id">} Task */

/**
 * @typedef {object} Listeners
 * @property {(progress: string) => void} progress
 * @property {(answer: Answer, task: Task) => void} answer
 * @property {(message: string, task: Task) => void} fault
 */

const PATIENCE = 5000; // milliseconds: a pass over a large network on an old telephone takes two seconds

export class Caller {
  /** @type {Worker | undefined} */ #worker;
  /** @type {{id: number, task: Task} | undefined} */ #current;
  /** @type {Task | undefined} */ #next;
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
    else this.#send(task);
  }

  get busy() {
    return this.#current !== undefined;
  }

  /** @param {Task} task */
  #send(task) {
    this.#current = { id: ++this.#count, task };
    this.#worker ??= this.#startWorker();
    this.#worker.postMessage({ id: this.#count, ...task });
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
    const { task } = this.#current;
    if (message.progress) this.listeners.progress(message.progress);
    else if (message.fault) this.#fail(message.fault, message.spent);
    else if (message.maps) {
      this.#finish();
      this.listeners.answer(message, task);
    }
  }

  /**
   * @param {string} message
   * @param {boolean} [spent] whether the worker must be replaced
   */
  #fail(message, spent = true) {
    if (spent) this.#stopWorker();
    const task = this.#current?.task;
    this.#finish();
    if (task) this.listeners.fault(message, task);
  }

  #finish() {
    clearTimeout(this.#waiting);
    this.#current = undefined;
    const next = this.#next;
    this.#next = undefined;
    if (next) this.#send(next);
  }

  /** The page is visible again: does the worker that has a job still respond? */
  #checkWorker() {
    if (document.hidden || !this.#current) return;
    const { id, task } = this.#current;
    clearTimeout(this.#waiting);
    this.#worker?.postMessage({ id, ping: true });
    this.#waiting = setTimeout(() => {
      this.listeners.progress("The browser had suspended this page; computing again…");
      this.#stopWorker();
      this.#send(task);
    }, PATIENCE);
  }
}
