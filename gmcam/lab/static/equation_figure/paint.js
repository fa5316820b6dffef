// Maps as images of one pixel a cell, which the style sheet enlarges without smoothing.

/** @typedef {[number, number, number]} Colour 0…255 */
/** @typedef {Record<string, Colour[]>} Ramps by name: the stops from 0 to 1 */

/**
 * "#ffdeb8 #8c2800" as colours.
 * @param {string} text
 * @returns {Colour[]}
 */
export function colours(text) {
  return [...text.matchAll(/#(..)(..)(..)/g)].map(
    ([, ...parts]) => /** @type {Colour} */ (parts.map((part) => parseInt(part, 16))),
  );
}

/**
 * The colour of a share of the maximum on a ramp with evenly spaced stops.
 * @param {Colour[]} stops
 * @param {number} share
 */
export function onRamp(stops, share) {
  const at = Math.min(Math.max(share, 0), 1) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return stops[low].map((value, channel) => value + (stops[low + 1][channel] - value) * (at - low));
}

/**
 * Draw a map (h, w): its positive values on one ramp, its negative ones on another, white at 0.
 * @param {HTMLCanvasElement} canvas
 * @param {[number, number]} shape
 * @param {ArrayLike<number>} map
 * @param {number} peak the value at the end of both ramps
 * @param {Colour[]} above
 * @param {Colour[]} below
 */
export function paint(canvas, [height, width], map, peak, above, below) {
  canvas.width = width;
  canvas.height = height;
  const image = new ImageData(width, height);
  for (let cell = 0; cell < map.length; cell++) {
    const share = map[cell] / (peak || 1);
    image.data.set([...onRamp(share < 0 ? below : above, Math.abs(share)), 255], 4 * cell);
  }
  canvas.getContext("2d")?.putImageData(image, 0, 0);
}

/**
 * The page's colours at this moment, light or dark: ramps for the image, and those of the little maps.
 * @param {Element} element
 * @param {string} ramp "for" or "activity"
 */
export function rampsOf(element, ramp) {
  const style = getComputedStyle(element);
  const of = (/** @type {string} */ name) => colours(style.getPropertyValue(`--gm-${name}`));
  const [page, ink, positive, negative] = ["page", "ink", "for", "against"].map((name) => of(name)[0]);
  return {
    above: of(`ramp-${ramp}`),
    below: of("ramp-against"),
    activity: [page, ink],
    positive: [page, positive],
    negative: [page, negative],
  };
}
