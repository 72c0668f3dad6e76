// The table of layers: the control surface. Rows are made once; a change touches only its own row.

import { $, h, icon, svg } from "../dom.js";
import { number, percent, splitPath } from "../format.js";
import { curvePath, stretched } from "../sparkline.js";
import { removedCount } from "./prediction.js";
import { chipOf } from "./chips.js";
import { bySensitivity, readAt } from "./reading.js";
import { isPreview } from "./sharpness.js";
import { levelText, stepByKey, typedLevel } from "./steps.js";
import { fromPercent, toPercent, toSparsity } from "./store.js";

export class LayerTable {
  /**
   * @param {import("./store.js").Store} store
   * @param {import("./undo.js").History} history
   */
  constructor(store, history) {
    this.store = store;
    this.history = history;
    this.body = $("#layers");
    this.scroller = $("#layers-scroll");
    /** @type {Map<string, object>} the parts of each row */
    this.rows = new Map();
    this.order = store.units.map((unit) => unit.id);
    const total = store.facts.total_parameters || 1;
    const largest = Math.max(1, ...store.units.map((unit) => unit.size));
    for (const unit of store.units) this.rows.set(unit.id, this.makeRow(unit, total, largest));
    this.body.append(...this.order.map((id) => this.rows.get(id).tr));
    for (const unit of store.units) this.drawCurve(unit.id);
    for (const unit of store.units) this.drawThreshold(unit.id);
    this.listOthers();
    this.listen();
    this.resort();
    this.mark();
    this.filter();
  }

  makeRow(unit, total, largest) {
    const [head, leaf] = splitPath(unit.label);
    const share = unit.size / total;
    const parts = {
      tol: svg("path", { class: "tol" }),
      past: svg("path", { class: "past" }),
      kept: svg("path", { class: "kept" }),
      range: h("input", {
        type: "range", min: 0, max: 100, step: 1, "aria-label": `Sparsity of ${unit.id}`,
      }),
      field: h("input", {
        class: "pct", type: "number", min: 0, max: 100, step: "any", inputmode: "decimal",
        autocomplete: "off", "aria-label": `Sparsity of ${unit.id} in percent`,
      }),
      chip: h("span", { class: "chip" }),
      chipKey: "",
    };
    const title = `${unit.id}: ${number(unit.size)} weights, ${percent(share)} of the model`;
    parts.tr = h("tr", { dataset: { unit: unit.id } },
      h("td", { class: "c-name" },
        h("button", { class: "lname", type: "button", title },
          h("span", { class: "path" },
            h("span", { class: "pre" }, h("bdi", {}, head)), h("span", { class: "leaf" }, h("bdi", {}, leaf))),
          h("span", { class: "share", style: { "--share": String((100 * unit.size) / largest) } },
            h("i")))),
      h("td", { class: "c-sl" },
        h("div", { class: "sl" },
          svg("svg", { viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" },
            parts.tol, parts.past, parts.kept),
          parts.range)),
      h("td", { class: "c-pct" }, parts.field),
      h("td", { class: "c-state" }, parts.chip));
    return parts;
  }

  /** Sparkline and chip of one unit, after its points, the baseline or the tolerance changed. */
  drawCurve(id) {
    const { store } = this;
    const row = this.rows.get(id);
    const points = store.curves.get(id);
    const { yard, metric } = store;
    if (yard !== null) {
      const { baseline } = yard;
      const d = curvePath(points.map((p) => [p.sparsity, p.value]), { baseline, metric });
      const y = (stretched(yard.at(store.tolerance), baseline, metric) * 20).toFixed(1);
      row.tol.setAttribute("d", `M0 ${y}H100`);
      row.past.setAttribute("d", points.length ? d : "");
      row.kept.setAttribute("d", points.length ? d : "");
    }
    row.tr.classList.toggle("rough", points.length > 0 && points.every(isPreview));
    const knee = store.knee(id);
    row.tr.classList.toggle("kneed", knee !== null);
    if (knee) row.tr.style.setProperty("--k", String(knee.sparsity * 100));
    row.range.setAttribute("aria-valuetext", this.valueText(id, store.levels.get(id)));
    this.drawChip(id);
  }

  drawChip(id) {
    const { store } = this;
    const row = this.rows.get(id);
    const level = store.levels.get(id);
    const chip = chipOf({
      points: store.curves.get(id), known: store.points.get(id), expected: store.grid.length,
      yard: store.yard, tolerance: store.tolerance, live: store.status === "running",
      done: store.status === "done", remark: store.remark(id),
      mode: store.evaluation.mode, goal: store.evaluation.tolerance,
      dropWords: (point) => store.dropWords(point),
      level, removed: removedCount(toSparsity(level), store.byId.get(id).size),
      size: store.byId.get(id).size,
    });
    const key = `${chip.kind}|${chip.word}|${chip.title}`;
    if (key === row.chipKey) return;
    row.chipKey = key;
    row.chip.className = `chip ${chip.kind === "plain" ? "" : chip.kind}`;
    row.chip.title = chip.title;
    row.chip.replaceChildren(...(chip.icon ? [icon(chip.icon)] : []), chip.word);
  }

  drawThreshold(id) {
    const row = this.rows.get(id);
    const level = this.store.levels.get(id);
    const text = levelText(level);
    row.tr.style.setProperty("--v", String(toPercent(level)));
    // A range with a step would round a plan's 12.5 %.
    row.range.step = level % 10_000 === 0 ? "1" : "any";
    row.range.value = text;
    row.range.setAttribute("aria-valuetext", this.valueText(id, level));
    if (row.field !== document.activeElement || typedLevel(row.field.value) !== level) {
      row.field.value = text;
    }
    this.drawChip(id);
  }

  valueText(id, level) {
    const { yard, metric, curves } = this.store;
    const start = `${levelText(level)} percent`;
    const points = curves.get(id);
    const remark = this.store.remark(id);
    if (remark && !points.length) return `${start}. ${remark}`;
    if (level > 0 && removedCount(toSparsity(level), this.store.byId.get(id).size) === 0) {
      return `${start}, nothing removed`;
    }
    if (!yard || !points.length) return start;
    const { value } = readAt(points, yard, toSparsity(level));
    return `${start}, ${metric.spoken(value)} ${metric.word} with this layer alone`;
  }

  listOthers() {
    const { others } = this.store;
    const box = $("#others");
    box.hidden = others.length === 0;
    if (!others.length) return;
    $("#others-sum").textContent =
      `${others.length} ${others.length === 1 ? "tensor is" : "tensors are"} left alone`;
    $("#others-list").append(...others.map((unit) =>
      h("li", {}, h("span", { class: "mono", title: unit.id }, h("bdi", {}, unit.id)),
        h("span", { class: "cap" },
          unit.reason || (unit.prunable ? "not part of this analysis" : "not prunable")))));
  }

  listen() {
    const { body, store, history } = this;
    const unitOf = (event) => event.target.closest("tr")?.dataset.unit ?? null;
    body.addEventListener("click", (event) => {
      const unit = unitOf(event);
      if (unit) store.select(unit);
    });
    body.addEventListener("focusin", (event) => {
      if (event.target.matches("input")) store.select(unitOf(event));
    });
    body.addEventListener("input", (event) => {
      const unit = unitOf(event);
      const { target } = event;
      const level = target.type === "range" ? fromPercent(Math.round(Number(target.value)))
        : typedLevel(target.value);
      if (level === null) return;
      store.select(unit);
      history.edit(() => store.setLevel(unit, level), `${target.type}:${unit}`);
    });
    body.addEventListener("change", (event) => {
      history.close();
      const { target } = event;
      if (target.type === "number") target.value = levelText(store.levels.get(unitOf(event)));
    });
    body.addEventListener("focusout", (event) => {
      // A field left with something that is no number shows its threshold again.
      if (event.target.type === "number") {
        event.target.value = levelText(store.levels.get(unitOf(event)));
      }
    });
    body.addEventListener("keydown", (event) => {
      const unit = unitOf(event);
      if (event.target.type === "range") stepByKey(event, store, history, unit);
      else if (event.target.type === "number") {
        if (event.key === "ArrowUp" || event.key === "ArrowDown") {
          stepByKey(event, store, history, unit);
        } else if (event.key === "Enter") event.target.select();
      }
    });
    body.addEventListener("pointerover", (event) => {
      if (event.pointerType !== "touch") store.hover(unitOf(event));
    });
    body.addEventListener("pointerleave", () => store.hover(null));

    $("#q").addEventListener("input", (event) => store.set("query", event.target.value.trim()));
    for (const radio of document.querySelectorAll("input[name=sort]")) {
      radio.checked = radio.value === store.sort;
      radio.addEventListener("change", () => {
        store.set("sort", radio.value);
        this.resort();
      });
    }
    $("#resort").addEventListener("click", () => this.resort());

    store.on(["thresholds"], (dirty) => {
      for (const unit of dirty.get("thresholds")) this.drawThreshold(unit);
    });
    store.on(["points"], (dirty) => {
      for (const unit of dirty.get("points")) if (this.rows.has(unit)) this.drawCurve(unit);
      this.offerResort();
    });
    store.on(["baseline", "tolerance", "status", "criterion", "remarks"], () => {
      for (const unit of this.rows.keys()) this.drawCurve(unit);
      this.offerResort();
    });
    store.on(["selection", "hover"], () => this.mark());
    store.on(["query"], () => this.filter());
  }

  mark() {
    const { selected, hovered } = this.store;
    if (this.marked !== selected) {
      this.rows.get(this.marked)?.tr.removeAttribute("aria-current");
      const tr = this.rows.get(selected)?.tr;
      tr?.setAttribute("aria-current", "true");
      if (this.marked !== undefined) this.reveal(tr);
      this.marked = selected;
    }
    if (this.lit !== hovered) {
      this.rows.get(this.lit)?.tr.classList.remove("hover");
      this.rows.get(hovered)?.tr.classList.add("hover");
      this.lit = hovered;
    }
  }

  /** Scrolls a row into view inside the table only; the page itself never jumps. */
  reveal(tr) {
    const box = this.scroller;
    if (!tr || box.scrollHeight <= box.clientHeight) return;
    const head = $("thead", box)?.offsetHeight ?? 0;
    const outer = box.getBoundingClientRect();
    const inner = tr.getBoundingClientRect();
    if (inner.top < outer.top + head) box.scrollTop -= outer.top + head - inner.top;
    else if (inner.bottom > outer.bottom) box.scrollTop += inner.bottom - outer.bottom;
  }

  wanted() {
    const { units, sort, yard, tolerance } = this.store;
    if (sort === "size") {
      return [...units].sort((a, b) => b.size - a.size || a.index - b.index).map((u) => u.id);
    }
    if (sort === "sensitivity" && yard) {
      const sound = new Map(units.map(({ id }) => [id, this.store.sound(id)]));
      return bySensitivity(units, sound, yard, tolerance);
    }
    return units.map((unit) => unit.id);
  }

  resort() {
    const order = this.wanted();
    if (order.some((id, i) => id !== this.order[i])) {
      const focused = document.activeElement;
      this.order = order;
      this.body.append(...order.map((id) => this.rows.get(id).tr));
      if (this.body.contains(focused)) focused.focus();
    }
    $("#resort").hidden = true;
  }

  /** New points may change the order by sensitivity; the rows wait until somebody asks. */
  offerResort() {
    if (this.store.sort !== "sensitivity") return;
    $("#resort").hidden = this.wanted().every((id, i) => id === this.order[i]);
  }

  filter() {
    const query = this.store.query.toLowerCase();
    let shown = 0;
    for (const [id, row] of this.rows) {
      const fits = id.toLowerCase().includes(query);
      row.tr.hidden = !fits;
      if (fits) shown += 1;
    }
    $("#no-match").hidden = shown > 0 || this.rows.size === 0;
  }

  /** The visible unit `step` rows after (or before) the selected one. */
  neighbour(step) {
    const visible = this.order.filter((id) => !this.rows.get(id).tr.hidden);
    if (!visible.length) return null;
    const here = visible.indexOf(this.store.selected);
    if (here < 0) return visible[0];
    return visible[Math.min(visible.length - 1, Math.max(0, here + step))];
  }
}
