// The retrain dialog: asks how long and against what, then goes to the experiment's page.

import { post } from "../api.js";
import { openDialog } from "../dialog.js";
import { $, $$ } from "../dom.js";
import { plural, SPACE } from "../format.js";
import { ensurePlan } from "./plans.js";

/** @param {import("./store.js").Store} store @param {import("./kpis.js").Kpis} kpis */
export function wireRetrain(store, kpis) {
  const button = $("#retrain");
  const note = $("#retrain-note");
  const dialog = $("#retrain-dialog");
  const form = $("form", dialog);
  const problem = $("#retrain-problem");
  const submit = $("button[type=submit]", form);

  const reason = () => {
    if (!store.units.length) return "There is nothing to prune in this model.";
    if (!store.splits?.train) return "The data set has no train split to retrain on.";
    if (store.nothingChosen) return "Choose thresholds first.";
    return "";
  };
  const draw = () => {
    button.disabled = reason() !== "";
    note.textContent = reason();
    note.hidden = !reason();
  };

  const describe = () => {
    const { train, tune, test } = store.splits;
    const runs = 1 + $$("input[name=baseline]:checked", form).length;
    const epochs = Number(form.elements.epochs.value) || 0;
    const size = Number(form.elements.batch_size.value) || 1;
    const steps = Math.ceil(train / size) * epochs;
    const final = test
      ? `the final figures come from ${plural(test, "test sample")}, used once`
      : "there is no test split, so the final figures come from tune as well";
    $("#retrain-what").textContent =
      `${plural(runs, "run")} of ${plural(epochs, "epoch")} over ${plural(train, "train sample")}, ` +
      `${plural(steps, "step")} each. Removed weights stay zero after every step; the best epoch is ` +
      `chosen on ${plural(tune, "tune sample")}; ${final}.`;
  };
  form.addEventListener("input", describe);

  /** What the plan does before retraining: measured where it is, predicted with its ± otherwise. */
  const expected = () => {
    const measured = store.measurement(store.currentPlan());
    const { metric } = store;
    const known = metric.value(measured);
    if (known !== null) return `${metric.word} ${metric.text(known)} measured before retraining`;
    const predicted = kpis.predict();
    if (!predicted) return "";
    const half = metric.spread(predicted.half);
    return `${metric.word} ${metric.text(predicted.value)}${half ? ` (${half})` : ""} predicted before retraining`;
  };

  button.addEventListener("click", () => {
    problem.hidden = true;
    submit.disabled = false;
    $("#retrain-plan").textContent = `Starts from the present plan: ` +
      [`${$("#k-sparsity").textContent}${SPACE}% of the weights removed`, expected()]
        .filter(Boolean).join(", ") + ".";
    describe();
    openDialog(dialog);
  });

  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    submit.disabled = true;
    problem.hidden = true;
    try {
      const plan = await ensurePlan(store);
      const rate = form.elements.learning_rate.value.trim();
      const experiment = await post("/api/experiments", {
        plan_id: plan.id,
        schedule: "one-shot",
        epochs: Number(form.elements.epochs.value),
        batch_size: Number(form.elements.batch_size.value),
        learning_rate: rate === "" ? null : Number(rate),
        baselines: $$("input[name=baseline]:checked", form).map((box) => box.value),
      });
      location.assign(`/experiments/${experiment.id}`);
    } catch (error) {
      // Only then: a second press while the browser is on its way would start a second experiment.
      submit.disabled = false;
      problem.textContent = [error.message, error.hint].filter(Boolean).join(" ");
      problem.hidden = false;
    }
  });

  store.on(["thresholds"], draw);
  draw();
}
