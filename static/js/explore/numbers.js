// The selected curve as a table of numbers: what each point is, on how many samples, with which interval.

import { $, h } from "../dom.js";
import { loss, number, percent, percentValue } from "../format.js";
import { intervalWords, isPreview, isWhole, samplesWords } from "./sharpness.js";
import { toLevel, toPercent } from "./store.js";

const COLUMNS = 5;

/** A mean divergence in nats: three digits, 0 as it is. */
const nats = (value) => (value === 0 ? "0" : loss(value));

/** The rows of one point: its figures, and what they rest on. */
function rowsOf(store, point) {
  const { metric, evaluation } = store;
  const kind = isPreview(point) ? "preview" : isWhole(point) ? "whole" : "partial";
  const start = [
    h("th", { scope: "row", class: "num" }, String(toPercent(toLevel(point.sparsity)))),
    h("td", { class: "num", title: `achieved ${percent(point.achieved, 4)}` },
      point.achieved === 0 ? "none" : percentValue(point.achieved)),
  ];
  const said = (words) => h("tr", { class: "said" }, h("td", { colspan: COLUMNS }, words));
  if (point.achieved === 0) {
    const words = h("td", { colspan: COLUMNS - 2, class: "none" }, point.remark ?? "nothing removed");
    return [h("tr", { class: kind }, ...start, words)];
  }
  const interval = Number.isFinite(point.low)
    ? `interval ${intervalWords(point, evaluation.confidence)}` : "no interval";
  return [
    h("tr", { class: kind }, ...start,
      h("td", { class: "num" }, metric.bare(point.value)),
      h("td", { class: "num muted" }, metric.range(point.low, point.high) || "–"),
      h("td", { class: "num", title: `${point.lost ?? "?"} lost, ${point.gained ?? "?"} gained` },
        number(point.flips))),
    h("tr", { class: `rests ${kind}` }, h("td", { colspan: COLUMNS },
      kind === "preview" ? h("b", {}, "preview, ") : null,
      `${samplesWords(point)} samples, ${interval}; KL ${nats(point.kl)}, loss ${loss(point.loss)}`)),
    ...(point.remark ? [said(point.remark)] : []),
  ];
}

/** Filled only while it is open. @param {import("./store.js").Store} store */
export function followNumbers(store) {
  const box = $("#numbers");
  const body = $("#numbers-body");
  const draw = () => {
    const unit = store.byId.get(store.selected);
    if (!unit) return;
    $("#numbers-name").textContent =
      store.criteria.length > 1 ? `${unit.label}, ${store.criterion}` : unit.label;
    if (!box.open) return;
    const read = new Map(store.curves.get(unit.id).map((point) => [point.sparsity, point]));
    const points = store.points.get(unit.id);
    const rows = points.flatMap((point) => rowsOf(store,
      read.get(point.sparsity) ?? { ...point, value: null, low: null, high: null }));
    const remark = store.remark(unit.id);
    if (remark) rows.unshift(h("tr", { class: "said" }, h("td", { colspan: COLUMNS }, remark)));
    body.replaceChildren(...rows);
    $("#numbers-metric").textContent = store.metric.label;
    $("#numbers-n").textContent = store.baseline
      ? `${store.metric.label}${store.metric.fraction ? " in %" : ""}; flips: answers that changed; KL: ` +
        "divergence from the dense network’s outputs in nats; loss: mean. All split: n = " +
        `${number(store.baseline.samples)}.`
      : "";
  };
  box.addEventListener("toggle", draw);
  store.on(["selection", "points", "baseline", "metric", "criterion", "remarks"], draw);
  draw();
}
