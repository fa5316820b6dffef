// Cells picked by mouse, touch and keyboard.

/** @type {Record<string, [number, number]>} */
const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * A mouse looks at a cell and its click keeps it; a finger keeps where it taps or moves sideways, and scrolls
 * the page up and down; arrow keys move the kept cell.
 * @param {HTMLElement} stage
 * @param {[number, number]} cells rows and columns
 * @param {{kept: () => number, look: (cell: number) => void, keep: (cell: number) => void}} act
 */
export function listenToPointing(stage, [rows, columns], { kept, look, keep }) {
  const at = (/** @type {PointerEvent} */ event) => {
    const { left, top, width, height } = stage.getBoundingClientRect();
    const within = (/** @type {number} */ share, /** @type {number} */ count) =>
      Math.min(Math.max(Math.floor(share * count), 0), count - 1);
    const row = within((event.clientY - top) / height, rows);
    return row * columns + within((event.clientX - left) / width, columns);
  };
  /** @type {{x: number, y: number, sideways: boolean} | null} where a button or a finger went down */
  let down = null;
  stage.addEventListener("pointerdown", ({ button, clientX: x, clientY: y }) => {
    down = button === 0 ? { x, y, sideways: false } : null;
  });
  stage.addEventListener("pointercancel", () => (down = null)); // the page scrolls
  stage.addEventListener("pointermove", (event) => {
    if (event.pointerType === "mouse") {
      look(at(event));
    } else if (down) {
      down.sideways ||= Math.abs(event.clientX - down.x) > Math.abs(event.clientY - down.y);
      if (down.sideways && at(event) !== kept()) keep(at(event));
    }
  });
  stage.addEventListener("pointerup", (event) => {
    if (down) keep(at(event));
    down = null;
  });
  stage.addEventListener("pointerleave", ({ pointerType }) => {
    if (pointerType === "mouse") look(kept());
  });
  stage.addEventListener("keydown", (event) => {
    const step = STEPS[event.key];
    if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    const row = Math.floor(kept() / columns) + step[0];
    const column = (kept() % columns) + step[1];
    if (row >= 0 && row < rows && column >= 0 && column < columns) keep(row * columns + column);
  });
}
