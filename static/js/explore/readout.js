// The line above the chart: what the selected layer does at its threshold, and how well that is known.

import { $, h } from "../dom.js";
import { number, percent, plural, SPACE } from "../format.js";
import { removedCount } from "./prediction.js";
import { collapse, readAt, readKnee } from "./reading.js";
import { isPreview, isWhole, samplesWords, sharpness } from "./sharpness.js";
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
  const remark = store.remark(unit.id);
  if (remark) result.push(h("span", { class: "chip warn" }, remark));
  if (!points.length) return remark ? result : [...result, h("span", {}, "not measured yet")];
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
    const second = store.overlaid(unit.id);
    if (second.length) {
      const other = readAt(second, yard, sparsity).value;
      result.push(h("span", {}, `${store.compared}: `, bold(metric.text(other))));
    }
    result.push(...knownHow(points, sparsity));
    if (sparsity > points.at(-1).sparsity) {
      result.push(h("span", { class: "chip warn" },
        `beyond ${percent(points.at(-1).sparsity, 0)}, the last level measured`));
    }
  } else result.push(h("span", {}, "nothing removed"));
  const found = store.knee(unit.id);
  if (found && found.achieved !== 0) {
    result.push(h("span", {}, "knee at ", bold(`${toPercent(toLevel(found.sparsity))}${SPACE}%`),
      `: ${store.dropWords(found)}`));
    return result;
  }
  if (points.every(isPreview)) return result;
  const sound = store.sound(unit.id);
  const { knee, holds } = readKnee(sound, yard, store.tolerance);
  const limit = metric.signedLimit(store.tolerance);
  const odd = store.points.get(unit.id).find((point) => point.remark && point.achieved !== 0);
  if (odd) result.push(h("span", { class: "chip warn" }, `${percent(odd.sparsity, 0)}: ${odd.remark}`));
  if (removedCount(knee, unit.size) === 0 || points.every((point) => point.achieved === 0)) {
    result.push(h("span", {}, "nothing is removed up to ", bold(percent(knee, 0))));
  } else {
    result.push(h("span", {}, `holds ${limit} up to `, bold(percent(knee, 0)),
      holds && sound.length === points.length ? ", the last level measured" : ""));
  }
  const fallen = collapse(points, yard);
  result.push(fallen
    ? h("span", {}, `${metric.sign > 0 ? "falls" : "rises"} to `, bold(metric.text(fallen.value, 0)), ` at ${percent(fallen.sparsity, 0)}`)
    : h("span", {}, `no collapse up to ${percent(points.at(-1).sparsity, 0)}`));
  return result;
}

/** What a figure between two levels rests on: the weaker of its neighbours. Nothing when both are whole. */
function knownHow(points, sparsity) {
  const right = points.find((point) => point.sparsity >= sparsity);
  const left = points.findLast((point) => point.sparsity <= sparsity);
  const weakest = [left, right].filter((point) => point && !isWhole(point))
    .reduce((a, b) => (!a || b.samples < a.samples ? b : a), null);
  if (!weakest) return [];
  return [sharpness(weakest) === "preview"
    ? h("span", { class: "chip muted" }, `preview, ${samplesWords(weakest)} samples`)
    : h("span", {}, `${samplesWords(weakest)} samples, ± for the split`)];
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
  store.on(["thresholds", "selection", "points", "baseline", "status", "tolerance", "metric", "criterion",
    "remarks"], draw);
  draw();
}
