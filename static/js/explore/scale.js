// The axis of the metric. Stretched: asinh of the loss, so that the first of it, where decisions are
// made, takes about a fifth of the height. Pure.

import { MINUS, number } from "../format.js";

/**
 * @param {"stretched" | "linear"} kind
 * @param {import("../metrics.js").Yardstick} yard
 * @returns {(value: number) => number} axis units, growing with the value
 */
export function axisOf(kind, yard) {
  if (kind === "stretched") return (value) => yard.stretch(value);
  return yard.metric.fraction ? (value) => value * 100 : (value) => value;
}

/** The values between which the axis runs, with room for what was measured. */
export function rangeOf(kind, yard, lowest, highest, tolerance) {
  const { baseline, metric } = yard;
  if (metric.fraction) return rangeOfFractions(kind, baseline, lowest, highest, tolerance);
  const worst = yard.at(tolerance * 1.6);
  const low = Math.min(lowest, worst, baseline);
  const high = Math.max(highest, worst, baseline);
  const floor = !metric.higher_is_better && low >= 0 ? 0 : -Infinity;
  if (kind === "linear") {
    const room = (high - low) * 0.05;
    return [Math.max(floor, low - room), high + room];
  }
  const room = (yard.stretch(high) - yard.stretch(low)) * 0.07;
  return [
    Math.max(floor, yard.unstretch(yard.stretch(low) - room)),
    yard.unstretch(yard.stretch(high) + room),
  ];
}

function rangeOfFractions(kind, baseline, lowest, highest, tolerance) {
  const floor = Math.min(lowest, baseline - tolerance * 1.6);
  if (kind === "linear") {
    const room = Math.max(0.02, (Math.max(highest, baseline) - floor) * 0.05);
    return [Math.max(-0.01, floor - room), Math.min(1.02, Math.max(highest, baseline) + room)];
  }
  const top = Math.max(highest + 0.002, baseline + 0.008);
  const bottom = floor - Math.max(0.004, (baseline - floor) * 0.12);
  return [Math.max(-0.01, bottom), Math.min(top, Math.max(1.004, baseline + 0.004))];
}

/** Steps of 1, 2 and 5, coarse to fine. */
function steps(yard, low, high) {
  if (yard.metric.fraction) {
    const finest = high - low > 0.03 ? 0.005 : 0.001;
    return [0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001].filter((step) => step >= finest);
  }
  const first = Math.floor(Math.log10((high - low) / 2));
  const found = [];
  for (let power = first; power > first - 4; power -= 1) {
    for (const digit of [5, 2, 1]) found.push(Number(`${digit}e${power}`));
  }
  return found;
}

/**
 * Round tick values: coarse ones first, finer ones where there is still room for their text.
 *
 * @param {import("../metrics.js").Yardstick} yard
 * @param {(value: number) => number} toPixel
 * @param {number} gap smallest distance of two ticks in pixels
 * @param {number[]} reserved values whose own marks must stay free
 * @returns {number[]} descending
 */
export function roundTicks(low, high, yard, toPixel, gap = 22, reserved = []) {
  const taken = reserved.map(toPixel);
  const ticks = [];
  const { baseline, metric } = yard;
  const [least, most] = metric.fraction ? [Math.max(low, 0), Math.min(high, 1)] : [low, high];
  const coarsest = metric.fraction ? 0.1 : Infinity;
  for (const step of steps(yard, low, high)) {
    for (let k = Math.floor(most / step + 1e-9); k * step >= least - step * 1e-9; k -= 1) {
      const value = Number((k * step).toPrecision(10));
      // Far from the baseline only round numbers are worth reading.
      if (step < coarsest && Math.abs(baseline - value) > (metric.fraction ? 5 : 12) * step) continue;
      const pixel = toPixel(value);
      if (taken.some((other) => Math.abs(other - pixel) < gap)) continue;
      taken.push(pixel);
      ticks.push(value);
    }
    if (ticks.length >= 12) break;
  }
  return ticks.sort((a, b) => b - a);
}

/** 0.92 → "92 %", 0.915 → "91.5 %"; of numbers no more digits than they need. */
export function tickText(value, metric) {
  if (metric.fraction) return `${Number((value * 100).toFixed(2))}\u202f%`;
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) {
    return Number(value.toPrecision(3)).toExponential().replace("e+", "e").replaceAll("-", MINUS);
  }
  if (size >= 1000) return number(value, 0);
  return String(Number(value.toPrecision(4))).replace("-", MINUS);
}
