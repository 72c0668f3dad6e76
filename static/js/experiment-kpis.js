// The strip of key numbers of an experiment.

import { bestEpoch, tuned } from "./experiment-model.js";
import { h } from "./dom.js";
import { number, percentValue, plural, rate } from "./format.js";

function kpi(kind, title, value, unit, sub) {
  const mark = { measured: "solid", predicted: "hollow" }[kind];
  return h(
    "div",
    { class: `kpi ${kind}`.trim() },
    h("h2", {}, mark ? h("span", { class: `mark ${mark}` }) : null, title),
    h("div", { class: "v" }, h("b", {}, value), unit ? h("span", { class: "u" }, unit) : null),
    h("div", { class: "sub" }, sub),
  );
}

/** The strip of key numbers. `onTune`: the dense network on the split of the epochs. */
export function keyNumbers(experiment, plan, onTune, metric) {
  const run = experiment.runs.find((one) => one.name === "plan");
  const { settings = {}, baseline } = experiment;
  const best = run ? bestEpoch(run, metric) : null;
  const value = (figures) => metric.value(figures);
  const range = (figures) => (figures ? metric.range(figures.low, figures.high) : "");
  const start = run?.trajectory.find((row) => row.epoch === 0);
  const { before, after } = run ?? {};
  const cells = [];
  if (after) {
    cells.push(
      kpi(
        "measured",
        `${metric.label}, final, on ${after.split ?? "test"}`,
        metric.bare(value(after)),
        metric.unit,
        `${range(metric.of(after))}\u2002n = ${number(after.samples)}`.trim(),
      ),
    );
  } else if (best) {
    cells.push(
      kpi(
        "measured",
        `${metric.label}, best so far, epoch ${best.epoch}`,
        metric.bare(tuned(best, metric)?.value),
        metric.unit,
        `${range(tuned(best, metric))}\u2002on tune${onTune ? `, n = ${number(onTune.samples)}` : ""}`,
      ),
    );
  } else cells.push(kpi("", `${metric.label}, best so far`, "–", "", "no epoch yet"));
  const apart = (change) => metric.difference(change).replace(/.pp$/, "");
  const unit = metric.fraction ? "pp" : "";
  if (after && value(baseline) !== null && value(after) !== null) {
    cells.push(
      kpi(
        "",
        `Against dense ${metric.text(value(baseline))}`,
        apart(value(after) - value(baseline)),
        unit,
        `same ${after.split ?? "test"} samples`,
      ),
    );
  } else {
    cells.push(kpi("", "Against the dense network", "–", "", "on test, once, when the run ends"));
  }
  const [from, to] =
    after && before
      ? [value(before), value(after)]
      : best && start
        ? [tuned(start, metric)?.value ?? null, tuned(best, metric)?.value ?? null]
        : [null, null];
  const won = from === null || to === null ? null : to - from;
  cells.push(
    kpi(
      "",
      "Won back by retraining",
      won === null ? "–" : apart(won),
      won === null ? "" : unit,
      won === null
        ? ""
        : `from ${metric.text(from)} on ${after ? (after.split ?? "test") : "tune"}`,
    ),
  );
  const achieved = before?.sparsity ?? start?.sparsity ?? plan?.predicted?.sparsity;
  cells.push(
    kpi(
      "",
      "Sparsity",
      percentValue(achieved),
      "%",
      before ? `${number(before.parameters)} parameters left` : "of all prunable weights",
    ),
  );
  const predicted = metric.of(plan?.predicted);
  if (predicted) {
    const half = metric.spread((predicted.high - predicted.low) / 2);
    cells.push(
      kpi(
        "predicted",
        "Predicted, not retrained",
        metric.bare(predicted.value),
        metric.unit,
        half ? `${half}, estimate` : "estimate",
      ),
    );
  }
  const learning =
    settings.learning_rate ?? run?.trajectory.find((row) => row.epoch > 0)?.learning_rate;
  const recipe = h(
    "div",
    { class: "kpi recipe" },
    h("h2", {}, "Recipe"),
    h(
      "div",
      { class: "sub" },
      `${settings.schedule ?? "one-shot"}, ${plural(settings.epochs ?? 0, "epoch")}, `,
      `batch ${settings.batch_size ?? "–"}`,
      h("br"),
      `learning rate ${Number.isFinite(learning) ? rate(learning) : "by default"}, `,
      `seed ${settings.seed ?? 0}`,
    ),
  );
  return [...cells, recipe];
}
