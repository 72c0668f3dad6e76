// The strip of key numbers of an experiment.

import { bestEpoch } from "./experiment-model.js";
import { h } from "./dom.js";
import { interval, number, percent, percentValue, plural, pp, rate } from "./format.js";

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
export function keyNumbers(experiment, plan, onTune) {
  const run = experiment.runs.find((one) => one.name === "plan");
  const { settings = {}, baseline } = experiment;
  const best = run ? bestEpoch(run) : null;
  const start = run?.trajectory.find((row) => row.epoch === 0);
  const { before, after } = run ?? {};
  const cells = [];
  if (after) {
    cells.push(
      kpi(
        "measured",
        `Final, on ${after.split ?? "test"}`,
        percentValue(after.accuracy),
        "%",
        `${interval(after.low, after.high)}\u2002n = ${number(after.samples)}`,
      ),
    );
  } else if (best) {
    cells.push(
      kpi(
        "measured",
        `Best so far, epoch ${best.epoch}`,
        percentValue(best.tune_accuracy),
        "%",
        `${interval(best.low, best.high)}\u2002on tune${onTune ? `, n = ${number(onTune.samples)}` : ""}`,
      ),
    );
  } else cells.push(kpi("", "Best so far", "–", "", "no epoch yet"));
  if (after && baseline) {
    cells.push(
      kpi(
        "",
        `Against dense ${percent(baseline.accuracy)}`,
        pp(after.accuracy - baseline.accuracy).replace(/.pp$/, ""),
        "pp",
        `same ${after.split ?? "test"} samples`,
      ),
    );
  } else {
    cells.push(kpi("", "Against the dense network", "–", "", "on test, once, when the run ends"));
  }
  const won =
    after && before
      ? after.accuracy - before.accuracy
      : best && start
        ? best.tune_accuracy - start.tune_accuracy
        : null;
  cells.push(
    kpi(
      "",
      "Won back by retraining",
      won === null ? "–" : pp(won).replace(/.pp$/, ""),
      won === null ? "" : "pp",
      won === null
        ? ""
        : after
          ? `from ${percent(before.accuracy)} on ${after.split ?? "test"}`
          : `from ${percent(start.tune_accuracy)} on tune`,
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
  const predicted = plan?.predicted;
  if (predicted) {
    const half = (predicted.high - predicted.low) / 2;
    cells.push(
      kpi(
        "predicted",
        "Predicted, not retrained",
        percentValue(predicted.accuracy),
        "%",
        Number.isFinite(half) ? `± ${number(half * 100, 1)}, estimate` : "estimate",
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
