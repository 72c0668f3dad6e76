// The key numbers. Everything here follows a threshold within one animation frame.

import { $ } from "../dom.js";
import { ago, bytes, bytesParts, count, countParts, number, percentValue, SPACE } from "../format.js";
import { drawForest } from "./forest.js";
import { planCosts, predictMetric } from "./prediction.js";

const put = (id, text) => {
  const element = $(`#${id}`);
  if (element.textContent !== text) element.textContent = text;
};

const change = (now, before) => (before ? percentValue(now / before - 1, 0) : "–");

function fromTo(id, parts, before, wasParts) {
  put(`${id}-from`, `${before} →`);
  put(id, parts.value);
  put(`${id}-unit`, parts.unit || wasParts || "");
}

export class Kpis {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    const { facts } = store;
    this.totals = {
      parameters: facts.total_parameters, macs: facts.total_macs, bytes: facts.total_bytes,
    };
    $("#kpi-macs").hidden = !facts.total_macs;
    store.on(
      ["thresholds", "points", "baseline", "status", "plans", "work", "metric", "criterion",
        "size", "theme", "clock"],
      () => this.draw(),
    );
    this.draw();
  }

  /** What is predicted for the present thresholds; null before there is a baseline. */
  predict() {
    const { yard, metric, curves } = this.store;
    if (!yard) return null;
    const [value, low, high] = predictMetric(curves, yard.baseline, this.sparsities, metric);
    return { value, low, high, half: Math.max(high - value, value - low) };
  }

  draw() {
    this.sparsities = this.store.sparsities();
    this.drawCosts();
    this.drawJudged();
  }

  drawCosts() {
    const { totals } = this;
    const costs = planCosts(this.store.facts.units, this.sparsities, totals);
    put("k-sparsity", percentValue(costs.sparsity));
    put("k-sparsity-s", `of ${number(costs.size)} weights`);
    fromTo("k-params", countParts(costs.parameters), count(totals.parameters));
    put("k-params-s",
      `${change(costs.parameters, totals.parameters)}${SPACE}%, ${number(costs.parameters)} non-zero`);
    if (totals.macs) {
      fromTo("k-macs", countParts(costs.macs), count(totals.macs));
      put("k-macs-s", `${change(costs.macs, totals.macs)}${SPACE}%, counted non-zero`);
    }
    fromTo("k-file", bytesParts(costs.bytes), bytes(totals.bytes));
    put("k-file-s", `packed estimate; download ${bytes(totals.bytes)}`);
  }

  drawJudged() {
    const { store } = this;
    const { metric } = store;
    put("k-pred-name", metric.label);
    put("k-meas-name", metric.label);
    put("k-pred-unit", metric.unit);
    put("k-meas-unit", metric.unit);
    const predicted = this.predict();
    const current = store.currentPlan();
    if (current && store.measurement(current)) store.reference = current.id;
    const source = current && store.measurement(current) ? current : store.plans.get(store.reference);
    const measurement = store.measurement(source);
    const found = metric.of(measurement);
    const measured = found && { ...measurement, ...found };
    const stale = measured !== null && source !== current;
    this.drawPredicted(predicted);
    this.drawMeasured(measured, source, stale, measurement);
    $("#forest").hidden = !predicted;
    if (!predicted) return;
    drawForest($("#forest"), {
      yard: store.yard, predicted: store.nothingChosen ? null : predicted,
      measured, stale,
    });
  }

  drawPredicted(predicted) {
    const { store } = this;
    $("#k-predicted").classList.toggle("none", !predicted);
    if (!predicted) {
      put("k-pred", "–");
      put("k-pred-d", "");
      put("k-pred-s", store.live ? "waiting for the baseline" : "no baseline was measured");
      return;
    }
    put("k-pred", store.metric.bare(predicted.value));
    if (store.nothingChosen) {
      put("k-pred-d", "");
      put("k-pred-s", "nothing removed: the baseline");
      return;
    }
    put("k-pred-d", store.yard.brief(predicted.value));
    let unknown = 0;
    for (const [unit, level] of store.levels) {
      if (level > 0 && !store.curves.get(unit).length) unknown += 1;
    }
    const left = unknown ? `without ${unknown} not measured` : "estimate";
    const half = store.hasIntervals ? store.metric.spread(predicted.half) || store.metric.noSpread : "";
    put("k-pred-s", [half, left].filter(Boolean).join(", "));
  }

  drawMeasured(measured, plan, stale, measurement) {
    const { store } = this;
    const box = $("#k-meas");
    box.classList.toggle("stale", stale);
    box.classList.toggle("none", !measured);
    if (!measured) {
      put("k-meas-v", "–");
      put("k-meas-d", "");
      const busy = store.work !== null && !store.work.error;
      const next = store.nothingChosen
        ? "choose thresholds, then measure" : "press Measure to run this plan";
      const other = measurement ? `measured without ${store.metric.word}` : next;
      put("k-meas-s", busy ? "being measured" : other);
      return;
    }
    put("k-meas-v", store.metric.bare(measured.value));
    const baseline = store.metric.value(measured.baseline) ?? store.yard?.baseline ?? null;
    const change = () => store.metric.against(baseline).brief(measured.value);
    put("k-meas-d", baseline === null || stale ? "" : change());
    const range = store.metric.range(measured.low, measured.high);
    const age = ago(measured.created_at ?? plan.created_at);
    const facts = `${range} n = ${number(measured.samples)}`.trim();
    put("k-meas-s", stale ? `${facts}, of the previous plan` : [facts, age].filter(Boolean).join(", "));
  }
}
