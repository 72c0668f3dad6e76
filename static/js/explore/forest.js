// Predicted and measured accuracy on one scale: hollow and dashed against solid, the baseline as a
// tick. Plain SVG in the colours of the style sheet.

import { niceTicks } from "../charts.js";
import { svg } from "../dom.js";
import { number, percent, SPACE } from "../format.js";

const HEIGHT = 60;
const AXIS = 46;
const PREDICTED = 22;
const MEASURED = 36;

/** The range to show: all marks, some air, never less than 1 pp. */
function rangeOf(values) {
  const low = Math.min(...values);
  const high = Math.max(...values);
  const air = Math.max(0.15 * (high - low), (0.01 - (high - low)) / 2, 0.001);
  return [low - air, high + air];
}

function describe({ predicted, measured, stale, baseline }) {
  const words = [];
  if (predicted) words.push(`predicted ${number(predicted.accuracy * 100, 1)}`);
  if (measured) {
    words.push(`measured ${number(measured.accuracy * 100, 1)} between ` +
      `${number(measured.low * 100, 1)} and ${number(measured.high * 100, 1)}` +
      (stale ? " for the previous plan" : ""));
  }
  words.push(`baseline ${number(baseline * 100, 1)} per cent`);
  return words.join(", ");
}

/**
 * @param {HTMLElement} box
 * @param {{baseline: number, predicted: {accuracy: number, low: number, high: number} | null,
 *   measured: {accuracy: number, low: number, high: number} | null, stale: boolean}} figures
 */
export function drawForest(box, figures) {
  const { baseline, predicted, measured, stale } = figures;
  const width = box.clientWidth;
  if (width < 60) return;
  const values = [baseline];
  for (const figure of [predicted, measured]) {
    if (figure) values.push(figure.accuracy, figure.low, figure.high);
  }
  const [low, high] = rangeOf(values);
  const x = (value) => Number((((value - low) / (high - low)) * width).toFixed(1));
  const ticks = niceTicks(low * 100, high * 100, Math.max(2, Math.min(4, width / 90)))
    .filter((tick) => tick <= 100 && x(tick / 100) > 10 && x(tick / 100) < width - 12);
  const digits = ticks.some((tick) => tick % 1) ? 1 : 0;
  const label = Math.min(Math.max(x(baseline), 40), width - 40);
  const children = [
    svg("path", { class: "f-axis", d: `M0 ${AXIS}.5H${width}` }),
    ticks.map((tick, index) => [
      svg("path", { class: "f-tick", d: `M${x(tick / 100)} ${AXIS}v4` }),
      svg("text", { x: x(tick / 100), y: HEIGHT, "text-anchor": "middle" },
        number(tick, digits) + (index === ticks.length - 1 ? `${SPACE}%` : "")),
    ]),
    svg("path", { class: "f-base", d: `M${x(baseline)} 12V${AXIS}` }),
    svg("text", { x: label, y: 8, "text-anchor": "middle" }, `baseline ${percent(baseline)}`),
  ];
  if (predicted) {
    children.push(
      svg("path", { class: "f-pred", d: `M${x(predicted.low)} ${PREDICTED}H${x(predicted.high)}` }),
      svg("circle", { class: "f-pred-dot", cx: x(predicted.accuracy), cy: PREDICTED, r: 4.5 }));
  }
  if (measured) {
    children.push(svg("g", { class: stale ? "f-stale" : "f-meas" },
      svg("path", { d: `M${x(measured.low)} ${MEASURED}H${x(measured.high)}` }),
      svg("circle", { cx: x(measured.accuracy), cy: MEASURED, r: 5 })));
  }
  box.replaceChildren(svg("svg", {
    viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": describe(figures),
  }, children));
}
