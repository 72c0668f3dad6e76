// The first page: bring a model and data, start an analysis, see what is here.

import { post } from "./api.js";
import { analysesTable } from "./analyses-table.js";
import { $, h, readState, renew } from "./dom.js";
import { EvaluationForm } from "./evaluation-form.js";
import { ago, bytes, number } from "./format.js";
import { jobButton, pauseButton } from "./job-actions.js";
import { keepFresh } from "./refresh.js";
import { Slot } from "./slot.js";
import { toast } from "./toast.js";
import { kindOf } from "./upload.js";
import {
  fractionDone,
  isOpen,
  jobName,
  problemBox,
  progressWords,
  stateChip,
  subjectHref,
  timeLeft,
} from "./words.js";

const A_DAY = 86400000;
let state = readState();
const limit = state.limits?.max_upload_bytes ?? Infinity;
const limitWords = Number.isFinite(limit) ? ` Up to ${bytes(limit)} each.` : "";
const evaluation = new EvaluationForm();
const onSlot = () => {
  rememberChoice();
  evaluation.setDataset(slots.dataset.id ? slots.dataset.item : null);
  showGo();
};
const slots = {
  model: new Slot($("#slot-model"), {
    limit,
    path: "/api/models",
    accept: ".pt2,.safetensors,.pth,.pt",
    formats: ".pt2, or weights: .safetensors, .pth. Up to ",
    onChange: onSlot,
    onUploaded: refreshSoon,
  }),
  dataset: new Slot($("#slot-dataset"), {
    limit,
    path: "/api/datasets",
    accept: ".npz,.safetensors,.zip,.csv,.parquet",
    formats: ".npz, .safetensors, .zip of images, .csv, .parquet. Up to ",
    onChange: onSlot,
    onUploaded: refreshSoon,
  }),
};

function show(next) {
  state = next;
  slots.model.offer(state.models);
  slots.dataset.offer(state.datasets);
  showModels();
  showJobs();
  showDatasets();
  showGo();
}

function showModels() {
  const isEmpty = !state.models.length && !state.analyses.length;
  renew(
    $("#models"),
    isEmpty
      ? h(
          "div",
          { class: "empty" },
          h("p", {}, h("b", {}, "Nothing here yet.")),
          h(
            "p",
            {},
            "Export your network with the lines above, drop the file and its data on this page, ",
            "and press Analyse. The first curves appear after a few seconds.",
          ),
          h(
            "p",
            {},
            "No model at hand? ",
            h("code", {}, "make demo"),
            " trains a small one on scikit-learn’s digits and brings it here.",
          ),
        )
      : analysesTable(state.analyses, "models", state.models),
  );
}

function showJobs() {
  const open = state.jobs.filter((job) => isOpen(job.state));
  const failed = state.jobs
    .filter(
      (job) =>
        job.state === "failed" &&
        Date.now() - Date.parse(job.finished_at ?? job.created_at) < A_DAY,
    )
    .slice(0, 3);
  const list = [...open, ...failed];
  renew(
    $("#jobs"),
    list.length
      ? h("ul", { class: "jobs" }, list.map(jobItem))
      : h(
          "p",
          { class: "note" },
          "Nothing is running. ",
          h("a", { href: "/jobs" }, "What ran before"),
        ),
  );
}

function jobItem(job) {
  const href = subjectHref(job);
  const name = jobName(job);
  const share = fractionDone(job.progress);
  return h(
    "li",
    { dataset: { job: job.id } },
    h(
      "div",
      { class: "row sb" },
      href ? h("a", { href }, h("b", {}, name)) : h("b", {}, name),
      h("span", { class: "acts" }, pauseButton(job, refresh), jobButton(job, refresh)),
    ),
    h(
      "div",
      { class: "row sb cap" },
      h(
        "span",
        {},
        job.label ? `${job.label}, ` : "",
        job.state === "failed" ? (job.error?.message ?? "failed") : progressWords(job),
      ),
      h("span", {}, job.state === "failed" ? stateChip("failed") : timeLeft(job.progress)),
    ),
    job.state === "running"
      ? h("progress", { max: 1, value: share ?? false, "aria-label": name })
      : null,
  );
}

const sampleCount = (dataset) =>
  Object.values(dataset.splits ?? {}).reduce((sum, size) => sum + size, 0);

function showDatasets() {
  renew(
    $("#datasets"),
    state.datasets.length
      ? h(
          "ul",
          { class: "plain" },
          state.datasets
            .slice(0, 8)
            .map((dataset) =>
              h(
                "li",
                {},
                h("a", { href: `/datasets/${dataset.id}` }, dataset.name),
                dataset.status === "ready"
                  ? h(
                      "span",
                      { class: "cap" },
                      `${number(sampleCount(dataset))} samples, ${ago(dataset.created_at)}`,
                    )
                  : stateChip(dataset.status),
              ),
            ),
        )
      : h("p", { class: "note" }, "None yet. Data stays on this machine."),
  );
}

/** What is still missing, in words, and the button only when nothing is. */
function showGo() {
  const { model, dataset } = slots;
  const bare = model.id && model.item.kind === "weights";
  const ready = model.id && dataset.id && !bare;
  $("#analyse").disabled = !ready || starting;
  const busy = [model, dataset].some((slot) => slot.busy);
  const asking = [model, dataset].some((slot) => slot.state === "asking");
  const why = ready
    ? "Prunes every layer at every level, on the tune split."
    : asking
      ? "Say what is asked about the file, then upload it."
    : bare
      ? "Weights alone can’t be analysed: bring the network, or name its architecture."
      : busy
      ? "A moment: the files are being checked."
      : model.id
        ? "Now the data: drop it anywhere, or choose a file."
        : dataset.id
          ? "Now the model: drop it anywhere, or choose a file."
          : `Drop both files anywhere on this page, or choose them.${limitWords}`;
  if ($("#why").textContent !== why) $("#why").textContent = why;
}

function rememberChoice() {
  const url = new URL(location);
  for (const [name, slot] of Object.entries(slots)) {
    if (slot.id) url.searchParams.set(name, slot.id);
    else url.searchParams.delete(name);
  }
  history.replaceState(null, "", url);
}

let starting = false;
$("#analyse").addEventListener("click", async () => {
  const box = $("#start-problem");
  const asked = evaluation.readOrSay(box);
  if (!asked) return;
  starting = true;
  showGo();
  try {
    const analysis = await post("/api/analyses", {
      model_id: slots.model.id,
      dataset_id: slots.dataset.id,
      ...asked,
    });
    location.assign(`/analyses/${analysis.id}`);
  } catch (error) {
    box.replaceChildren(problemBox(error, error.title));
    starting = false;
    showGo();
  }
});

// Back from the analysis, the browser may show this very page again, with the press still on it.
addEventListener("pageshow", (event) => {
  if (!event.persisted) return;
  starting = false;
  showGo();
});

// ------------------------------------------------------------------ drop anywhere

let depth = 0;
const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
const veil = (on) => {
  $("#veil").hidden = !on;
};
addEventListener("dragenter", (event) => {
  if (!hasFiles(event)) return;
  depth += 1;
  veil(true);
});
addEventListener("dragleave", (event) => {
  if (hasFiles(event) && (depth -= 1) <= 0) {
    depth = 0;
    veil(false);
  }
});
addEventListener("dragover", (event) => {
  if (hasFiles(event)) event.preventDefault();
});
addEventListener("drop", (event) => {
  if (!hasFiles(event)) return;
  event.preventDefault();
  depth = 0;
  veil(false);
  const taken = new Set();
  // Over one of the two slots, a file that could be either is meant for that one.
  const over = event.target.closest?.(".slot")?.dataset.kind;
  for (const file of event.dataTransfer.files) {
    const either = file.name.toLowerCase().endsWith(".safetensors");
    const kind = either && over ? over : kindOf(file.name);
    if (!kind) toast(`${file.name} is neither a model nor a data set.`, { kind: "error" });
    else if (taken.has(kind))
      toast(
        `One ${kind === "model" ? "model" : "data set"} at a time: ${file.name} was left out.`,
        { kind: "error" },
      );
    else {
      taken.add(kind);
      slots[kind].take(file);
    }
  }
});

// ------------------------------------------------------------------ start

const isBusy = (now) => now.jobs.some((job) => isOpen(job.state));
const refresh = keepFresh(show, isBusy, state);
function refreshSoon() {
  refresh().catch(() => {});
}

const origin = document.querySelector("[data-origin]");
if (origin) origin.textContent = location.origin;

show(state);
const wanted = new URLSearchParams(location.search);
for (const [name, slot] of Object.entries(slots)) {
  const list = name === "model" ? state.models : state.datasets;
  const found = list.find((item) => String(item.id) === wanted.get(name));
  if (found) slot.choose(found);
}
