// The table of analyses with their curves and best plans: home, model and data set pages.

import { h } from "./dom.js";
import { ago, count, number, percent, plural, signed, SPACE } from "./format.js";
import { readMetrics } from "./metrics.js";
import { miniCurves } from "./sparkline.js";
import { fractionDone, stateChip } from "./words.js";

/** "ready", "analysing, 87 %", "failed". */
export function analysisChip(analysis) {
  if (analysis.status === "running") {
    const share = fractionDone(analysis.progress);
    return stateChip("running", share === null ? "analysing" : `analysing, ${percent(share, 0)}`);
  }
  return stateChip(analysis.status, analysis.status === "done" ? "ready" : undefined);
}

/** The best plan's figures: measured with a solid mark and n, predicted a hollow one and ±. */
export function bestPlan(analysis) {
  const plan = analysis.best_plan;
  if (!plan) return [h("span", { class: "muted" }, "no plan yet")];
  const { measured, predicted } = plan;
  const metric = readMetrics(analysis).primary;
  const base = metric.value(analysis.baseline);
  const value = metric.value(measured ?? predicted);
  const drop = base !== null && value !== null ? `, ${metric.difference(value - base)}` : "";
  const band = metric.of(predicted);
  const half = band && Number.isFinite(band.low) ? metric.spread((band.high - band.low) / 2) : "";
  return [
    h(
      "a",
      { class: "plain-link", href: `/analyses/${analysis.id}?plan=${plan.id}` },
      `${signed(-plan.sparsity * 100)}${SPACE}% weights${drop}`,
    ),
    measured
      ? h(
          "span",
          { class: "cap" },
          h("span", { class: "mark solid" }),
          `measured, n = ${number(measured.samples)}`,
        )
      : h(
          "span",
          { class: "cap" },
          h("span", { class: "mark hollow" }),
          half ? `predicted ${half}` : "predicted",
        ),
  ];
}

function picture(analysis) {
  const curves = analysis.curves ?? {};
  const units = Object.keys(curves).length;
  const metric = readMetrics(analysis).primary;
  const base = metric.value(analysis.baseline);
  if (!units || base === null) return null;
  return h(
    "a",
    { href: `/analyses/${analysis.id}`, "aria-label": `Open analysis ${analysis.id}` },
    miniCurves(curves, base, `Sensitivity of ${plural(units, "layer")}`, metric),
  );
}

function analysisRow(analysis, model, show) {
  const metric = readMetrics(analysis).primary;
  const dense = metric.value(analysis.baseline);
  const named = metric.name === "accuracy" ? "" : `${metric.word} `;
  const base = dense === null ? "" : `, ${named}${metric.text(dense)}`;
  const units = Object.keys(analysis.curves ?? {}).length;
  const href = `/analyses/${analysis.id}`;
  return h(
    "tr",
    { dataset: { analysis: analysis.id } },
    h(
      "td",
      {},
      h("a", { href }, show === "models" ? analysis.model_name : `analysis #${analysis.id}`),
      h(
        "span",
        { class: "cap" },
        show === "dataset"
          ? h("a", { href: `/models/${analysis.model_id}` }, analysis.model_name)
          : h("a", { href: `/datasets/${analysis.dataset_id}` }, analysis.dataset_name),
        base,
        show === "models"
          ? [" · ", h("a", { href: `/models/${analysis.model_id}` }, "details")]
          : null,
      ),
    ),
    h("td", { class: "num" }, units ? number(units) : "–"),
    show === "models" ? h("td", { class: "num" }, count(model?.parameters)) : null,
    h("td", { class: "curves-cell" }, picture(analysis)),
    h("td", { class: "plan-cell" }, bestPlan(analysis)),
    h(
      "td",
      { class: "state-cell" },
      analysisChip(analysis),
      analysis.status === "failed" && analysis.error
        ? h("span", { class: "cap" }, analysis.error.message)
        : null,
    ),
    h("td", { class: "num muted" }, ago(analysis.created_at)),
  );
}

/** A model that nobody has analysed yet, or that could not be read. */
function modelRow(model) {
  const failed = model.status === "failed";
  return h(
    "tr",
    { dataset: { model: model.id } },
    h(
      "td",
      {},
      h("a", { href: `/models/${model.id}` }, model.name),
      h("span", { class: "cap" }, failed ? "could not be read" : model.kind === "weights" ? "weights only" : "not analysed yet"),
    ),
    h("td", { class: "num" }, "–"),
    h("td", { class: "num" }, count(model.parameters)),
    failed
      ? h(
          "td",
          { colspan: 3 },
          stateChip("failed", "not loaded"),
          h(
            "span",
            { class: "cap" },
            model.error?.message ?? "",
            " ",
            h("a", { href: `/models/${model.id}` }, "What to do"),
          ),
        )
      : [
          h("td", { class: "curves-cell" }),
          h(
            "td",
            {},
            model.status === "ready" && model.kind === "weights"
              ? h("a", { class: "plain-link", href: `/models/${model.id}` }, "look at its weights")
              : model.status === "ready"
              ? h(
                  "a",
                  { class: "plain-link", href: `/?model=${model.id}` },
                  "choose data and analyse",
                )
              : null,
          ),
          h("td", {}, stateChip(model.status)),
        ],
    h("td", { class: "num muted" }, ago(model.created_at)),
  );
}

/**
 * @param {object[]} analyses newest first
 * @param {"models" | "model" | "dataset"} show whose page this is: its own name is left out
 * @param {object[]} [models] on the home page: adds those without an analysis
 */
export function analysesTable(analyses, show, models = []) {
  const byId = new Map(models.map((model) => [model.id, model]));
  const used = new Set(analyses.map((analysis) => analysis.model_id));
  const rows = [
    ...analyses.map((analysis) => ({
      at: analysis.created_at,
      row: analysisRow(analysis, byId.get(analysis.model_id), show),
    })),
    ...models
      .filter((model) => !used.has(model.id))
      .map((model) => ({ at: model.created_at, row: modelRow(model) })),
  ].sort((a, b) => String(b.at).localeCompare(String(a.at)));
  const first = {
    models: "model, data, baseline",
    model: "analysis, data, baseline",
    dataset: "analysis, model, baseline",
  };
  return h(
    "table",
    { class: "list" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", { scope: "col" }, first[show]),
        h("th", { scope: "col", class: "num" }, "layers"),
        show === "models" ? h("th", { scope: "col", class: "num" }, "params") : null,
        h("th", { scope: "col" }, "sensitivity"),
        h("th", { scope: "col" }, "best plan"),
        h("th", { scope: "col" }, "state"),
        h("th", { scope: "col", class: "num" }, "started"),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((entry) => entry.row),
    ),
  );
}
