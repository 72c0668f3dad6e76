// Small curves as SVG. Same y scale as the large chart: asinh of the loss, so that the first
// percentage point takes about a fifth of the height. Errors rise, everything else falls.

import { svg } from "./dom.js";
import { ACCURACY } from "./metrics.js";

/** Room for gains, in kinks of the scale. */
const HEADROOM = 1.5;
/** The largest loss that is told from a larger one: a share of a fraction, a multiple of an error. */
const DEPTH = 0.72;
const GROWTH = 8;

/**
 * Height of a value on the stretched scale.
 * @param {number} value of the metric
 * @param {number} baseline of the dense network
 * @param {import("./metrics.js").Metric} metric
 * @returns {number} 0 (top) to 1 (bottom), clamped; a little from the baseline's side of the picture
 *   is for gains
 */
export function stretched(value, baseline, metric = ACCURACY) {
  const yard = metric.against(baseline);
  const { kink } = metric.family;
  const bend = (loss) => Math.asinh(loss / kink);
  const start = bend(-HEADROOM * kink);
  const deepest = metric.fraction
    ? Math.max(baseline * DEPTH, 0.05)
    : metric.higher_is_better ? DEPTH : GROWTH;
  const at = (bend(yard.loss(value)) - start) / (bend(deepest) - start);
  const inside = Math.min(1, Math.max(0, at));
  return metric.higher_is_better ? inside : 1 - inside;
}

/**
 * SVG path data of one curve, x is sparsity 0 to 1 over `width`.
 * @param {[number, number][]} points [sparsity, value], any order; the dense point (0, baseline)
 *   is added in front
 */
export function curvePath(points, { baseline, metric = ACCURACY, width = 100, height = 20 }) {
  const sorted = [...points].sort((a, b) => a[0] - b[0]);
  if (!sorted.length || sorted[0][0] > 0) sorted.unshift([0, baseline]);
  return sorted
    .map(([sparsity, value], index) => {
      const x = (sparsity * width).toFixed(1);
      const y = (stretched(value, baseline, metric) * height).toFixed(1);
      return `${index ? "L" : "M"}${x} ${y}`;
    })
    .join("");
}

/**
 * One curve for a table row: `.past` in grey over the whole range, `.kept` in ink (the style sheet
 * clips it at the threshold), `.tol` the line of the baseline (or of a tolerated accuracy).
 * @returns {SVGSVGElement} viewBox 0 0 100 20, decoration only
 */
export function sparkline(points, { baseline, tolerated = baseline, width = 100, height = 20 }) {
  const path = curvePath(points, { baseline, width, height });
  const y = (stretched(tolerated, baseline) * height).toFixed(1);
  return svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      preserveAspectRatio: "none",
      "aria-hidden": "true",
    },
    svg("path", { class: "tol", d: `M0 ${y}H${width}` }),
    svg("path", { class: "past", d: path }),
    svg("path", { class: "kept", d: path }),
  );
}

/**
 * All curves of an analysis in one small picture: every unit thin, the median in ink, the worst in
 * between.
 * @param {Record<string, [number, number][]>} curves by unit
 * @param {number} baseline of the dense network
 * @param {string} label what it is, for people who can't see it
 * @returns {SVGSVGElement}
 */
export function miniCurves(curves, baseline, label, metric = ACCURACY) {
  const size = { baseline, metric, width: 100, height: 34 };
  const lines = Object.values(curves).filter((points) => points.length);
  const picture = svg(
    "svg",
    {
      class: "mini",
      viewBox: "0 0 100 34",
      preserveAspectRatio: "none",
      role: "img",
      "aria-label": label,
    },
    lines.map((points) => svg("path", { d: curvePath(points, size) })),
  );
  if (lines.length > 2) {
    const low = (points) => Math.min(...points.map((point) => metric.sign * point[1]));
    const worst = lines.reduce((a, b) => (low(b) < low(a) ? b : a));
    picture.append(svg("path", { class: "worst", d: curvePath(worst, size) }));
    picture.append(svg("path", { class: "med", d: curvePath(medianCurve(lines), size) }));
  }
  return picture;
}

/** Median over the units, at the sparsities that at least half of them have. */
export function medianCurve(lines) {
  const at = new Map();
  for (const points of lines) {
    for (const [sparsity, value] of points) {
      if (!at.has(sparsity)) at.set(sparsity, []);
      at.get(sparsity).push(value);
    }
  }
  return [...at]
    .filter(([, values]) => values.length * 2 >= lines.length)
    .map(([sparsity, values]) => {
      values.sort((a, b) => a - b);
      return [sparsity, values[values.length >> 1]];
    })
    .sort((a, b) => a[0] - b[0]);
}
