// From a reader's file to its pixels, as gmcam/reading.py reads it: upright, the first frame of an animation,
// without colour profiles, transparency over white.

import { overWhite } from "./resize.js";

/** @import { Pixels } from "./resize.js" */

/** A fault that the reader can remedy; the page shows its message. */
export class Fault extends Error {
  spent = false; // whether the worker must be replaced
}

/** Lets the worker receive messages in the meantime. */
export const breath = () => new Promise((resolve) => setTimeout(resolve));

export const MAX_PIXELS = 120e6; // as in Python
const STRIP = 4e6; // pixels unpacked at a time: some browsers have no canvas for fifty million

/**
 * The pixels of an image file.
 * @param {Blob} file
 * @param {string} name for messages
 * @returns {Promise<Pixels>}
 * @throws {Fault} for a file that is empty, not an image, or too large
 */
export async function read(file, name) {
  if (file.size === 0) throw new Fault(`${name} is empty (zero bytes); choose an image file.`);
  const bitmap = await decode(file, name);
  try {
    const { width, height } = bitmap;
    if (width * height > MAX_PIXELS) {
      throw new Fault(
        `${name} unpacks to more than ${MAX_PIXELS / 1e6} megapixels; scale it down first.`,
      );
    }
    const data = new Uint8Array(3 * width * height);
    const rows = Math.min(height, Math.max(1, Math.floor(STRIP / width)));
    const canvas = new OffscreenCanvas(width, rows);
    const context = canvas.getContext("2d", { willReadFrequently: true });
    if (!context) throw new Fault(`${name} is too wide for this browser; scale it down first.`);
    for (let top = 0; top < height; top += rows) {
      await breath();
      context.clearRect(0, 0, width, rows);
      context.drawImage(bitmap, 0, -top);
      const strip = Math.min(rows, height - top);
      const { data: rgba } = context.getImageData(0, 0, width, strip);
      data.set(overWhite(rgba, width, strip).data, 3 * width * top);
    }
    return { data, width, height };
  } finally {
    bitmap.close(); // frees its memory at once
  }
}

/**
 * @param {Blob} file
 * @param {string} name
 */
async function decode(file, name) {
  try {
    return await createImageBitmap(file, {
      colorSpaceConversion: "none",
      imageOrientation: "from-image",
      premultiplyAlpha: "none",
    });
  } catch (error) {
    // For a text, a damaged file and an unknown format, every browser has another message.
    throw new Fault(
      `${name} is not an image that this browser can read, or is too large for it; try PNG or JPEG.`,
    );
  }
}
