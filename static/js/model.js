// One model: what the file holds, what can be pruned in it, and its analyses.

import { post } from "./api.js";
import { analysesTable } from "./analyses-table.js";
import { $, h, readState, renew } from "./dom.js";
import { EvaluationForm } from "./evaluation-form.js";
import { bytes, count, instant, number, percent, plural } from "./format.js";
import { keepFresh } from "./refresh.js";
import { removeWithQuestion } from "./remove.js";
import { weightsChart, weightsTable } from "./weights-look.js";
import { isOpen, problemBox, stateChip, tellApart } from "./words.js";

let state = readState();
let shown = "";

function show(next) {
  state = next;
  const { model } = state;
  $("#state-chip").replaceChildren(stateChip(model.status));
  $("#facts").replaceChildren(...facts(model));
  renew(
    $("#analyses"),
    state.analyses.length
      ? analysesTable(state.analyses, "model")
      : h("p", { class: "note" }, "None yet."),
  );
  showStart();
  // The long tables and the reason don't change once they are there; reading is not disturbed.
  if (shown === model.status) return;
  shown = model.status;
  showProblem(model);
  showWeights(model);
  showUnits(model);
  showLayers(model);
}

function facts(model) {
  const entries = [
    ["Format", model.format ? `.${model.format}` : "not known"],
    ["Size", `${bytes(model.bytes)} (${number(model.bytes)} bytes)`],
    ["SHA-256", h("span", { class: "hash" }, model.sha256 ?? "–")],
    ["Uploaded", instant(model.created_at)],
  ];
  const { notes = [], key_prefix: prefix, nested_under: nested } = model.details ?? {};
  if (model.architecture) {
    const args = { ...(model.architecture_args ?? {}), ...(model.details?.architecture_args ?? {}) };
    const shown = Object.entries(args).map(([name, value]) => `${name} = ${JSON.stringify(value)}`);
    entries.push(["Architecture", [h("b", {}, model.architecture), shown.length ? `, ${shown.join(", ")}` : ""]]);
  }
  if (model.status === "ready") {
    if (model.parameters !== null) entries.push(["Parameters", number(model.parameters)]);
    if (!isBare(model)) entries.push(["MACs", `${count(model.macs)} for one sample`]);
    if (nested) entries.push(["Found under", h("code", {}, nested)]);
    if (prefix) entries.push(["Keys begin with", [h("code", {}, prefix), ", which the network’s do not; downloads have it again"]]);
    const inputs = (model.inputs ?? []).map((input) =>
      (input.shape ?? []).map((size, axis) => size ?? (axis ? "?" : "batch")).join(" × "),
    );
    if (inputs.length) entries.push(["Input", inputs.join(" and ")]);
    if (model.fixed_batch) {
      entries.push([
        "Batch",
        `fixed at ${model.fixed_batch}: the export has no free batch size; batches are padded`,
      ]);
    }
  }
  if (notes.length) entries.push(["Notes", h("ul", {}, notes.map((note) => h("li", {}, note)))]);
  return entries.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]);
}

const isBare = (model) => model.status === "ready" && model.details?.kind === "weights";

/** Weights without their network: what can be seen of them, and how to get the rest. */
function showWeights(model) {
  const bare = isBare(model);
  $("#bare").hidden = !bare;
  $("#analyses-sect").hidden = bare;
  $("#weights-sect").hidden = !bare;
  if (!bare) return;
  const rows = model.details.weights ?? [];
  const total = rows.reduce((sum, row) => sum + row.numel, 0);
  const zeros = rows.reduce((sum, row) => sum + row.zeros, 0);
  $("#weights-sum").textContent =
    `${plural(rows.length, "tensor")}, ${count(total)} numbers, ${percent(total ? zeros / total : 0)} of them zero`;
  const largest = (a, b) => ((b.thresholds ? b.numel : 0) > (a.thresholds ? a.numel : 0) ? b : a);
  const choose = (row) => {
    renew($("#weights"), weightsTable(rows, row, choose));
    $("#weights-chart").replaceChildren(weightsChart(row));
  };
  if (rows.length) choose(rows.reduce(largest));
}

function showProblem(model) {
  const box = $("#problem");
  box.replaceChildren();
  if (model.status !== "failed") return;
  const problem = problemBox(model.error ?? {});
  // Exporting again does not help against an operator, nor with an architecture that does not fit.
  if (model.error?.code !== "unsupported-operator" && !model.architecture)
    problem.append(...$("#export-lines").content.cloneNode(true).children);
  problem.append(
    h("p", {}, h("a", { href: "/" }, model.architecture
      ? "Upload it again with another architecture or other arguments" : "Upload another file")),
  );
  box.append(problem);
}

const shapeOf = (dataset) => (dataset.input_shape ?? []).join(" × ");

/** Whether a sample has the shape that the model takes; unknown and free sizes fit. */
function fits(dataset) {
  const wanted = state.model.inputs?.[0]?.shape?.slice(1);
  const given = dataset.input_shape;
  if (!wanted || !given) return true;
  return (
    wanted.length === given.length &&
    wanted.every((size, axis) => size === null || size === given[axis])
  );
}

function showStart() {
  // What fits comes first, so that it is what is chosen.
  const ready = tellApart(state.datasets.filter((dataset) => dataset.status === "ready"))
    .map((dataset) => ({ ...dataset, fits: fits(dataset) }))
    .sort((a, b) => b.fits - a.fits);
  $("#new").hidden = state.model.status !== "ready" || isBare(state.model);
  const select = $("#dataset");
  const before = select.value;
  select.replaceChildren(
    ...ready.map((dataset) =>
      h(
        "option",
        { value: dataset.id },
        dataset.fits ? dataset.told : `${dataset.told}: ${shapeOf(dataset)}, does not fit`,
      ),
    ),
  );
  if (ready.some((dataset) => String(dataset.id) === before)) select.value = before;
  select.disabled = !ready.length;
  $("#start button").disabled = !ready.length;
  $("#start-note").replaceChildren(
    ...(ready.length
      ? []
      : [
          "It needs data first. ",
          h("a", { href: `/?model=${state.model.id}` }, "Bring a file"),
          ".",
        ]),
  );
  $("#evaluation").hidden = !ready.length;
  noteDataset();
}

const evaluation = new EvaluationForm();
const noteDataset = () =>
  evaluation.setDataset(state.datasets.find(({ id }) => String(id) === $("#dataset").value) ?? null);
$("#dataset").addEventListener("change", noteDataset);

$("#start").addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = $("#start button");
  const asked = evaluation.readOrSay($("#start-problem"));
  if (!asked) return;
  button.disabled = true;
  try {
    const analysis = await post("/api/analyses", {
      model_id: state.model.id,
      dataset_id: Number($("#dataset").value),
      ...asked,
    });
    location.assign(`/analyses/${analysis.id}`);
  } catch (error) {
    $("#start-problem").replaceChildren(problemBox(error, error.title));
    button.disabled = false;
  }
});

function showUnits(model) {
  const units = model.units?.weight ?? [];
  $("#units-sect").hidden = !units.length;
  if (!units.length) return;
  const prunable = units.filter((unit) => unit.prunable);
  const total = units.reduce((sum, unit) => sum + unit.size, 0);
  const part = prunable.reduce((sum, unit) => sum + unit.size, 0);
  $("#units-sum").textContent =
    `${plural(prunable.length, "tensor")} with ${percent(part / total)} of the parameters`;
  const largest = Math.max(...units.map((unit) => unit.size));
  $("#units").replaceChildren(
    table(
      ["tensor", "shape", "weights", "share", "prunable"],
      [2],
      units.map((unit) =>
        h(
          "tr",
          { class: unit.prunable ? "" : "off" },
          h("th", { scope: "row", class: "path mono" }, unit.id),
          h("td", { class: "wide" }, (unit.shape ?? []).join(" × ")),
          h("td", { class: "num" }, number(unit.size)),
          h(
            "td",
            { class: "wide" },
            h(
              "span",
              { class: "share" },
              h("i", { style: { width: `${(100 * unit.size) / largest}%` } }),
            ),
          ),
          h("td", {}, unit.prunable ? "yes" : (unit.reason ?? "no")),
        ),
      ),
      ["shape", "share"],
    ),
  );
}

function showLayers(model) {
  const layers = model.layers ?? [];
  $("#layers-sect").hidden = !layers.length;
  if (!layers.length) return;
  $("#layers").replaceChildren(
    table(
      ["layer", "type", "parameters", "MACs", "output"],
      [2, 3],
      layers.map((layer) =>
        h(
          "tr",
          {},
          h("th", { scope: "row", class: "path mono" }, layer.path),
          h("td", {}, layer.type),
          h("td", { class: "num" }, number(layer.parameters)),
          h("td", { class: "num" }, layer.macs ? count(layer.macs) : "–"),
          h(
            "td",
            { class: "wide" },
            (layer.output_shape ?? [])
              .map((size, axis) => size ?? (axis ? "?" : "batch"))
              .join(" × "),
          ),
        ),
      ),
      ["output"],
    ),
  );
}

function table(heads, numeric, rows, wide) {
  return h(
    "table",
    { class: "grid" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        heads.map((head, at) =>
          h(
            "th",
            {
              scope: "col",
              class: [numeric.includes(at) && "num", wide.includes(head) && "wide"]
                .filter(Boolean)
                .join(" "),
            },
            head,
          ),
        ),
      ),
    ),
    h("tbody", {}, rows),
  );
}

$("#delete").addEventListener("click", () =>
  removeWithQuestion(`/api/models/${state.model.id}`, {
    title: `Delete ${state.model.name}?`,
    text: "The uploaded file goes as well. This can't be undone.",
  }),
);

const isBusy = (now) =>
  now.model.status === "importing" || now.analyses.some((analysis) => isOpen(analysis.status));
keepFresh(show, isBusy, state);
show(state);
