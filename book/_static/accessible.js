// What the theme, Sphinx and the widget manager leave out for people who do not see the page.
"use strict";

// The theme names some buttons without the words that are written on them, and puts named pictures inside
// others, which are read out as well.
function nameButtons() {
  for (const button of document.querySelectorAll("button[aria-label], summary[aria-label]")) {
    for (const icon of button.querySelectorAll("svg")) {
      icon.querySelector("title")?.remove();
      icon.ariaHidden = "true";
    }
    const written = button.innerText.replace(/\s+/g, " ").trim();
    if (written && !button.ariaLabel.includes(written)) button.removeAttribute("aria-label");
  }
}

// Sphinx breaks a long signature into lines by a list without terms, and lists citations beside links.
function unlist() {
  for (const list of document.querySelectorAll("dt.sig dl")) {
    list.role = "presentation";
    for (const line of list.children) line.role = "presentation";
  }
  for (const list of document.querySelectorAll(".citation-list[role=list]")) list.removeAttribute("role");
}

// A slider's handle has no accessible name, and says a number where a word is meant.
function nameSliders() {
  for (const slider of document.querySelectorAll(".widget-hslider")) {
    const handle = slider.querySelector(".noUi-handle");
    const label = slider.querySelector(".widget-label");
    const readout = slider.querySelector(".widget-readout");
    if (!handle || !label) continue;
    handle.ariaLabel = label.textContent.trim() || "slider";
    if (readout) handle.ariaValueText = readout.textContent.trim();
  }
}

// Radio buttons of one widget have no common name, which the arrow keys need, and the group has none either.
let groups = 0;
function nameRadios() {
  for (const group of document.querySelectorAll(".widget-radio-box:not([role])")) {
    group.role = "radiogroup";
    groups += 1;
    group.ariaLabel = group.parentElement.querySelector(".widget-label")?.textContent.trim() || "choice";
    for (const button of group.querySelectorAll("input")) button.name = `radios-${groups}`;
  }
}

document.addEventListener("DOMContentLoaded", () => {
  unlist();
  nameButtons();
  // Icons and widgets are drawn late, and drawn again.
  const watcher = new MutationObserver(() => {
    watcher.disconnect(); // our own changes are no news
    nameButtons();
    nameSliders();
    nameRadios();
    watch();
  });
  const watch = () => watcher.observe(document.body, { childList: true, subtree: true, characterData: true });
  watch();
});
