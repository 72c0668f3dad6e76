// All jobs and the workers that do them.

import { $, h, readState, renew } from "./dom.js";
import { ago, clock, duration, instant, number } from "./format.js";
import { jobButton, pauseButton, priorityButtons } from "./job-actions.js";
import { keepFresh } from "./refresh.js";
import {
  fractionDone,
  isOpen,
  jobName,
  problemBox,
  progressWords,
  stateChip,
  stateOf,
  subjectHref,
  timeLeft,
} from "./words.js";

const SILENT_AFTER = 60;
/** Left out where there is little room. */
const RARE = ["process", "started"];

/** What stands between an upload and this machine. `weak`: what to do about it. */
const WALLS = {
  bubblewrap: { words: "own file system, processes and network", weak: "" },
  landlock: {
    words: "own process; files by Landlock, system calls filtered",
    weak: "Install bubblewrap for a file system and a network of its own.",
  },
  rlimits: {
    words: "own process with limits only",
    weak: "An upload that broke out could read this user’s files. Install bubblewrap, or use a kernel with Landlock; prunescope doctor says what is missing.",
  },
};

function isolation(worker) {
  const walls = WALLS[worker.isolation];
  if (!walls) return h("span", { class: "muted" }, worker.isolation ?? "not said");
  return [
    h("span", { class: worker.isolation === "rlimits" ? "chip warn" : "" }, worker.isolation),
    h("span", { class: "cap" }, walls.words),
    walls.weak ? h("span", { class: "cap" }, walls.weak) : null,
  ];
}

function show(state) {
  const running = state.jobs.filter((job) => job.state === "running").length;
  const paused = state.jobs.filter((job) => job.paused && job.state === "queued").length;
  const waiting = state.jobs.filter((job) => job.state === "queued").length - paused;
  const rests = paused ? `, ${number(paused)} paused` : "";
  const summary =
    running || waiting || paused
      ? `${number(running)} running, ${number(waiting)} waiting${rests}.`
      : "Nothing is running.";
  if ($("#summary").textContent !== summary) $("#summary").textContent = summary;
  renew(
    $("#jobs"),
    state.jobs.length
      ? jobTable(state.jobs)
      : h(
          "p",
          { class: "empty" },
          "No job yet. Uploads, analyses, measurements and retraining all show up here. ",
          h("a", { href: "/" }, "Bring a model"),
        ),
  );
  renew($("#workers"), workerTable(state.workers, waiting));
}

function jobTable(jobs) {
  return h(
    "table",
    { class: "grid job-table" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["job", "state", "progress", "priority"].map((name) => h("th", { scope: "col" }, name)),
        ["attempt", "created", "took"].map((name) => h("th", { scope: "col", class: "num" }, name)),
        h("th", { scope: "col" }, h("span", { class: "sr" }, "action")),
      ),
    ),
    h("tbody", {}, jobs.flatMap(jobRows)),
  );
}

function jobRows(job) {
  const href = subjectHref(job);
  const name = jobName(job);
  const share = fractionDone(job.progress);
  const row = h(
    "tr",
    { dataset: { job: job.id } },
    h(
      "td",
      { class: "what" },
      href ? h("a", { href }, name) : h("b", {}, name),
      job.label ? h("span", { class: "cap" }, job.label) : null,
    ),
    h("td", {}, stateChip(stateOf(job))),
    h(
      "td",
      {},
      isOpen(job.state) || (job.state !== "done" && share)
        ? [
            progressWords(job),
            timeLeft(job.progress) && job.state === "running" ? `, ${timeLeft(job.progress)}` : "",
            job.state === "running"
              ? h("progress", { max: 1, value: share ?? false, "aria-label": name })
              : null,
          ]
        : "",
    ),
    h("td", { class: "prefer" }, priorityButtons(job, refresh)),
    h(
      "td",
      { class: "num", dataset: { label: "attempt" } },
      job.attempt ? `${job.attempt} of ${job.max_attempts}` : "",
    ),
    h(
      "td",
      { class: "num", dataset: { label: "created" }, title: instant(job.created_at) },
      ago(job.created_at),
    ),
    h("td", { class: "num", dataset: { label: "took" } }, took(job)),
    h("td", { class: "act" }, pauseButton(job, refresh), jobButton(job, refresh)),
  );
  if (job.state !== "failed" || !job.error) return [row];
  return [row, h("tr", { class: "why" }, h("td", { colspan: 8 }, problemBox(job.error)))];
}

function took(job) {
  if (!job.started_at) return "";
  const end = job.finished_at ? Date.parse(job.finished_at) : Date.now();
  const seconds = Math.max(0, (end - Date.parse(job.started_at)) / 1000);
  return seconds < 1 ? "< 1 s" : duration(seconds);
}

function workerTable(workers, waiting) {
  const now = Date.now();
  const silent = (worker) => (now - Date.parse(worker.heartbeat_at)) / 1000 > SILENT_AFTER;
  if (!workers.some((worker) => !silent(worker))) {
    return problemBox({
      message: waiting ? "No worker is running, so the jobs wait." : "No worker is running.",
      hint: "Start the server with prunescope serve, or one more worker with prunescope worker.",
    });
  }
  return h(
    "table",
    { class: "grid" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["worker", "computer", "process", "isolation of uploads", "started", "last seen"].map((name) =>
          h("th", { scope: "col", class: RARE.includes(name) ? "wide" : "" }, name),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      workers.map((worker) =>
        h(
          "tr",
          {},
          h("th", { scope: "row", class: "mono" }, String(worker.id)),
          h("td", {}, worker.host),
          h("td", { class: "wide" }, String(worker.pid)),
          h("td", { class: "walls" }, isolation(worker)),
          h("td", { class: "wide" }, `${ago(worker.started_at)}`),
          h(
            "td",
            {},
            silent(worker)
              ? h("span", { class: "chip warn" }, `silent since ${clock(worker.heartbeat_at)}`)
              : "now",
          ),
        ),
      ),
    ),
  );
}

let state = readState();
const isBusy = (now) => now.jobs.some((job) => isOpen(job.state));
const refresh = keepFresh(
  (next) => {
    state = next;
    show(next);
  },
  isBusy,
  state,
);
show(state);
