// Saved plans: making one of the present thresholds, opening an earlier one, the table of those
// that were measured.

import { post } from "../api.js";
import { $, h } from "../dom.js";
import { number, percent } from "../format.js";
import { toLevel } from "./store.js";

const SHOWN = 12;

/** The saved plan of the present thresholds; makes it when there is none. */
export async function ensurePlan(store) {
  const known = store.currentPlan();
  if (known) return known;
  const plan = await post("/api/plans", {
    analysis_id: store.analysis.id,
    criterion: store.criterion,
    sparsities: store.sparsityObject(),
  });
  store.putPlan({ measurements: [], ...plan });
  return store.plans.get(plan.id);
}

export function openPlan(store, history, plan) {
  const levels = new Map(Object.entries(plan.sparsities).map(([unit, s]) => [unit, toLevel(s)]));
  if (plan.criterion) store.setCriterion(plan.criterion);
  history.edit(() => store.setLevels(levels));
  store.reference = plan.id;
  store.touch("plans");
}

const nameOf = (plan) => plan.name || `#${plan.id}`;

/** Mean distance of prediction and measurement, where both are known. */
function predictionError(rows, metric) {
  const errors = rows
    .map(({ plan, measured }) => [metric.value(plan.predicted), metric.value(measured)])
    .filter((pair) => !pair.includes(null))
    .map(([predicted, measured]) => Math.abs(predicted - measured));
  if (!errors.length) return "";
  const mean = errors.reduce((a, b) => a + b, 0) / errors.length;
  return `prediction off by ${metric.difference(mean).replace("+", "")}`;
}

export function followPlans(store, history) {
  const body = $("#hist");
  const draw = () => {
    const current = store.currentPlan();
    const { metric } = store;
    const rows = [...store.plans.values()]
      .map((plan) => ({ plan, measured: store.measurement(plan) }))
      .filter(({ measured }) => measured)
      .sort((a, b) => b.plan.id - a.plan.id)
      .slice(0, SHOWN);
    $("#hist-empty").hidden = rows.length > 0;
    $("#hist-table").hidden = rows.length === 0;
    $("#hist-error").textContent = predictionError(rows, metric);
    body.replaceChildren(...rows.map(({ plan, measured }) => {
      const isNow = plan === current;
      const figures = metric.of(measured);
      const range = figures ? metric.range(figures.low, figures.high) : "";
      return h("tr", { "aria-current": isNow ? "true" : null },
        h("th", { scope: "row" }, isNow ? `${nameOf(plan)}, now`
          : h("a", { href: `?plan=${plan.id}`, dataset: { plan: String(plan.id) } }, nameOf(plan))),
        h("td", { class: "num" }, percent(plan.predicted?.sparsity ?? measured.sparsity)),
        h("td", { class: "num pr" }, metric.bare(metric.value(plan.predicted))),
        h("td", {
          class: "num",
          title: [range, `n = ${number(measured.samples)}`].filter(Boolean).join(", "),
        }, metric.bare(figures?.value)));
    }));
  };
  body.addEventListener("click", (event) => {
    const link = event.target.closest("a[data-plan]");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    openPlan(store, history, store.plans.get(Number(link.dataset.plan)));
  });
  store.on(["plans", "thresholds", "metric", "criterion"], draw);
  draw();
}
