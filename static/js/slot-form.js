// The questions about a file, between choosing and sending it.

import { h } from "./dom.js";
import { ARCHITECTURES, columnsOf, fieldsOf, formOf, likelyTarget, PRESETS, TASKS, WrongField } from "./upload-form.js";

const HEADER_BYTES = 65536;
let made = 0;

function row(label, control, note = null) {
  control.id = `say-${(made += 1)}`;
  if (note) {
    note.id = `${control.id}-note`;
    control.setAttribute("aria-describedby", note.id);
  }
  const framed = control.tagName === "INPUT" ? h("span", { class: "field" }, control) : control;
  return h("div", { class: "say-row" }, h("label", { for: control.id }, label), framed, note);
}

const input = (name, extra = {}) =>
  h("input", { name, type: "text", autocomplete: "off", spellcheck: "false", autocapitalize: "off", ...extra });

const select = (name, choices, chosen) => {
  const element = h("select", { name }, choices.map(([value, text]) => h("option", { value }, text)));
  if (chosen) element.value = chosen;
  return element;
};

const note = (...words) => h("span", { class: "note" }, ...words);

function datalist(id, values) {
  return h("datalist", { id }, values.map((value) => h("option", { value })));
}

/** Task and, where it matters, how rows of 0 and 1 are meant. For the empty slot and for arrays. */
export function taskRows(said = {}) {
  const labels = select("labels", [["", "as they look"], ["one-hot", "one class a row"], ["multi-label", "any number of labels a row"]], said.labels);
  const labelsRow = row("Rows of 0 and 1", labels, note("Only where y is a table of them."));
  const task = select("task", TASKS, said.task);
  const follow = () => {
    labelsRow.hidden = task.value !== "classification";
  };
  task.addEventListener("change", follow);
  follow();
  return [row("Task", task), labelsRow];
}

function weightsRows(said) {
  const id = `architectures-${(made += 1)}`;
  return [
    h("p", { class: "say" }, "These are weights without their network. Which one do they belong to?"),
    h("details", { class: "say-part", open: true },
      h("summary", {}, "Architecture"),
      row("Name", input("architecture", { list: id, value: said.architecture, placeholder: "timm:resnet18" }),
        note("From timm, transformers or an installed package. Left empty, you get a look at the weights only: no curves.")),
      datalist(id, ARCHITECTURES),
      row("Arguments", input("args", { value: said.args, placeholder: '{"num_classes": 10}', class: "mono" }),
        note("What its builder is called with, as JSON; often nothing."))),
  ];
}

function imageRows(said) {
  return [
    h("p", { class: "say" }, "Images, one folder a class. They are brought to one size and scale:"),
    row("Scale", select("preset", PRESETS, said.preset || "imagenet"), note("As in the network’s training.")),
    row("Size", input("size", { inputmode: "numeric", value: said.size, placeholder: "224" }),
      note("Pixels a side, cut from the middle.")),
  ];
}

function tableRows(said, columns) {
  const id = `columns-${(made += 1)}`;
  const target = input("target", { list: id, value: said.target ?? likelyTarget(columns) });
  return [
    h("p", { class: "say" }, columns.length ? `A table of ${columns.length} columns.` : "A table: its columns become the input."),
    row("Task", select("task", TASKS.slice(0, 2), said.task)),
    row("Predicted column", target, note(columns.length ? `In the file: ${listed(columns)}` : "Left empty: the one called target, label, y or class.")),
    datalist(id, columns),
    h("details", { class: "say-part", open: Boolean(said.ignore || said.categorical) },
      h("summary", {}, "Other columns"),
      row("Leave out", input("ignore", { value: said.ignore, placeholder: "id, name" })),
      row("Categories", input("categorical", { value: said.categorical, placeholder: "zip code" }),
        note("Numbers that are names. Text is taken as categories by itself."))),
  ];
}

const listed = (columns) => columns.slice(0, 8).join(", ") + (columns.length > 8 ? ", …" : "");

/** What the form's fields say now. */
export function saidIn(element) {
  return Object.fromEntries(
    [...element.querySelectorAll("input[name], select[name]")].map((field) => [field.name, field.value]),
  );
}

/** Marks the field that is wrong and says why; false when nothing is. */
export function showWrong(element, error) {
  const box = element.querySelector(".wrong");
  for (const field of element.querySelectorAll("[aria-invalid]")) field.removeAttribute("aria-invalid");
  box.textContent = error?.message ?? "";
  box.hidden = !error;
  if (!(error instanceof WrongField)) return;
  const field = element.querySelector(`[name="${error.field}"]`);
  field?.closest("details")?.setAttribute("open", "");
  field?.setAttribute("aria-invalid", "true");
  field?.focus();
}

/**
 * The form for a file.
 * @param {{kind: string, file: File, said: object, onSend: (fields: object, said: object) => void,
 *   onCancel: () => void}} what `said`: what it is filled with at first
 * @returns {Promise<HTMLFormElement>}
 */
export async function fileForm({ kind, file, said, onSend, onCancel }) {
  const form = formOf(kind, file.name);
  const isCsv = /\.csv$/i.test(file.name);
  const columns = isCsv ? columnsOf(await file.slice(0, HEADER_BYTES).text().catch(() => "")) : [];
  const rows = {
    weights: () => weightsRows(said),
    images: () => imageRows(said),
    table: () => tableRows(said, columns),
    arrays: () => taskRows(said),
  }[form]?.() ?? [];
  const element = h("form", { class: "say-form", novalidate: true },
    rows,
    h("p", { class: "wrong", role: "alert", hidden: true }),
    h("div", { class: "slot-acts" },
      h("button", { class: "btn primary", type: "submit" }, "Upload"),
      h("button", { class: "btn", type: "button", onclick: onCancel }, "Cancel")));
  element.addEventListener("submit", (event) => {
    event.preventDefault();
    const now = saidIn(element);
    try {
      const fields = fieldsOf(form, now, columns);
      onSend(fields, now);
    } catch (error) {
      if (!(error instanceof WrongField)) throw error;
      showWrong(element, error);
    }
  });
  return element;
}
