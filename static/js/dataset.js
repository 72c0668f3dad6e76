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
    ...(dataset.status === "failed" ? [failure(dataset)] : []),
  );
  showSplits(dataset);
  showClasses(dataset);
}

const details = (dataset) => ({ ...dataset, ...(dataset.details ?? {}) });
const optionsOf = (dataset) => ({ ...(dataset.options ?? {}), ...(dataset.details?.options ?? {}) });

function failure(dataset) {
  const box = problemBox(dataset.error ?? {});
  box.append(h("p", {}, h("a", { href: "/" }, "Upload it again, with another task or other options")));
  return box;
}

const TASKS = { "language-modelling": "language modelling" };

/** What one sample's labels are, in words. */
function labelWords({ task, classes, label_shape: shape, label_dtype: dtype }) {
  const each = shape?.length ? shape.join(" × ") : "";
  if (task === "regression") return each ? `${each} numbers a sample` : "one number a sample";
  if (task === "language-modelling") return `the next token at ${each || "each"} positions`;
  if (!shape) return classes ? "one class a sample" : null;
  if (!each) return "one class a sample";
  return dtype === "bool" || String(dtype).startsWith("float")
    ? `${each} yes/no labels a sample`
    : `one class at each of ${each} positions, or yes/no labels`;
}

/** Options as applied; what is long or a list is written as JSON. */
function optionList(options) {
  const entries = Object.entries(options ?? {}).filter(([, value]) => value !== null);
  if (!entries.length) return null;
  return h(
    "ul",
    {},
    entries.map(([name, value]) =>
      h("li", {}, h("code", {}, name), " ", Array.isArray(value) ? value.join(", ")
        : typeof value === "object" ? JSON.stringify(value) : String(value))),
  );
}

function names(list) {
  const some = list.slice(0, 40).join(", ");
  return list.length > 40 ? `${some}, … (${number(list.length)} in all)` : some;
}

function facts(dataset) {
  const { dtype, notes, feature_names: features } = details(dataset);
  const entries = [
    ["Format", dataset.format ? `.${dataset.format}` : "not known"],
    ["Size", `${bytes(dataset.bytes)} (${number(dataset.bytes)} bytes)`],
    ["SHA-256", h("span", { class: "hash" }, dataset.sha256 ?? "–")],
    ["Uploaded", instant(dataset.created_at)],
  ];
  if (dataset.status === "ready") {
    entries.push(
      ["Task", TASKS[dataset.task] ?? dataset.task],
      ["One sample", (dataset.input_shape ?? []).join(" × ") || "one number"],
    );
    const labels = labelWords(details(dataset));
    if (labels) entries.push(["Labels", labels]);
    if (dtype) entries.push(["Stored as", dtype]);
    if (dataset.classes) {
      const what = dataset.task === "language-modelling" ? "Tokens" : "Classes";
      entries.push([what, number(dataset.classes)]);
    }
    if (features?.length) entries.push([`Columns, ${number(features.length)}`, names(features)]);
    const options = optionList(optionsOf(dataset));
    if (options) entries.push(["Read with", options]);
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
  const { counts = {}, class_names: called = [] } = details(dataset);
  if (!Object.keys(counts).length && called.length) {
    $("#classes-sect").hidden = false;
    $("#classes").replaceChildren(h("p", { class: "names" }, names(called)));
    return;
  }
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
            h("th", { scope: "row", class: "path" }, called[label] ?? String(label)),
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
