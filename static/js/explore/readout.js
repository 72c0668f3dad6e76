// The line above the chart: what the selected layer does at its threshold. And the same curve as a
// table of numbers.

import { $, h } from "../dom.js";
import { loss, number, percent, percentValue, plural } from "../format.js";
import { removedCount } from "./prediction.js";
import { collapse, readAt, readKnee } from "./reading.js";
import { toLevel, toPercent, toSparsity } from "./store.js";

const QUIET = 400;

const bold = (text) => h("b", {}, text);

/** @param {import("./store.js").Store} store */
function parts(store) {
  const unit = store.byId.get(store.selected);
  const level = store.levels.get(unit.id);
  const sparsity = toSparsity(level);
  const points = store.curves.get(unit.id);
  const result = [h("span", { class: "mono", title: unit.id }, unit.label)];
  const { yard, metric } = store;
  if (!yard) return [...result, h("span", {}, store.live ? "waiting for the baseline" : "not measured")];
  if (!points.length) return [...result, h("span", {}, "not measured yet")];
  const digits = level % 10_000 ? 1 : 0;
  const removed = removedCount(sparsity, unit.size);
  if (level > 0 && removed === 0) {
    result.push(h("span", { class: "chip warn" },
      `${percent(sparsity, digits)} of ${plural(unit.size, "weight")}: nothing removed`));
  } else if (level > 0) {
    const { value, half } = readAt(points, yard, sparsity);
    const figures = [yard.change(value), metric.spread(half) || (store.hasIntervals ? metric.noSpread : "")];
    result.push(h("span", {
      title: `${number(removed)} of ${number(unit.size)} weights; ± is the 95 % interval${metric.paired ? " of the drop, on the same samples" : ""}`,
    },
      bold(percent(sparsity, digits)), " removed → ", bold(metric.text(value)),
      ` (${figures.filter(Boolean).join(", ")})`));
    if (sparsity > points.at(-1).sparsity) {
      result.push(h("span", { class: "chip warn" },
        `beyond ${percent(points.at(-1).sparsity, 0)}, the last level measured`));
    }
  } else result.push(h("span", {}, "nothing removed"));
  const { knee, holds } = readKnee(points, yard, store.tolerance);
  const limit = metric.signedLimit(store.tolerance);
  if (removedCount(knee, unit.size) === 0) {
    result.push(h("span", {}, "nothing is removed up to ", bold(percent(knee, 0))));
  } else {
    result.push(h("span", {}, `holds ${limit} up to `, bold(percent(knee, 0)),
      holds ? ", the last level measured" : ""));
  }
  const fallen = collapse(points, yard);
  result.push(fallen
    ? h("span", {}, `${metric.sign > 0 ? "falls" : "rises"} to `, bold(metric.text(fallen.value, 0)), ` at ${percent(fallen.sparsity, 0)}`)
    : h("span", {}, `no collapse up to ${percent(points.at(-1).sparsity, 0)}`));
  return result;
}

/** @param {import("./store.js").Store} store */
export function followReadout(store) {
  const line = $("#readout");
  const spoken = $("#readout-spoken");
  let timer = 0;
  const draw = () => {
    if (!store.selected) return;
    line.replaceChildren(...parts(store));
    clearTimeout(timer);
    timer = setTimeout(() => {
      // Read aloud once the hand is at rest, not for every step of a drag.
      spoken.textContent = [...line.children].map((part) => part.textContent).join(", ");
    }, QUIET);
  };
  store.on(["thresholds", "selection", "points", "baseline", "status", "tolerance", "metric"], draw);
  draw();
}

/** The selected curve as a table, filled only while it is open. */
export function followNumbers(store) {
  const box = $("#numbers");
  const body = $("#numbers-body");
  const draw = () => {
    const unit = store.byId.get(store.selected);
    if (!unit) return;
    $("#numbers-name").textContent = unit.label;
    if (!box.open) return;
    body.replaceChildren(...store.curves.get(unit.id).map((point) => h("tr", {},
      h("th", { scope: "row", class: "num" }, String(toPercent(toLevel(point.sparsity)))),
      h("td", { class: "num", title: `achieved ${percent(point.achieved, 4)}` },
        point.achieved === 0 ? "none" : percentValue(point.achieved)),
      h("td", { class: "num" }, store.metric.bare(point.value)),
      h("td", { class: "num muted" }, store.metric.range(point.low, point.high) || "–"),
      h("td", { class: "num" }, loss(point.loss)),
      h("td", { class: "num", title: `${point.lost ?? "?"} lost, ${point.gained ?? "?"} gained` },
        number(point.flips)))));
    $("#numbers-metric").textContent = store.metric.label;
    $("#numbers-n").textContent = store.baseline
      ? `${store.metric.label}${store.metric.fraction ? " in %" : ""}, 95 % interval, mean loss and predictions that changed, of n = ${number(store.baseline.samples)}.`
      : "";
  };
  box.addEventListener("toggle", draw);
  store.on(["selection", "points", "baseline", "metric"], draw);
  draw();
}
