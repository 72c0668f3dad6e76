/**
 * What a plan will do, predicted in the page: the same sums as `app/domain/prediction.py` and
 * `app/domain/sizes.py`, number for number (`tests/browser/test_prediction_js.py` compares them).
 *
 * The joint accuracy is predicted as if layers failed independently:
 * `baseline * product over units of min(1, accuracy_u(s_u) / baseline)`; the band adds the paired
 * variances of the units' drops. It knows nothing of interactions between layers.
 */

/** Two-sided standard normal quantile for 95 %. */
export const Z95 = 1.959963984540054;

/**
 * @typedef {{sparsity: number, accuracy: number, deviation: number}} CurvePoint
 * @typedef {{id: string, size: number, rows: number, itemsize: number, macs: number}} UnitFacts
 * @typedef {{parameters: number, macs: number, bytes: number}} Totals
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
 * Accuracy and deviation at `sparsity`, linear between measured points (ascending, all above 0).
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
    return [last.accuracy, last.deviation];
  }
  const right = points[index];
  if (right.sparsity === sparsity) return [right.accuracy, right.deviation];
  const left = index > 0 ? points[index - 1] : { sparsity: 0, accuracy: baseline, deviation: 0 };
  const share = (sparsity - left.sparsity) / (right.sparsity - left.sparsity);
  return [
    left.accuracy + share * (right.accuracy - left.accuracy),
    left.deviation + share * (right.deviation - left.deviation),
  ];
}

/**
 * `[accuracy, low, high]` of the joint plan. Units without a curve are taken as harmless.
 *
 * @param {Map<string, CurvePoint[]>} curves
 * @param {Map<string, number>} sparsities fractions by unit
 * @returns {[number, number, number]}
 */
export function predictAccuracy(curves, baseline, sparsities) {
  if (baseline <= 0) return [0, 0, 0];
  let kept = 1;
  let variance = 0;
  for (const [unit, sparsity] of sparsities) {
    const points = curves.get(unit);
    if (!points || points.length === 0 || sparsity <= 0) continue;
    const [accuracy, deviation] = interpolate(points, baseline, sparsity);
    kept *= Math.min(1, accuracy / baseline);
    variance += (deviation / baseline) ** 2;
  }
  const predicted = baseline * kept;
  const half = Z95 * baseline * Math.sqrt(variance);
  return [predicted, Math.max(0, predicted - half), Math.min(1, predicted + half)];
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
