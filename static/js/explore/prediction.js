/**
 * What a plan will do, predicted in the page: the same sums as `app/domain/prediction.py` and
 * `app/domain/sizes.py`, number for number (`tests/browser/test_prediction_js.py` compares them).
 *
 * Layers are predicted as if they failed independently. Fractions of which more is better multiply
 * what each unit keeps: `baseline * product over units of min(1, value_u(s_u) / baseline)`; all other
 * metrics add up what each unit costs. The band adds the variances of the units. It knows nothing of
 * interactions between layers.
 */

/** Two-sided standard normal quantile for 95 %. */
export const Z95 = 1.959963984540054;

/**
 * @typedef {{sparsity: number, value: number, deviation: number}} CurvePoint
 * @typedef {{id: string, size: number, rows: number, itemsize: number, macs: number}} UnitFacts
 * @typedef {{parameters: number, macs: number, bytes: number}} Totals
 * @typedef {{name: string, label: string, higher_is_better: boolean, fraction: boolean}} Metric
 */

/** Round half to even, as Python does: both sides must remove the same number of weights. */
export function roundHalfEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return rest < 0.5 ? floor : floor + 1;
  return floor % 2 === 0 ? floor : floor + 1;
}

/** How many of `size` entries leave at this sparsity. */
export function removedCount(sparsity, size) {
  return roundHalfEven(sparsity * size);
}

/** Standard deviation of the paired accuracy difference (McNemar 1947): b = lost, c = gained. */
export function pairedDeviation(lost, gained, samples) {
  if (samples === 0) return 0;
  const difference = (gained - lost) / samples;
  return Math.sqrt(
    Math.max(0, (lost + gained) / samples - difference * difference) / samples,
  );
}

/** The error function by its Taylor series: all digits for the |x| below 4 that are asked for here. */
function erf(x) {
  let term = x;
  let sum = x;
  for (let n = 1; Math.abs(term) > 1e-17 * Math.abs(sum) && n < 200; n += 1) {
    term *= (-x * x) / n;
    sum += term / (2 * n + 1);
  }
  return (2 / Math.sqrt(Math.PI)) * sum;
}

/** Two-sided standard normal quantile: 0.95 → 1.96. By Newton's method. */
export function normalQuantile(confidence) {
  if (confidence === 0.95) return Z95;
  let z = 1.5;
  for (let turn = 0; turn < 60; turn += 1) {
    const slope = Math.sqrt(2 / Math.PI) * Math.exp((-z * z) / 2);
    const step = (erf(z / Math.SQRT2) - confidence) / slope;
    z -= Math.max(-0.5, Math.min(0.5, step));
    if (Math.abs(step) < 1e-14) break;
  }
  return z;
}

/** The deviation of a metric that is known by its interval; without one, 0. */
export function intervalDeviation(low, high, confidence = 0.95) {
  const known = typeof low === "number" && typeof high === "number";
  return known ? Math.max(0, (high - low) / 2) / normalQuantile(confidence) : 0;
}

/** The first index whose sparsity is not below `sparsity`; `points` ascend. */
function bisectLeft(points, sparsity) {
  let low = 0;
  let high = points.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle].sparsity < sparsity) low = middle + 1;
    else high = middle;
  }
  return low;
}

/**
 * Value and deviation at `sparsity`, linear between measured points (ascending, all above 0).
 * Nothing removed is the baseline exactly; beyond the last point, the last point.
 *
 * @param {CurvePoint[]} points
 * @returns {[number, number]}
 */
export function interpolate(points, baseline, sparsity) {
  if (sparsity <= 0 || points.length === 0) return [baseline, 0];
  const index = bisectLeft(points, sparsity);
  if (index >= points.length) {
    const last = points[points.length - 1];
    return [last.value, last.deviation];
  }
  const right = points[index];
  if (right.sparsity === sparsity) return [right.value, right.deviation];
  const left = index > 0 ? points[index - 1] : { sparsity: 0, value: baseline, deviation: 0 };
  const share = (sparsity - left.sparsity) / (right.sparsity - left.sparsity);
  return [
    left.value + share * (right.value - left.value),
    left.deviation + share * (right.deviation - left.deviation),
  ];
}

/** Whether the fractions that units keep of this metric are multiplied. */
export const multiplies = (metric) => metric.fraction && metric.higher_is_better;

/**
 * `[value, low, high]` of the joint plan. Units without a curve are taken as harmless.
 *
 * @param {Map<string, CurvePoint[]>} curves
 * @param {Map<string, number>} sparsities fractions by unit
 * @param {Metric} metric
 * @returns {[number, number, number]}
 */
export function predictMetric(curves, baseline, sparsities, metric) {
  if (multiplies(metric) && baseline <= 0) return [0, 0, 0];
  const sign = metric.higher_is_better ? 1 : -1;
  let kept = 1;
  let lost = 0;
  let variance = 0;
  for (const [unit, sparsity] of sparsities) {
    const points = curves.get(unit);
    if (!points || points.length === 0 || sparsity <= 0) continue;
    const [value, deviation] = interpolate(points, baseline, sparsity);
    if (multiplies(metric)) kept *= Math.min(1, value / baseline);
    else lost += Math.max(0, sign * (baseline - value));
    variance += deviation ** 2;
  }
  const predicted = multiplies(metric) ? baseline * kept : baseline - sign * lost;
  const half = Z95 * Math.sqrt(variance);
  const low = predicted - half;
  const high = predicted + half;
  if (metric.fraction) return [predicted, Math.max(0, low), Math.min(1, high)];
  // What counts down to nothing (errors, losses) is never below it.
  const floor = Math.min(0, predicted);
  return [predicted, metric.higher_is_better ? low : Math.max(floor, low), high];
}

/** Bytes of the cheapest layout: dense; a bitmap and the non-zeros; CSR. */
export function packedBytes(size, nonzero, rows, itemsize) {
  const dense = size * itemsize;
  const bitmap = Math.ceil(size / 8) + nonzero * itemsize;
  const columns = rows ? Math.floor(size / rows) : size;
  const indexBytes = columns <= 65536 ? 2 : 4;
  const csr = (rows + 1) * 4 + nonzero * (indexBytes + itemsize);
  return Math.min(dense, bitmap, csr);
}

/**
 * What a plan costs. MACs count multiplications by a non-zero weight; zeros do not make dense
 * kernels faster.
 *
 * @param {Iterable<UnitFacts>} units
 * @param {Map<string, number>} sparsities
 * @param {Totals} totals
 * @returns {{sparsity: number, removed: number, size: number, parameters: number, macs: number,
 *   bytes: number}}
 */
export function planCosts(units, sparsities, totals) {
  let removedTotal = 0;
  let sizeTotal = 0;
  let macs = totals.macs;
  let bytes = totals.bytes;
  for (const unit of units) {
    const removed = removedCount(sparsities.get(unit.id) ?? 0, unit.size);
    removedTotal += removed;
    sizeTotal += unit.size;
    if (unit.size) {
      macs -= (unit.macs * removed) / unit.size;
      bytes -=
        unit.size * unit.itemsize -
        packedBytes(unit.size, unit.size - removed, unit.rows, unit.itemsize);
    }
  }
  return {
    sparsity: sizeTotal ? removedTotal / sizeTotal : 0,
    removed: removedTotal,
    size: sizeTotal,
    parameters: totals.parameters - removedTotal,
    macs: roundHalfEven(macs),
    bytes,
  };
}
