// What an experiment's page knows, and how events change it. No DOM.

const COPIED = [
  "epoch",
  "step",
  "sparsity",
  "train_loss",
  "tune_accuracy",
  "tune_loss",
  "tune_metrics",
  "low",
  "high",
  "learning_rate",
];

/** The runs in their order, those that have not begun with an empty trajectory. */
export function allRuns(experiment) {
  const names = ["plan", ...(experiment.settings?.baselines ?? [])];
  const known = new Map(experiment.runs.map((run) => [run.name, run]));
  for (const name of known.keys()) if (!names.includes(name)) names.push(name);
  return names.map(
    (name) =>
      known.get(name) ?? { name, trajectory: [], before: null, after: null, best_epoch: null },
  );
}

function runNamed(experiment, name) {
  let run = experiment.runs.find((one) => one.name === name);
  if (!run) {
    run = { name, trajectory: [], before: null, after: null, best_epoch: null };
    experiment.runs.push(run);
  }
  return run;
}

/** An `epoch` event. A repeated epoch (after a resumed run) replaces the earlier one. */
export function takeEpoch(experiment, event) {
  const run = runNamed(experiment, event.run);
  const row = Object.fromEntries(COPIED.map((key) => [key, event[key] ?? null]));
  run.trajectory = run.trajectory
    .filter((old) => old.step !== row.step || old.epoch !== row.epoch)
    .concat(row)
    .sort((a, b) => a.step - b.step || a.epoch - b.epoch);
}

/** A `run` event: before, after and the best epoch of a finished run. */
export function takeRun(experiment, event) {
  const { name, ...rest } = event;
  Object.assign(runNamed(experiment, name), rest);
}

/** An epoch's figures on the tune split, as every other figure is written. */
export const onTune = (row) => ({
  metrics: row.tune_metrics ?? {},
  accuracy: row.tune_accuracy,
  low: row.low,
  high: row.high,
  loss: row.tune_loss,
});

/** An epoch's `{value, low, high}` in a metric, or null. */
export const tuned = (row, metric) => metric.of(onTune(row));

/** The epoch that is kept: the stored one, else the best so far by the metric, then by loss. */
export function bestEpoch(run, metric) {
  const rows = run.trajectory;
  if (!rows.length) return null;
  if (run.best_epoch !== null && run.best_epoch !== undefined) {
    return rows.find((row) => row.epoch === run.best_epoch) ?? null;
  }
  return rows.reduce((best, row) => {
    const [now, before] = [tuned(row, metric)?.value ?? null, tuned(best, metric)?.value ?? null];
    if (now !== null && before === null) return row;
    if (now !== null && now !== before) return metric.better(now, before) ? row : best;
    return (row.tune_loss ?? Infinity) < (best.tune_loss ?? Infinity) ? row : best;
  });
}

export const isOver = (status) => ["done", "failed", "cancelled"].includes(status);

const NAMES = { plan: "this plan", "global-magnitude": "global magn." };

/** How a run is called on the page. */
export const runName = (name) => NAMES[name] ?? name;
