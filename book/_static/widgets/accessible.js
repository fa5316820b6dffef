// What the widget manager leaves out: a slider's handle has no accessible name and says a number where a
// word is meant. The manager draws late and draws again, so the page is watched.
"use strict";

function nameSliders(root) {
  for (const slider of root.querySelectorAll(".widget-hslider, .jupyter-widget-hslider")) {
    const handle = slider.querySelector(".noUi-handle");
    const label = slider.querySelector(".widget-label");
    const readout = slider.querySelector(".widget-readout");
    if (!handle || !label) continue;
    handle.setAttribute("aria-label", label.textContent.trim() || "slider");
    if (readout) handle.setAttribute("aria-valuetext", readout.textContent.trim());
  }
}

const watcher = new MutationObserver(() => {
  watcher.disconnect(); // our own changes are no news
  nameSliders(document);
  watch();
});
function watch() {
  watcher.observe(document.body, { childList: true, subtree: true, characterData: true });
}
document.addEventListener("DOMContentLoaded", () => {
  nameSliders(document);
  watch();
});
