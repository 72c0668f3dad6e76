// States and kinds as people read them; one list for all pages.

import { h, icon } from "./dom.js";
import { duration, number, percent, plural } from "./format.js";

const KINDS = {
  "import-model": "Import model",
  "import-dataset": "Import data",
  analyse: "Analysis",
  measure: "Measure",
  retrain: "Retrain",
};
const COUNTED = { analyse: "point", retrain: "epoch" };

export const kindName = (kind) => KINDS[kind] ?? kind;
const NOUNS = { plan: "plan " };

/** "Analysis #3", "Measure plan #7": what a job is called in lists. */
export function jobName({ kind, subject }) {
  return kindName(kind) + (subject ? ` ${NOUNS[subject.kind] ?? ""}#${subject.id}` : "");
}

/** Names for a list to choose from: those that come twice get their number. */
export function tellApart(items) {
  const uses = new Map();
  for (const { name } of items) uses.set(name, (uses.get(name) ?? 0) + 1);
  return items.map((item) => ({
    ...item,
    told: uses.get(item.name) > 1 ? `${item.name} (#${item.id})` : item.name,
  }));
}

export const isOpen = (state) => state === "queued" || state === "running";

/** 0 to 1, or null when it is not known. */
export function fractionDone(progress) {
  if (!progress || !progress.total) return null;
  return Math.min(1, progress.done / progress.total);
}

/** "364 of 418 points", "41 %", "waiting". */
export function progressWords(job) {
  if (job.state === "queued" && !job.paused) return job.attempt > 0 ? "waiting for another attempt" : "waiting";
  const { done, total } = job.progress ?? {};
  if (!total) return job.paused ? "" : "working";
  const thing = COUNTED[job.kind];
  // A search counts in parts of points: their share says more.
  if (thing && Number.isInteger(done)) return `${number(done)} of ${plural(total, thing)}`;
  return percent(done / total, 0);
}

export function timeLeft(progress) {
  return progress?.eta > 0 ? `${duration(progress.eta)} left` : "";
}

/** Where a job's subject is shown, or null: a plan is shown in its analysis. */
export function subjectHref({ subject, analysis_id: analysisId }) {
  if (subject?.kind === "plan" && analysisId) return `/analyses/${analysisId}?plan=${subject.id}`;
  const folder = {
    model: "models",
    dataset: "datasets",
    analysis: "analyses",
    experiment: "experiments",
  }[subject?.kind];
  return folder ? `/${folder}/${subject.id}` : null;
}

const CHIPS = {
  queued: ["", "wait", "waiting"],
  running: ["live", "live", "running"],
  importing: ["live", "live", "importing"],
  done: ["", "check", "done"],
  ready: ["", "check", "ready"],
  failed: ["danger", "warn", "failed"],
  cancelled: ["", "x", "cancelled"],
  paused: ["warn", "pause", "paused"],
};

/** A job's state, with a pause as a state of its own. */
export const stateOf = (job) => (job.paused && isOpen(job.state) ? "paused" : job.state);

/** A state with its glyph and its word. */
export function stateChip(state, words) {
  const [kind, glyph, usual] = CHIPS[state] ?? ["", "wait", state];
  return h("span", { class: `chip ${kind}`, dataset: { state } }, icon(glyph), words ?? usual);
}

/** A problem: what happened, then what to do. `error` is {message, hint} or an ApiError. */
export function problemBox(error, title = null) {
  const message = error.message || "It failed without a reason.";
  const hint = error.hint && !message.includes(error.hint) ? error.hint : null;
  return h(
    "div",
    { class: "problem" },
    icon("warn"),
    h("strong", {}, title ?? message),
    title ? h("p", {}, message) : null,
    hint ? h("p", {}, hint) : null,
  );
}
