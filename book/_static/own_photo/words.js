// The prediction and the place of the map in words, and the search among class names.

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

/** @param {number} probability */
export function percent(probability) {
  return probability < 0.0005 ? "< 0.1\u00a0%" : `${(100 * probability).toFixed(1)}\u00a0%`;
}

/**
 * @param {Guess[]} guesses
 */
export function describeClasses(guesses) {
  const classes = guesses.map(({ name, probability }) => `${name} (${percent(probability)})`);
  return `Most probable: ${classes.join(", ")}.`;
}

/**
 * The indices of the classes whose names contain every word of `text`, ignoring case. In this order: the name
 * itself, names with all of them as whole words, names that begin with the text, others. All classes for an
 * empty text.
 * @param {string[]} classes
 * @param {string} text
 * @returns {number[]}
 */
export function search(classes, text) {
  const typed = text.trim().toLowerCase();
  const words = typed.split(/\s+/);
  const matches = classes
    .map((name, index) => ({ name: name.toLowerCase(), index }))
    .filter(({ name }) => words.every((word) => name.includes(word)));
  const rank = (/** @type {string} */ name) => {
    const whole = name.split(/[^\p{L}\p{N}]+/u);
    const ranks = [name === typed, words.every((word) => whole.includes(word)), name.startsWith(typed), true];
    return ranks.indexOf(true);
  };
  return matches.sort((one, other) => rank(one.name) - rank(other.name)).map(({ index }) => index);
}

/**
 * A sentence on a map: the class, where the map is strongest, and how much of it is there.
 * @param {Float32Array} map values in [0, 1], one a pixel
 * @param {[number, number]} size [H, W]
 * @param {{title: string, guess: Guess, logit: number, cells: string, empty: boolean}} of the method's
 *   title, the class, its logit, the layer's cells as "7 × 7 cells", and whether the map is empty
 */
export function describe(map, size, { title, guess, logit, cells, empty }) {
  const score = `probability ${percent(guess.probability)}, logit ${logit.toFixed(2).replace("-", "−")}`;
  const start = `${title} for ${guess.name} (${score}) at ${cells}: `;
  if (empty) return `${start}the map is empty.`;
  const { place, share } = strongest(map, size);
  const part = `${Math.round(100 * share)}\u00a0% of the map`;
  return `${start}strongest ${place}; ${part} is in that ninth of the image.`;
}

/**
 * The ninth of the image that contains the map's highest value, in words ("at the top left", "in the middle"),
 * and the share of the map's sum in it.
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
