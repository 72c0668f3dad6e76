// The experiment page: its state, the events that change it, and what is redrawn when.

import { get, post } from "./api.js";
import { redrawing } from "./charts.js";
import { $, h, icon, readState, renew } from "./dom.js";
import { drawTrajectories } from "./experiment-chart.js";
import { keyNumbers } from "./experiment-kpis.js";
import { allRuns, isOver, runName, takeEpoch, takeRun } from "./experiment-model.js";
import { beforeAfter, downloads, epochTable, equalSize } from "./experiment-tables.js";
import { ago, number, plural } from "./format.js";
import { follow, poll } from "./live.js";
import { readMetrics } from "./metrics.js";
import { refetchState, refreshJobsCount } from "./refresh.js";
import { removeWithQuestion } from "./remove.js";
import { toastError } from "./toast.js";
import { fractionDone, problemBox, stateChip, timeLeft } from "./words.js";

let { experiment, plan, model } = readState();
let onTune = null;
let chosen = "plan";
let scale = "stretched";
let stream = null;

const metrics = () => readMetrics(experiment);
const redraw = redrawing(() =>
  drawTrajectories($("#chart"), {
    runs: allRuns(experiment),
    epochs: Math.max(1, experiment.settings?.epochs ?? 1),
    metric: metrics().primary,
    dense: metrics().primary.value(onTune),
    denseLoss: onTune?.loss ?? null,
    kind: scale,
  }),
);

let lastStatus = null;

function show() {
  if (experiment.status !== lastStatus && lastStatus !== null) refreshJobsCount();
  lastStatus = experiment.status;
  const runs = allRuns(experiment);
  showStatus(runs);
  renew($("#kpis"), keyNumbers(experiment, plan, onTune, metrics().primary));
  const hasEpochs = runs.some((run) => run.trajectory.length);
  $("#chart").hidden = !hasEpochs;
  $("#scale").hidden = !hasEpochs;
  $("#chart-empty").textContent = hasEpochs ? "" : waitingWords();
  if (hasEpochs) redraw();
  showResults(runs);
  showEpochs(runs);
  const list = downloads(experiment, runs);
  $("#download").hidden = !list.length;
  renew($("#download-list"), list);
}

function waitingWords() {
  if (experiment.status === "queued") return "Waiting for a worker. The first epoch shows up here.";
  if (experiment.status === "running") return "Pruning, then the first epoch.";
  return "No epoch was finished.";
}

function showStatus(runs) {
  const { status, progress, error } = experiment;
  const box = $("#status");
  box.classList.toggle("calm", isOver(status));
  const current = runs.find((run) => run.trajectory.length && !run.after);
  const share = fractionDone(progress);
  const text =
    status === "running" && current
      ? [
          `${runName(current.name)}, epoch `,
          h("b", {}, `${current.trajectory.at(-1).epoch} of ${experiment.settings.epochs}`),
        ]
      : [stateChip(status)];
  renew(
    box,
    h("span", {}, text),
    status === "running"
      ? h("progress", { max: 1, value: share ?? false, "aria-label": "All runs of the experiment" })
      : null,
    status === "running" && timeLeft(progress)
      ? h("span", { class: "muted" }, timeLeft(progress))
      : null,
    isOver(status)
      ? null
      : h(
          "button",
          {
            class: "btn ghost icon",
            type: "button",
            id: "cancel",
            title: "Cancel",
            "aria-label": "Cancel the experiment",
            onclick: cancel,
          },
          icon("x"),
        ),
  );
  announce(status, share);
  const again = h("button", { class: "btn", type: "button", onclick: retry }, "Try again");
  renew(
    $("#problem"),
    status === "failed"
      ? h("div", { class: "row" }, problemBox(error ?? {}), again)
      : status === "cancelled"
        ? h(
            "div",
            { class: "row" },
            h(
              "span",
              { class: "muted" },
              "Cancelled. What had been measured stays; trying again goes on from the last epoch.",
            ),
            again,
          )
        : null,
  );
}

/** Said aloud: the state when it changes, progress at every quarter. */
function announce(status, share) {
  const quarter = status === "running" && share !== null ? Math.floor(share * 4) * 25 : 0;
  const text = quarter ? `${quarter} % done` : status;
  if ($("#announce").textContent !== text) $("#announce").textContent = text;
}

function showResults(runs) {
  const { baseline } = experiment;
  const split = baseline?.split ?? "test";
  renew($("#table"), beforeAfter(runs, baseline, metrics()));
  $("#ba-cap").textContent = baseline
    ? `${split}, n = ${number(baseline.samples)}; [ ]: 95 %. Nothing was chosen on it.`
    : "";
  const dots = equalSize(runs, baseline, metrics().primary);
  renew(
    $("#dots"),
    dots ??
      h("p", { class: "note" }, "Every run is measured once on the final split, when it ends."),
  );
  $("#eq-cap").textContent = dots
    ? `on ${split}, dot: retrained, bar: 95 %, tick: pruned only`
    : "";
}

function showEpochs(runs) {
  const begun = runs.filter((run) => run.trajectory.length);
  const box = $("#which");
  box.hidden = begun.length < 2;
  if (
    [...box.querySelectorAll("input")].map((input) => input.value).join() !==
    begun.map((run) => run.name).join()
  ) {
    box.replaceChildren(
      h("legend", { class: "sr" }, "Run"),
      ...begun.map((run) =>
        h(
          "label",
          {},
          h("input", { type: "radio", name: "run", value: run.name, checked: run.name === chosen }),
          runName(run.name),
        ),
      ),
    );
  }
  const run = begun.find((one) => one.name === chosen) ?? begun[0];
  renew($("#epochs"), run ? epochTable(run, metrics().primary) : h("p", { class: "note" }, waitingWords()));
}

async function cancel(event) {
  const button = event.currentTarget;
  button.disabled = true;
  try {
    await post(`/api/jobs/${experiment.job_id}/cancel`);
    await reload();
  } catch (error) {
    button.disabled = false;
    toastError(error);
  }
}

async function retry(event) {
  const button = event.currentTarget;
  button.disabled = true;
  try {
    await post(`/api/jobs/${experiment.job_id}/retry`);
    await reload();
    listen();
  } catch (error) {
    button.disabled = false;
    toastError(error);
  }
}

async function reload() {
  ({ experiment, plan, model } = await refetchState());
  show();
}

function listen() {
  stream?.close();
  stream = null;
  if (isOver(experiment.status)) return;
  const changed = (take) => (data) => {
    take(data);
    soon();
  };
  stream = follow(`/api/experiments/${experiment.id}/events`, {
    after: experiment.event_id ?? 0,
    handlers: {
      epoch: changed((data) => takeEpoch(experiment, data)),
      run: changed((data) => takeRun(experiment, data)),
      baseline: changed((data) => {
        experiment.baseline = data;
      }),
      status: changed((data) => {
        Object.assign(experiment, data);
        if (isOver(experiment.status)) {
          stream?.close();
          // Once more from the database: the last word on every figure.
          reload()
            .then(listen)
            .catch(() => {});
        }
      }),
    },
  });
}

let waiting = false;
function soon() {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    show();
  });
}

// The sentence above the chart comes and goes, and takes its height from it.
new ResizeObserver(() => $("#chart").hidden || redraw()).observe($("#chart"));
$("#scale").addEventListener("change", (event) => {
  scale = event.target.value;
  redraw();
});
$("#which").addEventListener("change", (event) => {
  chosen = event.target.value;
  showEpochs(allRuns(experiment));
});
$("#delete").addEventListener("click", () =>
  removeWithQuestion(`/api/experiments/${experiment.id}`, {
    title: `Delete experiment #${experiment.id}?`,
    text: "Its runs and their checkpoints go as well. This can't be undone.",
    next: plan ? `/analyses/${experiment.analysis_id ?? plan.analysis_id}?plan=${plan.id}` : "/",
  }),
);

$("#traj-cap").textContent = "every run prunes the same number of weights";
$("#scale-name").textContent = `${metrics().primary.label} scale`;
$("#chart").setAttribute(
  "aria-label",
  `${metrics().primary.label} and loss over epochs, one line per run. The same numbers are in the table of epochs.`,
);
$("#foot-left").textContent = `experiment #${experiment.id} of ${model.name}`;
$("#foot-right").textContent = [
  experiment.created_at ? `started ${ago(experiment.created_at)}` : "",
  `plan ${experiment.plan_id ?? plan?.id}`,
  `seed ${experiment.settings?.seed ?? 0}`,
  plural(allRuns(experiment).length, "run"),
]
  .filter(Boolean)
  .join(", ");

show();
listen();
// A proxy may hold events back; the job's own state is asked for now and then as well.
poll(async () => {
  if (isOver(experiment.status)) return false;
  const now = await get(`/api/experiments/${experiment.id}`);
  if (isOver(now.status)) await reload();
  return !isOver(now.status);
}, 15);
// The dense network on the tune split: a fact of the analysis, drawn as soon as it is known.
get(`/api/analyses/${experiment.analysis_id ?? plan?.analysis_id}`)
  .then((analysis) => {
    onTune = analysis.baseline;
    show();
  })
  .catch(() => {});
