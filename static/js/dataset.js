// One data set: splits, classes, and the analyses that used it.

import { analysesTable } from "./analyses-table.js";
import { $, h, readState, renew } from "./dom.js";
import { bytes, instant, number, percent } from "./format.js";
import { keepFresh } from "./refresh.js";
import { removeWithQuestion } from "./remove.js";
import { isOpen, problemBox, stateChip } from "./words.js";

const PURPOSE = {
  train: "retraining",
  tune: "curves and thresholds",
  test: "final figures only; nothing is chosen on it",
};
let state = readState();
let shown = "";

function show(next) {
  state = next;
  const { dataset } = state;
  $("#state-chip").replaceChildren(stateChip(dataset.status));
  renew(
    $("#analyses"),
    state.analyses.length
      ? analysesTable(state.analyses, "dataset")
      : h(
          "p",
          { class: "note" },
          "None yet. ",
          dataset.status === "ready"
            ? h("a", { href: `/?dataset=${dataset.id}` }, "Choose a model and analyse it")
            : "",
        ),
  );
  if (shown === dataset.status) return;
  shown = dataset.status;
  $("#facts").replaceChildren(...facts(dataset));
  $("#problem").replaceChildren(
    ...(dataset.status === "failed" ? [problemBox(dataset.error ?? {})] : []),
  );
  showSplits(dataset);
  showClasses(dataset);
}

const details = (dataset) => ({ ...dataset, ...(dataset.details ?? {}) });

function facts(dataset) {
  const { dtype, notes } = details(dataset);
  const entries = [
    ["Format", dataset.format ? `.${dataset.format}` : "not known"],
    ["Size", `${bytes(dataset.bytes)} (${number(dataset.bytes)} bytes)`],
    ["SHA-256", h("span", { class: "hash" }, dataset.sha256 ?? "–")],
    ["Uploaded", instant(dataset.created_at)],
  ];
  if (dataset.status === "ready") {
    entries.push(["Task", dataset.task], ["One sample", (dataset.input_shape ?? []).join(" × ")]);
    if (dtype) entries.push(["Stored as", dtype]);
    if (dataset.classes) entries.push(["Classes", number(dataset.classes)]);
    if (notes?.length)
      entries.push([
        "Notes",
        h(
          "ul",
          {},
          notes.map((note) => h("li", {}, note)),
        ),
      ]);
  }
  return entries.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
}

function showSplits(dataset) {
  const splits = Object.entries(dataset.splits ?? {}).filter(([, size]) => size > 0);
  $("#splits-sect").hidden = !splits.length;
  const total = splits.reduce((sum, [, size]) => sum + size, 0);
  $("#splits").replaceChildren(
    h(
      "table",
      { class: "grid" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "split"),
          h("th", { scope: "col", class: "num" }, "samples"),
          h("th", { scope: "col", class: "num" }, "share"),
          h("th", { scope: "col" }, "used for"),
        ),
      ),
      h(
        "tbody",
        {},
        splits.map(([name, size]) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, name),
            h("td", { class: "num" }, number(size)),
            h("td", { class: "num" }, percent(size / total)),
            h("td", {}, PURPOSE[name] ?? ""),
          ),
        ),
      ),
    ),
  );
}

function showClasses(dataset) {
  const counts = details(dataset).counts ?? {};
  const splits = Object.keys(counts).filter((name) => counts[name]?.length);
  const classes = Math.max(0, ...splits.map((name) => counts[name].length));
  $("#classes-sect").hidden = !classes;
  if (!classes) return;
  const largest = Math.max(1, ...splits.flatMap((name) => counts[name]));
  const cell = (value) => [
    h("td", { class: "num" }, number(value ?? 0)),
    h(
      "td",
      { class: "barcell" },
      h(
        "span",
        { class: "bars" },
        value ? h("i", { style: { width: `${(100 * value) / largest}%` } }) : null,
      ),
    ),
  ];
  $("#classes").replaceChildren(
    h(
      "table",
      { class: "grid" },
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          h("th", { scope: "col" }, "class"),
          splits.map((name) => h("th", { scope: "colgroup", colspan: 2 }, name)),
        ),
      ),
      h(
        "tbody",
        {},
        Array.from({ length: classes }, (_, label) =>
          h(
            "tr",
            {},
            h("th", { scope: "row" }, String(label)),
            splits.map((name) => cell(counts[name][label])),
          ),
        ),
      ),
    ),
  );
}

$("#delete").addEventListener("click", () =>
  removeWithQuestion(`/api/datasets/${state.dataset.id}`, {
    title: `Delete ${state.dataset.name}?`,
    text: "The uploaded file goes as well. This can't be undone.",
  }),
);

const isBusy = (now) =>
  now.dataset.status === "importing" || now.analyses.some((analysis) => isOpen(analysis.status));
keepFresh(show, isBusy, state);
show(state);
