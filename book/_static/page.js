// How much of the page has been read, and which blocks have more to their right.
"use strict";

const BLOCKS = ".bd-article :is(pre, div.math, .pst-scrollable-table-container, .output)";

/** Draw the share of the way from the top of the page to its end. */
function showProgress() {
  const { scrollTop, scrollHeight, clientHeight } = document.documentElement;
  const share = scrollTop / Math.max(1, scrollHeight - clientHeight);
  document.querySelector(".gmcam-read")?.style.setProperty("--read", share.toFixed(3));
}

/** Mark a block that can be scrolled further to the right: its edge fades. @param {Element} block */
function markMore(block) {
  const { scrollWidth, clientWidth, scrollLeft } = block;
  block.classList.toggle("gmcam-more", scrollWidth - clientWidth - scrollLeft > 1);
}

/** What scrolls within a block: of an equation, the part without its number. @param {Element} block */
function scroller(block) {
  return block.querySelector(":scope > mjx-container") ?? block;
}

document.addEventListener("DOMContentLoaded", () => {
  showProgress();
  addEventListener("scroll", showProgress, { passive: true });
  // A block's own scrolling does not bubble. A fold that opens, and MathJax, give blocks another size.
  const passes = ({ target }) => target instanceof Element && target.closest(BLOCKS) && markMore(target);
  document.addEventListener("scroll", passes, { capture: true, passive: true });
  const sizes = new ResizeObserver((entries) => entries.forEach(({ target }) => markMore(scroller(target))));
  for (const block of document.querySelectorAll(BLOCKS)) sizes.observe(block);
});
