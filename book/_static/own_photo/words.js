// What the network says and where its map lies, in words; and classes found by what a reader types.

/** @typedef {{index: number, name: string, probability: number}} Guess */

/**
 * The `count` most probable classes, by the softmax over all, or by the sigmoid of each.
 * @param {ArrayLike<number>} logits
 * @param {string[]} classes
 * @param {number} [count]
 * @param {string} [output] "softmax" or "sigmoid"
 * @returns {Guess[]}
 */
export function topClasses(logits, classes, count = 5, output = "softmax") {
  const values = Array.from(logits);
  const highest = values.reduce((most, value) => Math.max(most, value));
  const powers = values.map((value) => Math.exp(value - highest)); // none overflows
  const total = powers.reduce((sum, power) => sum + power, 0);
  const probabilities =
    output === "sigmoid"
      ? values.map((value) => 1 / (1 + Math.exp(-value)))
      : powers.map((power) => power / total);
  return probabilities
    .map((probability, index) => ({ index, name: classes[index], probability }))
    .sort((one, other) => values[other.index] - values[one.index])
    .slice(0, count);
}

/**
 * @param {Guess[]} guesses
 */
export function describeClasses(guesses) {
  const told = guesses.map(({ name, probability }) => `${name} (${(100 * probability).toFixed(1)}%)`);
  return `Most probable: ${told.join(", ")}.`;
}

/**
 * The indices of the classes whose names have every word of `text` in them, upper or lower case alike: first
 * those that begin with the text, the name itself before all. Without a word, all classes.
 * @param {string[]} classes
 * @param {string} text
 * @returns {number[]}
 */
export function search(classes, text) {
  const typed = text.trim().toLowerCase();
  const found = classes
    .map((name, index) => ({ name: name.toLowerCase(), index }))
    .filter(({ name }) => typed.split(/\s+/).every((word) => name.includes(word)));
  const rank = (/** @type {string} */ name) => (name === typed ? 0 : name.startsWith(typed) ? 1 : 2);
  return found.sort((one, other) => rank(one.name) - rank(other.name)).map(({ index }) => index);
}

/**
 * A sentence on a map: where it is strongest, and how much of it lies there.
 * @param {Float32Array} map values in [0, 1], one a pixel
 * @param {[number, number]} size [H, W]
 * @param {{title: string, label: string, logit: number, layer: string, empty: boolean}} of
 *   the method's title, the class and its logit, the layer as "13x13", and whether the map is empty
 */
export function describe(map, size, { title, label, logit, layer, empty }) {
  const start = `${title} for ${label}, logit ${logit.toFixed(2)}, at ${layer} cells: `;
  if (empty) return `${start}the map is empty.`;
  const { place, share } = strongest(map, size);
  const percent = Math.round(100 * share);
  return `${start}strongest ${place}; ${percent}% of the map lies in that ninth of the picture.`;
}

/**
 * The ninth of the picture that holds the map's highest value, in words ("at the top left", "in the middle"),
 * and the share of the map's sum that lies in it.
 * @param {Float32Array} map
 * @param {[number, number]} size [H, W]
 */
export function strongest(map, [height, width]) {
  const ninth = (/** @type {number} */ pixel) => [
    Math.floor((6 * Math.floor(pixel / width) + 3) / (2 * height)), // by the pixel's middle
    Math.floor((6 * (pixel % width) + 3) / (2 * width)),
  ];
  const peak = map.reduce((best, value, pixel) => (value > map[best] ? pixel : best), 0);
  const [row, column] = ninth(peak);
  let inside = 0;
  let total = 0;
  map.forEach((value, pixel) => {
    const [down, right] = ninth(pixel);
    total += value;
    if (down === row && right === column) inside += value;
  });
  const words = [["top", "", "bottom"][row], ["left", "", "right"][column]].filter(Boolean);
  return { place: words.length ? `at the ${words.join(" ")}` : "in the middle", share: inside / total };
}
