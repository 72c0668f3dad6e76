// All measured points of an analysis, by criterion and unit: as they came, and as the chosen metric
// reads them. A point that is told again with more samples takes the place of the old one.

import { curvePoint } from "./reading.js";
import { isPreview, isSettled, isWhole } from "./sharpness.js";

/** Where a sparsity belongs, and whether there is a point already. */
function placeOf(points, sparsity) {
  let at = points.length;
  while (at > 0 && points[at - 1].sparsity >= sparsity) at -= 1;
  return [at, points[at]?.sparsity === sparsity];
}

/** Puts a point where its sparsity belongs, in the place of an older one. */
function putInOrder(points, entry) {
  const [at, replaces] = placeOf(points, entry.sparsity);
  points.splice(at, replaces ? 1 : 0, entry);
}

export class CurveBook {
  /** @param {{id: string}[]} units @param {string[]} criteria */
  constructor(units, criteria) {
    const empty = () => new Map(units.map((unit) => [unit.id, []]));
    /** @type {Map<string, Map<string, object[]>>} points as they came, ascending sparsity */
    this.raw = new Map(criteria.map((criterion) => [criterion, empty()]));
    /** @type {Map<string, Map<string, object[]>>} read in the chosen metric, without those it lacks */
    this.read = new Map(criteria.map((criterion) => [criterion, empty()]));
    /** @type {Map<string, [number, number][]>} isotonic fits: [sparsity, drop], by key */
    this.fits = new Map();
    /** @type {Map<string, string>} why a unit has no curve, or what is odd about it, by key */
    this.remarks = new Map();
    this.metric = null;
    this.confidence = 0.95;
  }

  static key = (criterion, unit) => `${criterion} ${unit}`;

  /** The metric in which points are read, and how sure their intervals are. */
  setReader(metric, confidence) {
    this.metric = metric;
    this.confidence = confidence;
    for (const [criterion, units] of this.raw) {
      const read = this.read.get(criterion);
      for (const [unit, points] of units) {
        read.set(unit, points.map((point) => this.reading(point)).filter(Boolean));
      }
    }
  }

  reading(point) {
    return curvePoint(point, this.metric, this.confidence);
  }

  /** @returns {boolean} whether it was news: not of a unit shown here, nor older than what is known */
  put(criterion, unit, point) {
    const points = this.raw.get(criterion)?.get(unit);
    if (!points || !(point.sparsity > 0)) return false;
    const [at, known] = placeOf(points, point.sparsity);
    const before = known ? points[at] : null;
    if (before?.samples > point.samples) return false;
    putInOrder(points, point);
    const entry = this.reading(point);
    const read = this.read.get(criterion).get(unit);
    if (entry) putInOrder(read, entry);
    else {
      const [place, there] = placeOf(read, point.sparsity);
      if (there) read.splice(place, 1);
    }
    return !before || before.samples !== point.samples || before.settled !== point.settled;
  }

  /**
   * A curve as far as conclusions may be drawn from it: up to the first point that was measured and
   * has no value, because outputs were no numbers.
   */
  sound(criterion, unit) {
    const read = this.read.get(criterion)?.get(unit) ?? [];
    const points = this.raw.get(criterion)?.get(unit) ?? [];
    if (read.length === points.length) return read;
    const values = new Set(read.map((point) => point.sparsity));
    const broken = points.find((point) => point.remark && !values.has(point.sparsity));
    return broken ? read.filter((point) => point.sparsity < broken.sparsity) : read;
  }

  /** Curves as the API gives them: points, fit, remark. @returns {[string, string][]} what changed */
  putCurves(curves, fallback) {
    const changed = [];
    for (const { unit, criterion = fallback, points, fit, remark } of curves) {
      const key = CurveBook.key(criterion, unit);
      if (fit?.length) this.fits.set(key, fit);
      if (remark) this.remarks.set(key, remark);
      if (points.map((point) => this.put(criterion, unit, point)).some(Boolean)) {
        changed.push([criterion, unit]);
      }
    }
    return changed;
  }

  remarkOf(criterion, unit) {
    return this.remarks.get(CurveBook.key(criterion, unit)) ?? null;
  }

  putRemarks(remarks) {
    for (const { unit, criterion, reason } of remarks ?? []) {
      this.remarks.set(CurveBook.key(criterion, unit), reason);
    }
  }

  /** Of all criteria: points known, settled, whole and preview, and the samples behind them. */
  count() {
    const found = { points: 0, settled: 0, whole: 0, preview: 0, samples: 0, fewest: Infinity, most: 0 };
    for (const units of this.raw.values()) {
      for (const points of units.values()) {
        for (const point of points) {
          found.points += 1;
          if (isSettled(point)) found.settled += 1;
          if (isWhole(point)) found.whole += 1;
          else if (isPreview(point)) found.preview += 1;
          found.samples += point.samples ?? 0;
          if (point.samples < found.fewest) found.fewest = point.samples;
          if (point.samples > found.most) found.most = point.samples;
        }
      }
    }
    return found;
  }
}
