// The fields in which readers check their answers, and the line that counts the solved exercises.

import { Progress, openStorage } from "./progress.js";
import { judge } from "./verdict.js";

/** @import { Exercise } from "./verdict.js" */

/** @typedef {{name: string, restore: () => void}} Field */

/**
 * An element with properties and children; empty texts are left out.
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag
 * @param {Record<string, unknown>} properties
 * @param {(Node | string)[]} children
 */
function element(tag, properties, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children.filter(Boolean));
  return made;
}

/**
 * The exercise that the build has written into a place.
 * @param {string} key
 * @returns {Exercise}
 */
function unpacked(key) {
  const bytes = Uint8Array.from(atob(key), (letter) => letter.charCodeAt(0));
  return JSON.parse(new TextDecoder().decode(bytes));
}

/**
 * Put a field into its place, with the answer that was right before.
 * @param {HTMLElement} place
 * @param {Progress} progress
 * @param {() => void} solved is called after a right answer
 * @returns {Field}
 */
function build(place, progress, solved) {
  const { exercise: name = "", form: asked = "", key = "" } = place.dataset;
  const exercise = unpacked(key);
  const id = `answer-${name.replace(".", "-")}`;
  const rows = exercise.kind === "numbers" && Array.isArray(exercise.right?.[0]) && exercise.right.length;
  const input = rows ? element("textarea", { rows }) : element("input", { type: "text" });
  Object.assign(input, { id, autocomplete: "off", autocapitalize: "off", spellcheck: false });
  input.setAttribute("aria-describedby", `${id}-verdict`);

  const which = ` to exercise ${name.split(".")[1]}`;
  const unseen = () => element("span", { className: "visually-hidden", textContent: which });
  const hint = element("span", { textContent: asked && ` ${asked}` });
  const label = element("label", { htmlFor: id }, "Your answer", unseen(), asked && ":", hint);
  const button = element("button", { type: "submit" }, "Check", unseen());
  const words = element("span", {});
  const help = element("span", { className: "gmcam-answer-help" });
  const verdict = element("p", { id: `${id}-verdict`, role: "status" }, words, help);
  const form = element("form", {}, label, element("div", {}, input, button), verdict);

  const check = () => {
    const { right, words: sentence, help: advice } = judge(exercise, input.value);
    words.textContent = sentence;
    help.textContent = advice ? ` ${advice}` : "";
    form.dataset.verdict = right ? "right" : "wrong";
    input.setAttribute("aria-invalid", String(!right));
    return right;
  };
  const forget = () => {
    words.textContent = help.textContent = "";
    delete form.dataset.verdict;
    input.removeAttribute("aria-invalid");
  };
  const restore = () => {
    input.value = progress.answerTo(name) ?? "";
    forget();
    if (input.value) check();
  };
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (!check()) return;
    progress.keep(name, input.value);
    solved();
  });
  input.addEventListener("input", forget);
  place.replaceChildren(form);
  restore();
  return { name, restore };
}

/**
 * Hide what the cell above a field printed when the book was built: that it has no answer.
 * @param {HTMLElement} place
 */
function hideOutput(place) {
  for (const output of place.previousElementSibling?.querySelectorAll(".cell_output") ?? []) {
    if (output.textContent?.includes("No answer yet")) /** @type {HTMLElement} */ (output).hidden = true;
  }
}

/**
 * Write how many exercises of this page are solved, with a button that clears them.
 * @param {HTMLElement} line
 * @param {Field[]} fields
 * @param {Progress} progress
 */
function count(line, fields, progress) {
  const solved = fields.filter(({ name }) => progress.answerTo(name) !== undefined);
  const words = `${solved.length} of ${fields.length} solved here`;
  const clear = element("button", { type: "button" }, "clear");
  clear.addEventListener("click", () => {
    progress.clear(fields.map(({ name }) => name));
    for (const { restore } of fields) restore();
    count(line, fields, progress);
    line.focus(); // the button is gone
  });
  const passing = progress.lasting ? "" : " · until you leave this page";
  line.tabIndex = -1;
  line.replaceChildren(words, passing, ...(solved.length ? [" · ", clear] : []));
}

function start() {
  const progress = new Progress(openStorage());
  const line = /** @type {HTMLElement | null} */ (document.querySelector(".gmcam-progress"));
  /** @type {Field[]} */
  const fields = [];
  const recount = () => line && count(line, fields, progress);
  for (const place of /** @type {NodeListOf<HTMLElement>} */ (document.querySelectorAll(".gmcam-answer"))) {
    fields.push(build(place, progress, recount));
    hideOutput(place);
  }
  recount();
}

start();
