// The widget manager typesets labels by calls of MathJax 2; this page carries MathJax 3, which has no
// MathJax.Hub. A queue that does nothing stands in for it: our labels hold no formulas.
window.MathJax = window.MathJax || {};
window.MathJax.Hub = window.MathJax.Hub || { Queue() {}, Config() {}, Configured() {} };
