// What a curve says: its knee, whether the noise decides it, what state its layer is in. Pure.

import { interpolate, intervalDeviation, pairedDeviation, removedCount, Z95 } from "./prediction.js";

/** A knee below this is called fragile. */
export const FRAGILE_BELOW = 0.45;

/**
 * A point as the API gives it, read in one metric: `value`, `low`, `high`, and the `deviation` of its
 * difference from dense, on paired samples where they are known. Null without a value.
 */
export function curvePoint(point, metric) {
  const found = metric.of(point);
  if (!found) return null;
  const { lost, gained, samples } = point;
  const paired = metric.paired && typeof lost === "number" && typeof gained === "number";
  const deviation = paired
    ? pairedDeviation(lost, gained, samples)
    : intervalDeviation(found.low, found.high);
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

/**
 * What the chip of a layer says.
 *
 * @returns {{kind: "plain" | "warn" | "warn two" | "danger" | "live", icon: string | null, word: string,
 *   knee: number | null, title: string}}
 */
export function chipOf({ points, expected, yard, tolerance, live, level, removed, size }) {
  if (level > 0 && removed === 0) {
    return {
      kind: "warn two", icon: null, word: "nothing removed", knee: null,
      title: "the threshold is less than half a weight of this layer",
    };
  }
  if (points.length < expected) {
    return {
      kind: live ? "live" : "plain", icon: live ? "live" : null,
      word: `${points.length} of ${expected}`, knee: null,
      title: live ? "points measured so far; refining" : "points measured; the rest is not",
    };
  }
  if (yard === null || points.length === 0) {
    return { kind: "plain", icon: null, word: "–", knee: null, title: "not measured" };
  }
  const { knee, holds, noisy } = readKnee(points, yard, tolerance);
  const limit = yard.metric.limit(tolerance);
  const percent = `${Math.floor(knee * 100 + 1e-9)}\u202f%`;
  const spared = removedCount(knee, size) === 0;
  if (spared && holds) {
    return {
      kind: "warn two", icon: null, word: "nothing removed", knee,
      title: `no level up to ${percent} removes one of its ${size} weights: the curve says nothing`,
    };
  }
  if (noisy) {
    return {
      kind: "warn", icon: "noise", word: "noise", knee,
      title: `knee at ${percent}, but the loss crosses ${limit} more than once within its noise`,
    };
  }
  if (!holds && (knee < FRAGILE_BELOW || spared)) {
    return {
      kind: "danger", icon: "warn", word: "fragile", knee,
      title: `loses more than ${limit} beyond ${percent}${spared ? ", where nothing is removed yet" : ""}`,
    };
  }
  return {
    kind: "plain", icon: holds ? "check" : "knee", word: `${holds ? "holds" : "knee"} ${percent}`, knee,
    title: holds ? `loses no more than ${limit} up to ${percent}, the last level measured`
      : `tolerates ${percent} for a loss of ${limit}`,
  };
}

/** Unit ids, most sensitive first: by knee, then by the loss at the last point. */
export function bySensitivity(units, curves, yard, tolerance) {
  const rank = new Map(
    units.map((unit) => {
      const points = curves.get(unit.id);
      const { knee } = readKnee(points, yard, tolerance);
      return [unit.id, [knee, points.length ? yard.loss(points.at(-1).value) : -Infinity]];
    }),
  );
  return [...units]
    .sort((a, b) => {
      const [kneeA, endA] = rank.get(a.id);
      const [kneeB, endB] = rank.get(b.id);
      return kneeA - kneeB || endB - endA || a.index - b.index;
    })
    .map((unit) => unit.id);
}
