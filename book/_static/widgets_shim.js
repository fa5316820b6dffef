// The widget manager typesets labels by calls of MathJax 2; this page carries MathJax 3, which has no
// MathJax.Hub, and which puts a new object in place of window.MathJax when it starts. A queue that does
// nothing is handed to each of them: our labels hold no formulas.
"use strict";
{
  const hub = { Queue() {}, Config() {}, Configured() {} };
  let current = window.MathJax;
  const serve = (value) => {
    current = value;
    if (current && !current.Hub) current.Hub = hub;
  };
  serve(current);
  Object.defineProperty(window, "MathJax", { configurable: true, get: () => current, set: serve });
}
