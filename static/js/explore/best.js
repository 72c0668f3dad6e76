// Best per layer: which criterion loses least in each layer, and whether the difference is larger than
// the noise. The comparison is the server's (paired, on the samples that both were measured on).

import { get } from "../api.js";
import { $, h } from "../dom.js";
import { number, percent, percentValue, plural, SPACE } from "../format.js";
import { toastError } from "../toast.js";
import { scoreUnits } from "./sharpness.js";
import { toLevel, toPercent, toSparsity } from "./store.js";

const PAUSE = 1500;

/** Of a unit's comparisons the one nearest to a sparsity. */
function nearest(items, sparsity) {
  return items.reduce((a, b) => (
    !a || Math.abs(b.sparsity - sparsity) < Math.abs(a.sparsity - sparsity) ? b : a), null);
}

/** "0.8 ± 0.4 pp": by how many of the answers the best is ahead. */
function ahead({ difference, low, high }) {
  if (!Number.isFinite(difference)) return "–";
  const half = Math.max(high - difference, difference - low);
  return `${number(difference * 100, 1)} ±${SPACE}${number(half * 100, 1)}${SPACE}pp`;
}

/** The best of a unit over all its levels, in the form of one level's comparison. */
function overLevels({ unit, best, significant, drops, levels }) {
  const others = Object.entries(drops).filter(([name]) => name !== best).sort((a, b) => a[1] - b[1]);
  const [name = null, drop = NaN] = others[0] ?? [];
  return { unit, best, runner_up: name, significant, levels, apart: drop - drops[best] };
}

export class BestPerLayer {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.panel = $("#v-best");
    if (!this.panel) return;
    this.store = store;
    this.select = $("#best-at");
    /** @type {Map<string, object[]> | null} comparisons by unit */
    this.found = null;
    this.old = true;
    this.timer = 0;
    this.select.append(h("option", { value: "all" }, "all levels, mean drop"), ...store.grid.map((level) =>
      h("option", { value: String(level) }, `${percent(level, 0)} removed`)));
    this.select.addEventListener("change", () => this.draw());
    new MutationObserver(() => this.look()).observe(this.panel, { attributeFilter: ["hidden"] });
    $("#best-body").addEventListener("click", (event) => {
      const unit = event.target.closest("tr")?.dataset.unit;
      if (unit) store.select(unit);
    });
    store.on(["points"], () => {
      this.old = true;
      if (!this.timer) this.timer = setTimeout(() => this.look(), PAUSE);
    });
    store.on(["thresholds", "selection"], () => this.shown && this.draw());
    this.look();
  }

  get shown() {
    return !this.panel.hidden;
  }

  /** Asks for what is new, while somebody looks. */
  async look() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (!this.shown || !this.old) return;
    this.old = false;
    try {
      const { items, units = [] } = await get(`/api/analyses/${this.store.analysis.id}/comparison`);
      this.found = new Map();
      for (const item of items) this.found.set(item.unit, [...(this.found.get(item.unit) ?? []), item]);
      this.overall = new Map(units.map((each) => [each.unit, overLevels(each)]));
    } catch (error) {
      this.old = true;
      toastError(error);
    }
    this.draw();
  }

  draw() {
    const { store } = this;
    if (!this.found) return;
    const at = this.select.value;
    const atPlan = at === "plan";
    const rows = store.units.map((unit) => {
      if (at === "all") return { unit, item: this.overall.get(unit.id) ?? null, none: false };
      const sparsity = atPlan ? toSparsity(store.levels.get(unit.id)) : Number(at);
      const none = atPlan && sparsity === 0;
      return { unit, none, item: none ? null : nearest(this.found.get(unit.id) ?? [], sparsity) };
    });
    const told = rows.filter(({ item }) => item);
    const clear = told.filter(({ item }) => item.significant).length;
    $("#best").hidden = false;
    $("#best-say").textContent = told.length
      ? `${plural(clear, "layer")} of ${told.length} with a difference larger than the noise. ` +
        (atPlan ? "At the measured level nearest to each threshold." : "")
      : atPlan && store.nothingChosen ? "The plan removes nothing: choose thresholds, or a level here."
        : "No layer is measured with two criteria there yet.";
    $("#best-body").replaceChildren(...rows.map((row) => this.row(row)));
  }

  row({ unit, item, none }) {
    const { store } = this;
    const name = h("th", { scope: "row" },
      h("button", { class: "link mono", type: "button", title: unit.id }, unit.label));
    const current = unit.id === store.selected ? "true" : null;
    if (!item) {
      const why = none ? "nothing removed" : store.remark(unit.id) ?? "not measured with two criteria yet";
      return h("tr", { dataset: { unit: unit.id }, "aria-current": current }, name,
        h("td", { colspan: 5, class: "muted" }, why));
    }
    const overall = item.levels !== undefined;
    const verdict = item.significant ? "clear" : item.significant === null ? "not tested" : "within noise";
    return h("tr", { dataset: { unit: unit.id }, "aria-current": current }, name,
      h("td", { class: "num" }, overall ? plural(item.levels, "level")
        : percentValue(item.sparsity, toPercent(toLevel(item.sparsity)) % 1 ? 1 : 0)),
      h("td", {}, h(item.significant ? "b" : "span", {}, item.best)),
      h("td", {}, item.runner_up ?? "–"),
      h("td", { class: "num" }, overall ? this.apart(item.apart) : ahead(item)),
      h("td", {}, h("span", { class: `chip ${item.significant ? "" : "muted"}` }, verdict)));
  }

  /** A difference of mean drops, in the score's units. */
  apart(difference) {
    const { factor, digits, unit } = scoreUnits(this.store.task);
    return `${number(difference * factor, digits)}${SPACE}${unit}`;
  }
}
