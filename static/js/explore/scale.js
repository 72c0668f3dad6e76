// The accuracy axis. Stretched: asinh of the loss, so that the first percentage point, where
// decisions are made, takes about a fifth of the height. Pure.

/** Drop in accuracy (fraction) at which the stretched scale turns from linear to logarithmic. */
const KINK = 0.006;

/**
 * @param {"stretched" | "linear"} kind
 * @returns {(accuracy: number) => number} axis units, growing with accuracy
 */
export function axisOf(kind, baseline) {
  if (kind === "linear") return (accuracy) => accuracy * 100;
  return (accuracy) => -Math.asinh((baseline - accuracy) / KINK);
}

/** The accuracies between which the axis runs, with room for what was measured. */
export function rangeOf(kind, baseline, lowest, highest, tolerance) {
  const floor = Math.min(lowest, baseline - tolerance * 1.6);
  if (kind === "linear") {
    const room = Math.max(0.02, (Math.max(highest, baseline) - floor) * 0.05);
    return [Math.max(-0.01, floor - room), Math.min(1.02, Math.max(highest, baseline) + room)];
  }
  const top = Math.max(highest + 0.002, baseline + 0.008);
  const bottom = floor - Math.max(0.004, (baseline - floor) * 0.12);
  return [Math.max(-0.01, bottom), Math.min(top, Math.max(1.004, baseline + 0.004))];
}

/**
 * Round tick values: coarse ones first, finer ones where there is still room for their text.
 *
 * @param {(accuracy: number) => number} toPixel
 * @param {number} gap smallest distance of two ticks in pixels
 * @param {number[]} reserved accuracies whose own marks must stay free
 * @returns {number[]} accuracies, descending
 */
export function roundTicks(low, high, baseline, toPixel, gap = 22, reserved = []) {
  const taken = reserved.map((accuracy) => ({ accuracy, pixel: toPixel(accuracy) }));
  const ticks = [];
  const finest = high - low > 0.03 ? 0.005 : 0.001;
  for (const step of [0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001]) {
    if (step < finest) break;
    const first = Math.floor(Math.min(high, 1) / step + 1e-9);
    for (let k = first; k * step >= Math.max(low, 0) - 1e-9; k -= 1) {
      const accuracy = Number((k * step).toFixed(4));
      // Far from the baseline only round numbers are worth reading.
      if (step < 0.1 && Math.abs(baseline - accuracy) > 5 * step) continue;
      const pixel = toPixel(accuracy);
      if (taken.some((other) => Math.abs(other.pixel - pixel) < gap)) continue;
      taken.push({ accuracy, pixel });
      ticks.push(accuracy);
    }
    if (ticks.length >= 12) break;
  }
  return ticks.sort((a, b) => b - a);
}

/** 0.92 → "92 %", 0.915 → "91.5 %". */
export function tickText(accuracy) {
  return `${Number((accuracy * 100).toFixed(2))}\u202f%`;
}
