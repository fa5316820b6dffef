// The live part of the figure: a copy of the still with switches, places, a table, and maps as switches.

import { head } from "./channels.js";

/**
 * What the still's attributes say about the figure.
 * @typedef {object} Form
 * @property {string[]} columns of the table
 * @property {string[]} maps the switches; the last is shown first
 * @property {string[]} targets classes
 * @property {number} objects
 * @property {[number, number]} cells rows and columns
 * @property {boolean} short only the signed map and the ledger
 */

/** @type {Record<string, string>} */
export const TITLES = {
  aggregated_map: "A, the sum",
  cam: "CAM",
  grad_cam: "Grad-CAM",
  guidance_map: "guidance map",
  gmcam: "GMCAM",
};
/** @type {Record<string, string>} */
const PLACES = {
  apart: "where they disagree",
  most: "most for",
  least: "most against",
  bare: "bare background",
};

/**
 * @param {HTMLElement} still
 * @param {Form} form
 */
export function build(still, form) {
  const live = /** @type {HTMLElement} */ (still.cloneNode(true));
  live.className = "gm-live";
  const part = (/** @type {string} */ selector) =>
    /** @type {HTMLElement} */ (live.querySelector(selector));
  if (form.targets.length > 1) {
    const choices = form.targets.map((name) => button(`data-target="${escaped(name)}"`, escaped(name)));
    part(".gm-ask").innerHTML = `Why <span class="gm-choices" role="group" aria-label="class">${choices.join("")}</span>?`;
  }
  part(".gm-heat").outerHTML = '<canvas class="gm-heat"></canvas>';
  const squares = ["gm-seen", "gm-halo", "gm-cell"].map((name) => `<rect class="${name}"/>`);
  part(".gm-stage svg").insertAdjacentHTML("beforeend", squares.join(""));
  const stage = part(".gm-stage");
  stage.tabIndex = 0;
  stage.setAttribute("role", "application");
  const [rows, columns] = form.cells;
  stage.setAttribute("aria-label", `${rows} × ${columns} cells over the image: arrow keys move the picked one`);
  stage.insertAdjacentHTML("afterend", under(form));
  part(".gm-read").insertAdjacentHTML("afterend", '<p class="gm-spoken gm-unseen" aria-live="polite"></p>');
  if (!form.short) {
    part(".gm-readbox").insertAdjacentHTML("afterend", channels(form));
    const switches = form.maps.length > 1; // a single map is on the image: its shares stand below it
    part(switches ? ".gm-channels" : ".gm-stagebox").insertAdjacentHTML("afterend", strip(form));
  }
  const photo = /** @type {HTMLImageElement} */ (part(".gm-photo"));
  photo.alt = ""; // the sentences say what the map shows now
  for (const mini of live.querySelectorAll(".gm-mini")) {
    mini.append(photo.cloneNode(), document.createElement("canvas"));
  }
  return live;
}

/** The places to jump to and the box below the image. @param {Form} form */
function under({ maps, short }) {
  const unsigned = maps.includes("aggregated_map");
  const offered = Object.entries(PLACES).filter(([place]) => !unsigned || place === "most" || place === "bare");
  const chips = offered.map(([place, words]) =>
    button(`data-place="${place}"`, unsigned && place === "most" ? "most active" : words),
  );
  const box = '<label class="gm-relu"><input type="checkbox"> without ReLU</label>';
  return `<div class="gm-chips">${chips.join("")}</div>
    <div class="gm-under"><p class="gm-hint">Point, tap, or use the arrow keys.</p>
    ${short || unsigned ? "" : box}</div>`;
}

/** @param {Form} form */
function channels({ columns }) {
  const products = columns.includes("Ml") || columns.includes("MC");
  const unit = products ? " <span>products in thousandths of a logit</span>" : "";
  return `<table class="gm-table gm-channels"><caption>Strongest channels in this cell${unit}</caption>
    <thead>${head(columns)}</thead><tbody></tbody></table>`;
}

/** The maps as switches, with the signs of Equation 6 between them. @param {Form} form */
function strip({ maps, objects }) {
  const signs = maps.length === 3 ? ["×", "="] : [];
  const cards = maps.map((name, at) => {
    const mini = maps.length > 1 ? '<span class="gm-mini"></span>' : "";
    const words = `${mini}<span class="gm-title">${TITLES[name]}</span>
      <span class="gm-value">this cell <b class="gm-here"></b></span>
      <span class="gm-share"><i></i><i></i></span>
      ${'<span class="gm-value gm-on"></span>'.repeat(mini ? 1 : objects)}`;
    const attributes = `class="gm-map" data-map="${name}"`;
    const card = mini ? button(attributes, words) : `<div ${attributes}>${words}</div>`;
    return card + (signs[at] ? `<span class="gm-sign">${signs[at]}</span>` : "");
  });
  return `<div class="gm-strip">${cards.join("")}</div>`;
}

/**
 * @param {string} attributes
 * @param {string} words
 */
function button(attributes, words) {
  return `<button type="button" aria-pressed="false" ${attributes}>${words}</button>`;
}

/** @param {string} text */
function escaped(text) {
  return text.replace(/[&<>"]/g, (letter) => `&#${letter.charCodeAt(0)};`);
}
