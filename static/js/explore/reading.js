// What a curve says: its values, its knee, whether the noise decides it. Pure.

import { interpolate, intervalDeviation, pairedDeviation, Z95 } from "./prediction.js";
import { isWhole } from "./sharpness.js";

/**
 * A point as the API gives it, read in one metric: `value`, `low`, `high`, and the `deviation` of its
 * difference from dense, on paired samples where they are known. Null without a value.
 *
 * @param {object} point
 * @param {import("../metrics.js").Metric} metric
 * @param {number} confidence of the analysis's intervals
 */
export function curvePoint(point, metric, confidence = 0.95) {
  const found = metric.of(point);
  if (!found) return null;
  const { lost, gained, samples, drop_low: dropLow, drop_high: dropHigh } = point;
  let deviation = null;
  if (metric.paired && !isWhole(point)) {
    // The accuracy's own interval is cut at 0 and 1; the drop's is not.
    if (typeof dropLow === "number") deviation = intervalDeviation(dropLow, dropHigh, confidence);
  } else if (metric.paired && typeof lost === "number" && typeof gained === "number") {
    deviation = pairedDeviation(lost, gained, samples);
  }
  deviation ??= intervalDeviation(found.low, found.high, confidence);
  return { ...point, value: found.value, low: found.low, high: found.high, deviation };
}

/**
 * The largest sparsity whose drop is tolerated, linear between measured points, in whole per cents.
 *
 * A point that breaks the tolerance by less than its own paired 95 % half width, with a tolerated
 * one after it, is noise: it doesn't end the curve, but `noisy` says that it happened. Beyond the
 * last point nothing is known, so the knee never lies there; `holds` says that the curve ended
 * while it was still tolerated.
 *
 * @param {{sparsity: number, value: number, deviation: number}[]} points ascending
 * @param {import("../metrics.js").Yardstick} yard
 * @param {number} tolerance in the yardstick's unit of loss
 * @returns {{knee: number, holds: boolean, noisy: boolean}}
 */
export function readKnee(points, yard, tolerance) {
  let left = { sparsity: 0, drop: 0 };
  let crossing = null;
  let noisy = false;
  for (const point of points) {
    const drop = yard.loss(point.value);
    if (drop <= tolerance + 1e-12) {
      if (crossing !== null) noisy = true;
      crossing = null;
      left = { sparsity: point.sparsity, drop };
      continue;
    }
    if (crossing === null) {
      const share = (tolerance - left.drop) / (drop - left.drop);
      crossing = left.sparsity + share * (point.sparsity - left.sparsity);
    }
    if (drop - Z95 * yard.size(point.deviation) > tolerance) break;
  }
  if (crossing === null) return { knee: left.sparsity, holds: points.length > 0, noisy };
  // Rounded down: a threshold at the knee stays inside the tolerance.
  const whole = Math.floor(crossing * 100 + 1e-9) / 100;
  return { knee: Math.max(whole, Math.min(left.sparsity, crossing)), holds: false, noisy };
}

/** The value of one unit alone at `sparsity`, and the 95 % half width of its difference. */
export function readAt(points, yard, sparsity) {
  const [value, deviation] = interpolate(points, yard.baseline, sparsity);
  return { value, half: Z95 * deviation };
}

/** The first measured point that lost more than anybody tolerates, or null. */
export function collapse(points, yard) {
  return points.find((point) => yard.loss(point.value) > yard.metric.family.collapse) ?? null;
}

/** Unit ids, most sensitive first: by knee, then by the loss at the last point; without points last. */
export function bySensitivity(units, curves, yard, tolerance) {
  const rank = new Map(
    units.map((unit) => {
      const points = curves.get(unit.id);
      const { knee } = readKnee(points, yard, tolerance);
      return [unit.id, points.length ? [knee, yard.loss(points.at(-1).value)] : [Infinity, 0]];
    }),
  );
  return [...units]
    .sort((a, b) => {
      const [kneeA, endA] = rank.get(a.id);
      const [kneeB, endB] = rank.get(b.id);
      return (kneeA === kneeB ? 0 : kneeA - kneeB) || endB - endA || a.index - b.index;
    })
    .map((unit) => unit.id);
}
