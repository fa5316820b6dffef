// Which exercises are solved: the right answers that a reader gave, kept in the browser.

const KEY = "gmcam.answers";

/**
 * Right answers by the names of their exercises. Where the browser's storage is blocked or full, they are
 * kept until the page is left, and `lasting` is false.
 */
export class Progress {
  /** @param {Storage | undefined} storage */
  constructor(storage) {
    this.storage = storage;
    this.lasting = storage !== undefined;
    /** @type {Record<string, string>} */
    this.answers = {};
    this.read();
  }

  /** @param {string} name */
  answerTo(name) {
    return this.answers[name];
  }

  /**
   * @param {string} name
   * @param {string} answer
   */
  keep(name, answer) {
    this.read();
    this.answers[name] = answer;
    this.write();
  }

  /** @param {string[]} names */
  clear(names) {
    this.read();
    for (const name of names) delete this.answers[name];
    this.write();
  }

  /** Read again, as another tab may have written. */
  read() {
    if (!this.lasting) return;
    try {
      const stored = JSON.parse(this.storage?.getItem(KEY) ?? "{}");
      const pairs = Object.entries(stored).filter(([, answer]) => typeof answer === "string");
      this.answers = /** @type {Record<string, string>} */ (Object.fromEntries(pairs));
    } catch (error) {
      if (error instanceof SyntaxError || error instanceof TypeError) this.answers = {};
      else this.lasting = false;
    }
  }

  write() {
    if (!this.lasting) return;
    try {
      this.storage?.setItem(KEY, JSON.stringify(this.answers));
    } catch {
      this.lasting = false;
    }
  }
}

/** The browser's storage, or undefined where it is blocked. */
export function openStorage() {
  try {
    return globalThis.localStorage ?? undefined;
  } catch {
    return undefined;
  }
}
