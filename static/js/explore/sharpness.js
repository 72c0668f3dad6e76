// How well a point is known: on how many samples, with which interval, of what. Pure.

import { number, percent, SPACE } from "../format.js";

/** The first samples of the stream: enough for a look, not for a decision. */
export const PREVIEW_SAMPLES = 32;

/** Whether all samples of the split were seen. Points of earlier versions always are. */
export function isWhole(point) {
  return point.whole ?? !(point.of > point.samples);
}

export function isPreview(point) {
  return point.preview ?? (!isWhole(point) && point.samples <= PREVIEW_SAMPLES);
}

/** Whether nothing more is asked of it. */
export const isSettled = (point) => isWhole(point) || point.settled === true;

/** @returns {"preview" | "partial" | "whole"} how it is drawn */
export function sharpness(point) {
  if (isWhole(point)) return "whole";
  return isPreview(point) ? "preview" : "partial";
}

/** "640 of 10,000" samples of the split, "all 10,000". */
export function samplesWords(point) {
  return isWhole(point) ? `all ${number(point.samples)}` : `${number(point.samples)} of ${number(point.of)}`;
}

/**
 * What an interval is of: the figure that all of the split would give, or the one of more like it.
 * @param {object} point
 * @param {number} confidence of the analysis's intervals
 */
export function intervalWords(point, confidence = 0.95) {
  const share = percent(confidence, Number.isInteger(Math.round(confidence * 1000) / 10) ? 0 : 1);
  const whole = (point.interval ?? "population") === "population";
  return `of the ${whole ? "population" : "split’s figure"}, ${share}`;
}

/** Half the width of the drop's interval, its longer side, in units of the score; null without one. */
export function halfWidth({ drop, drop_low: low, drop_high: high }) {
  const known = [drop, low, high].every(Number.isFinite);
  return known ? Math.max(high - drop, drop - low) : null;
}

/**
 * Samples that a point still needs for a half width: the width falls with the root of the samples.
 * @param {object} point
 * @param {number} target half width of the drop; 0 for all samples of the split
 */
export function samplesMissing(point, target) {
  if (isWhole(point)) return 0;
  const half = halfWidth(point);
  if (!(target > 0) || half === null) return point.of - point.samples;
  if (half <= target) return 0;
  const needed = Math.ceil(point.samples * (half / target) ** 2);
  return Math.min(point.of, needed) - point.samples;
}

/**
 * The largest sparsity such that it, and everything measured below it, loses no more than is
 * tolerated; null when the very first level loses more.
 * @param {{sparsity: number, drop?: number | null}[]} points ascending
 */
export function measuredKnee(points, tolerance) {
  let last = null;
  for (const point of points) {
    if (!Number.isFinite(point.drop) || point.drop > tolerance + 1e-12) break;
    last = point;
  }
  return last;
}

/** In what drops are read: factor, digits and word. The score is accuracy where there is one. */
const SCORE_UNITS = {
  regression: { factor: 100, digits: 1, unit: "% of the variance" },
  "language-modelling": { factor: 1, digits: 3, unit: "nats" },
};
export const scoreUnits = (task) => SCORE_UNITS[task] ?? { factor: 100, digits: 1, unit: "pp" };

/** A half width in words, with the digits that it was asked with: "± 1.0 pp", "± 0.25 pp". */
export function widthWords(half, task) {
  const { factor, digits, unit } = scoreUnits(task);
  const usual = number(half * factor, digits);
  const exact = Number((half * factor).toPrecision(3));
  return `±${SPACE}${Number(usual) === exact ? usual : exact}${SPACE}${unit}`;
}

/** "drop 0.8 ± 0.4 pp" of a point, or of its score in its own units. */
export function dropWords(point, task) {
  if (!Number.isFinite(point?.drop)) return "";
  const half = halfWidth(point);
  const { factor, digits, unit } = scoreUnits(task);
  const spread = half === null ? "" : ` ±${SPACE}${number(half * factor, digits)}`;
  return `drop ${number(point.drop * factor, digits)}${spread}${SPACE}${unit}`;
}
