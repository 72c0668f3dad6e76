// Predicted and measured value on one scale: hollow and dashed against solid, the baseline as a tick.
// Plain SVG in the colours of the style sheet.

import { niceTicks } from "../charts.js";
import { svg } from "../dom.js";
import { number, SPACE } from "../format.js";
import { tickText } from "./scale.js";

const HEIGHT = 60;
const AXIS = 46;
const PREDICTED = 22;
const MEASURED = 36;

/** The range to show: all marks, some air, never less than 1 pp or 1 % of the value. */
function rangeOf(values, yard) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const least = 0.01 * yard.scale;
  const air = Math.max(0.15 * (high - low), (least - (high - low)) / 2, least / 10);
  return [low - air, high + air];
}

function describe({ predicted, measured, stale, yard }) {
  const { metric } = yard;
  const words = [metric.label];
  if (predicted) words.push(`predicted ${metric.bare(predicted.value)}`);
  if (measured) {
    const range = Number.isFinite(measured.low) && Number.isFinite(measured.high)
      ? ` between ${metric.bare(measured.low)} and ${metric.bare(measured.high)}` : "";
    words.push(`measured ${metric.bare(measured.value)}${range}` +
      (stale ? " for the previous plan" : ""));
  }
  words.push(`baseline ${metric.bare(yard.baseline)}${metric.fraction ? " per cent" : ""}`);
  return words.join(", ");
}

/** Round ticks as `[value, text]`, inside the picture. */
function ticksOf(low, high, width, metric) {
  const about = Math.max(2, Math.min(4, width / 90));
  if (!metric.fraction) return niceTicks(low, high, about).map((tick) => [tick, tickText(tick, metric)]);
  const ticks = niceTicks(low * 100, high * 100, about).filter((tick) => tick <= 100);
  const digits = ticks.some((tick) => tick % 1) ? 1 : 0;
  return ticks.map((tick) => [tick / 100, number(tick, digits)]);
}

/**
 * @typedef {{value: number, low: number | null, high: number | null}} Figure
 * @param {HTMLElement} box
 * @param {{yard: import("../metrics.js").Yardstick, predicted: Figure | null,
 *   measured: Figure | null, stale: boolean}} figures
 */
export function drawForest(box, figures) {
  const { yard, predicted, measured, stale } = figures;
  const { baseline, metric } = yard;
  const width = box.clientWidth;
  if (width < 60) return;
  const values = [baseline];
  for (const figure of [predicted, measured]) {
    if (figure) values.push(figure.value, figure.low ?? figure.value, figure.high ?? figure.value);
  }
  const [low, high] = rangeOf(values, yard);
  const x = (value) => Number((((value - low) / (high - low)) * width).toFixed(1));
  const ticks = ticksOf(low, high, width, metric)
    .filter(([tick]) => x(tick) > 10 && x(tick) < width - 12);
  const label = Math.min(Math.max(x(baseline), 40), width - 40);
  const whisker = (figure, y) => `M${x(figure.low ?? figure.value)} ${y}H${x(figure.high ?? figure.value)}`;
  const children = [
    svg("path", { class: "f-axis", d: `M0 ${AXIS}.5H${width}` }),
    ticks.map(([tick, text], index) => [
      svg("path", { class: "f-tick", d: `M${x(tick)} ${AXIS}v4` }),
      svg("text", { x: x(tick), y: HEIGHT, "text-anchor": "middle" },
        text + (metric.fraction && index === ticks.length - 1 ? `${SPACE}%` : "")),
    ]),
    svg("path", { class: "f-base", d: `M${x(baseline)} 12V${AXIS}` }),
    svg("text", { x: label, y: 8, "text-anchor": "middle" }, `baseline ${metric.text(baseline)}`),
  ];
  if (predicted) {
    children.push(
      svg("path", { class: "f-pred", d: whisker(predicted, PREDICTED) }),
      svg("circle", { class: "f-pred-dot", cx: x(predicted.value), cy: PREDICTED, r: 4.5 }));
  }
  if (measured) {
    children.push(svg("g", { class: stale ? "f-stale" : "f-meas" },
      svg("path", { d: whisker(measured, MEASURED) }),
      svg("circle", { cx: x(measured.value), cy: MEASURED, r: 5 })));
  }
  box.replaceChildren(svg("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": describe(figures),
  }, children));
}
