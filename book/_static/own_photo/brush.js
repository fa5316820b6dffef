// The brush on the image: mouse and touch draw, the arrow keys move it by a cell, and the space bar covers.

/**
 * What the brush is used on. Places are shares of the image's width and height.
 * @typedef {object} Canvas
 * @property {() => {cells: [number, number], size: number} | undefined} grid rows and columns of cells, and
 *   the brush's size in them; undefined while the brush is not in use
 * @property {(x: number, y: number) => void} paint
 * @property {() => void} finish the stroke
 */

const STEPS = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] };

/**
 * @param {HTMLElement} frame
 * @param {HTMLElement} cursor
 * @param {Canvas} canvas
 * @returns {() => void} puts the cursor where the settings want it
 */
export function listenToBrush(frame, cursor, { grid, paint, finish }) {
  const place = { row: 0, column: 0 }; // of the upper left cell, not always whole
  /** @type {[number, number] | undefined} */
  let last;

  const moveTo = (/** @type {number} */ row, /** @type {number} */ column) => {
    const of = grid();
    cursor.hidden = !of;
    if (!of) return;
    const [rows, columns] = of.cells;
    place.row = Math.min(Math.max(row, 0), Math.max(rows - of.size, 0));
    place.column = Math.min(Math.max(column, 0), Math.max(columns - of.size, 0));
    const share = (/** @type {number} */ count, /** @type {number} */ all) =>
      `${(100 * Math.min(count, all)) / all}%`;
    Object.assign(cursor.style, {
      left: share(place.column, columns),
      top: share(place.row, rows),
      width: share(of.size, columns),
      height: share(of.size, rows),
    });
  };

  const pointed = (/** @type {PointerEvent} */ event) => {
    const { left, top, width, height } = frame.getBoundingClientRect();
    return /** @type {[number, number]} */ ([(event.clientX - left) / width, (event.clientY - top) / height]);
  };

  const follow = (/** @type {PointerEvent} */ event) => {
    const of = grid();
    if (!of) return;
    const [x, y] = pointed(event);
    moveTo(y * of.cells[0] - of.size / 2, x * of.cells[1] - of.size / 2);
    if (!last) return;
    // Far apart, two points would leave a gap.
    const step = of.size / (2 * Math.max(...of.cells));
    const count = Math.max(1, Math.ceil(Math.hypot(x - last[0], y - last[1]) / step));
    for (let at = 1; at <= count; at++) {
      paint(last[0] + ((x - last[0]) * at) / count, last[1] + ((y - last[1]) * at) / count);
    }
    last = [x, y];
  };

  frame.addEventListener("pointerdown", (event) => {
    if (!grid() || event.button !== 0 || !event.isPrimary) return;
    frame.setPointerCapture(event.pointerId);
    last = pointed(event);
    follow(event);
  });
  frame.addEventListener("pointermove", follow);
  for (const kind of ["pointerup", "pointercancel"]) {
    frame.addEventListener(kind, () => {
      if (last) finish();
      last = undefined;
    });
  }
  frame.addEventListener("keydown", (event) => {
    const of = grid();
    if (!of || event.target !== frame) return;
    const step = STEPS[/** @type {keyof typeof STEPS} */ (event.key)];
    if (step) moveTo(Math.round(place.row) + step[0], Math.round(place.column) + step[1]);
    else if (event.key === " ") {
      moveTo(Math.round(place.row), Math.round(place.column));
      paint((place.column + of.size / 2) / of.cells[1], (place.row + of.size / 2) / of.cells[0]);
      finish();
    } else return;
    event.preventDefault();
  });
  return () => moveTo(Math.round(place.row), Math.round(place.column));
}
