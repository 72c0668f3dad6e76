// How an analysis is to be measured, on the first page and on a model's: mode and precision in sight,
// everything else behind "More". What is left alone is left to the server.

import { get } from "./api.js";
import { $, $$, h } from "./dom.js";
import { scoreUnits } from "./explore/sharpness.js";
import { SPACE } from "./format.js";
import { parseLevels } from "./upload.js";
import { problemBox } from "./words.js";

const DEFAULTS = ["magnitude"];
const GROUPS = [
  ["Need no data", ({ needs }) => needs === "nothing"],
  ["Need the train split", ({ needs }) => needs === "inputs" || needs === "gradients"],
  ["Registered here", ({ needs }) => needs === "unknown"],
];

/** A field that is filled in wrongly, with the sentence about it. */
export class FieldError extends Error {
  constructor(message, field) {
    super(message);
    this.field = field;
  }
}

const number = (field, words) => {
  const value = Number(field.value);
  if (field.value.trim() === "" || !Number.isFinite(value) || value <= 0) {
    throw new FieldError(`${words} has to be a number above 0.`, field);
  }
  return value;
};

export class EvaluationForm {
  constructor(root = $("#evaluation")) {
    this.root = root;
    this.dataset = null;
    this.listed = false;
    $("#more").addEventListener("toggle", () => this.list());
    root.addEventListener("input", () => this.describe());
    this.describe();
  }

  checked(name) {
    return $(`input[name=${name}]:checked`, this.root).value;
  }

  get units() {
    return scoreUnits(this.dataset?.task);
  }

  /** What the chosen data set allows: without a train split nothing can be learnt from it. */
  setDataset(dataset) {
    if (this.dataset === dataset) return;
    this.dataset = dataset;
    this.describe();
  }

  get noTrain() {
    return Boolean(this.dataset?.splits) && !this.dataset.splits.train;
  }

  describe() {
    const mode = this.checked("mode");
    for (const part of $$("[data-mode]", this.root)) part.hidden = !part.dataset.mode.split(" ").includes(mode);
    const { unit } = this.units;
    for (const each of $$("[data-unit]", this.root)) each.textContent = unit;
    const width = `±${SPACE}${$("#ev-width").value || "…"}${SPACE}${unit}`;
    $("#ev-say").textContent = {
      adaptive: `Every point on as many samples as ${width} or a tenth of its drop needs. A preview comes ` +
        "first; any part can be sharpened later, up to exact.",
      exact: "Every point on all samples of the tune split: nothing is estimated, and it takes longest.",
      knee: "Only the largest sparsity that each layer tolerates, by bisection: few points, no whole curves.",
    }[mode];
    for (const box of $$("[data-train]", this.root)) box.disabled = this.noTrain;
    $("#ev-norm").disabled = this.noTrain;
  }

  /** The criteria that this installation knows, asked for when somebody wants to choose. */
  async list() {
    if (this.listed || !$("#more").open) return;
    this.listed = true;
    const box = $("#ev-criteria");
    try {
      const { items } = await get("/api/criteria");
      box.replaceChildren(...GROUPS.map(([title, belongs]) => this.group(title, items.filter(belongs))));
      this.describe();
    } catch (error) {
      this.listed = false;
      box.replaceChildren(problemBox(error));
    }
  }

  group(title, items) {
    if (!items.length) return "";
    return h("fieldset", {}, h("legend", { class: "cap" }, title), items.map((item) => {
      const needsTrain = ["inputs", "gradients"].includes(item.needs);
      return h("label", { class: "check", title: item.source ?? "" },
        h("input", {
          type: "checkbox", name: "criterion", value: item.name,
          checked: DEFAULTS.includes(item.name), dataset: needsTrain ? { train: "" } : {},
        }),
        h("span", {}, h("b", {}, item.title ?? item.name), " ",
          h("span", { class: "note" }, item.description)));
    }));
  }

  /**
   * The part of POST /api/analyses that this form says.
   * @throws {FieldError}
   */
  read() {
    const mode = this.checked("mode");
    const { factor } = this.units;
    const body = { evaluation: { mode } };
    const { evaluation } = body;
    if (mode === "adaptive") evaluation.half_width = number($("#ev-width"), "The half width") / factor;
    if (mode === "knee") evaluation.tolerance = number($("#ev-tolerance"), "The tolerated drop") / factor;
    if (mode !== "exact") {
      evaluation.confidence = Number($("#ev-confidence").value);
      if ($("#ev-sequence").checked) evaluation.method = "sequence";
    }
    const precision = this.checked("precision");
    if (precision !== "float32") evaluation.precision = precision;
    const refine = Number($("#ev-refine").value);
    if (!Number.isInteger(refine) || refine < 0) {
      throw new FieldError("The number of extra levels has to be a whole number, 0 for none.", $("#ev-refine"));
    }
    if (refine) evaluation.refine = refine;
    const boxes = $$("input[name=criterion]", this.root);
    const criteria = boxes.filter((box) => box.checked && !box.disabled).map((box) => box.value);
    if (boxes.length && !criteria.length) throw new FieldError("Choose at least one criterion.", boxes[0]);
    if (criteria.length) body.criteria = criteria;
    let levels;
    try {
      levels = parseLevels($("#levels").value);
    } catch (error) {
      throw new FieldError(error.message, $("#levels"));
    }
    if (levels) body.sparsities = levels;
    const norm = $("#ev-norm");
    if (norm.checked && !norm.disabled) body.recalibrate_batch_norm = true;
    if ($("#ev-priority").value !== "normal") body.priority = $("#ev-priority").value;
    return body;
  }

  /** The body, or null after the field that is wrong was pointed at and `box` says why. */
  readOrSay(box) {
    box.replaceChildren();
    for (const field of $$("[aria-invalid]", this.root)) field.removeAttribute("aria-invalid");
    try {
      return this.read();
    } catch (error) {
      if (!(error instanceof FieldError)) throw error;
      error.field.setAttribute("aria-invalid", "true");
      const more = error.field.closest("details");
      if (more) more.open = true;
      error.field.focus();
      box.replaceChildren(problemBox(error));
      return null;
    }
  }
}
