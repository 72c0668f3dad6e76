// Loss by layer: the same points as the chart, one row a layer, colour classes instead of lines.
// Each colour class is one SVG path, so that five hundred layers stay cheap.

import { $$, svg } from "../dom.js";
import { percent, plural } from "../format.js";
import { cutStart, isNarrow, margins } from "./chart.js";
import { isPreview } from "./sharpness.js";
import { toSparsity } from "./store.js";

const CLASSES = 8;
const PAUSE = 200;

/** The colour class of a loss; `limits` are the upper ends of all but the last. */
export function lossClass(loss, limits) {
  let index = 0;
  while (index < limits.length && loss > limits[index] + 1e-12) index += 1;
  return index;
}

/** The borders of the cells: half way between neighbouring levels, inside 0 to 1. */
export function cellEdges(grid) {
  if (!grid.length) return [];
  const first = grid.length > 1 ? (grid[1] - grid[0]) / 2 : 0.025;
  const last = grid.length > 1 ? (grid.at(-1) - grid.at(-2)) / 2 : 0.025;
  const edges = [Math.max(0, grid[0] - first)];
  for (let i = 1; i < grid.length; i += 1) edges.push((grid[i - 1] + grid[i]) / 2);
  edges.push(Math.min(1, grid.at(-1) + last));
  return edges;
}

export class Heatmap {
  /**
   * @param {import("./store.js").Store} store
   * @param {HTMLElement} box scrolls when there are more rows than fit
   * @param {{row: [number, number], title: boolean}} size smallest and largest row height
   */
  constructor(store, box, size) {
    this.store = store;
    this.box = box;
    this.size = size;
    this.edges = cellEdges(store.grid);
    this.rowOf = new Map(store.units.map((unit, row) => [unit.id, row]));
    this.timer = 0;
    this.drawnAt = 0;
    this.tip = box.parentElement.querySelector(".tip");
    store.on(["size", "baseline", "selection", "criterion", "metric", "remarks"], () => this.draw());
    store.on(["points"], () => this.drawSoon());
    store.on(["thresholds"], () => this.drawPlan());
    store.on(["hover"], () => this.drawHover());
    this.listen();
  }

  /** Height that all rows want, within the row limits. */
  wantedHeight(available) {
    const rows = Math.max(1, this.store.units.length);
    const { row, title } = this.size;
    const frame = title ? 42 : 24;
    return Math.min(available, rows * row[1] + frame);
  }

  drawSoon() {
    const wait = this.drawnAt + PAUSE - performance.now();
    if (wait <= 0) this.draw();
    else if (!this.timer) this.timer = setTimeout(() => this.draw(), wait);
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = 0;
    const width = this.box.clientWidth;
    const { store, size } = this;
    if (!store.yard || width < 80 || this.box.clientHeight < 30) return;
    this.drawnAt = performance.now();
    const rows = store.units.length;
    const frame = size.title ? 42 : 24;
    const row = Math.min(size.row[1], Math.max(size.row[0], (this.box.clientHeight - frame) / rows));
    const margin = margins();
    const labels = !isNarrow();
    const inner = width - margin.l - margin.r;
    const x = (sparsity) => margin.l + inner * sparsity;
    this.geometry = { width, row, x, inner, margin, height: rows * row + frame };
    const element = svg("svg", {
      class: "heat-svg", width, height: this.geometry.height, role: "img",
      viewBox: `0 0 ${width} ${this.geometry.height}`,
      "aria-label": `${store.metric.lossName} of ${store.metric.word} by layer and sparsity. The numbers are in curves.csv.`,
    }, this.cells(), this.axis());
    this.halo = svg("path", { class: "plan-halo" });
    this.plan = svg("path", { class: "plan-box" });
    this.planSelected = svg("path", { class: "plan-box mine" });
    this.light = svg("path", { class: "row-light" });
    element.append(this.light, this.halo, this.plan, this.planSelected);
    if (labels) element.append(this.names());
    this.box.replaceChildren(element);
    this.drawPlan();
    this.drawHover();
  }

  rect(row, index, inset = 0.5) {
    const { x, row: height } = this.geometry;
    const left = x(this.edges[index]) + inset;
    const right = x(this.edges[index + 1]) - inset;
    const top = row * height + inset;
    return `M${left.toFixed(1)} ${top.toFixed(1)}H${right.toFixed(1)}` +
      `V${((row + 1) * height - inset).toFixed(1)}H${left.toFixed(1)}Z`;
  }

  cells() {
    const { store } = this;
    const { yard } = store;
    const { limits } = yard.metric.family;
    const paths = Array.from({ length: CLASSES }, () => []);
    const missing = [];
    const spared = [];
    let previews = 0;
    const column = new Map(store.grid.map((sparsity, index) => [sparsity, index]));
    for (const [id, row] of this.rowOf) {
      const seen = new Set();
      for (const point of store.curves.get(id)) {
        const index = column.get(point.sparsity);
        if (index === undefined) continue;
        seen.add(index);
        // Where nothing was removed there is no loss to show: not the palest blue, but none.
        const path = point.achieved === 0
          ? spared : paths[lossClass(yard.loss(point.value), limits)];
        // A preview takes a small part of its cell.
        if (isPreview(point)) previews += 1;
        path.push(this.rect(row, index, isPreview(point) ? this.geometry.row * 0.28 : undefined));
      }
      if (!seen.size && store.remark(id)) continue;
      for (const index of column.values()) {
        if (!seen.has(index)) missing.push(this.centre(row, index));
      }
    }
    const keys = { spared: spared.length, missing: missing.length, preview: previews };
    for (const [name, shown] of Object.entries(keys)) {
      for (const key of $$(`[data-key=${name}]`)) key.hidden = !shown;
    }
    return [
      svg("path", { class: "spared", d: spared.join("") }),
      ...paths.map((d, index) => svg("path", { class: `loss-${index}`, d: d.join("") })),
      svg("path", { class: "missing", d: missing.join("") }),
      this.remarks(),
    ];
  }

  /** Where a unit has no curve, its row says why. */
  remarks() {
    const { store } = this;
    const { x, row } = this.geometry;
    const size = Math.min(11, row - 1);
    const said = store.units.filter(({ id }) => !store.points.get(id).length && store.remark(id));
    return svg("g", { class: "remarks" }, said.map(({ id }) => svg("text", {
      x: x(0) + 4, y: (this.rowOf.get(id) + 0.5) * row + size * 0.35, style: { "font-size": `${size}px` },
    }, store.remark(id))));
  }

  centre(row, index) {
    const { x, row: height } = this.geometry;
    const middle = (x(this.edges[index]) + x(this.edges[index + 1])) / 2;
    return `M${middle.toFixed(1)} ${((row + 0.5) * height).toFixed(1)}h0`;
  }

  axis() {
    const { x, row } = this.geometry;
    const bottom = this.store.units.length * row;
    const step = isNarrow() ? 20 : 10;
    const ticks = [];
    for (let value = 0; value <= 100; value += step) {
      ticks.push(svg("text", { x: x(value / 100), y: bottom + 15, "text-anchor": "middle" }, String(value)));
    }
    if (this.size.title) {
      ticks.push(svg("text", { x: x(0.5), y: bottom + 34, "text-anchor": "middle" },
        "weights removed from this one layer, %"));
    }
    return svg("g", { class: "ticks" }, ticks);
  }

  names() {
    const { store } = this;
    const { width, margin, row } = this.geometry;
    if (row < 9) return svg("g");
    return svg("g", { class: "names" }, store.units.map((unit, index) => svg("text", {
      x: width - margin.r + 6, y: (index + 0.5) * row + 3.5,
      class: unit.id === store.selected ? "mine" : null,
    }, cutStart(unit.label, 21))));
  }

  /** The cell nearest to a unit's threshold, or -1 when it removes (almost) nothing. */
  planCell(id) {
    const sparsity = toSparsity(this.store.levels.get(id));
    if (sparsity < this.edges[0]) return -1;
    const index = this.edges.findIndex((edge) => sparsity < edge) - 1;
    return index === -2 ? this.edges.length - 2 : index;
  }

  drawPlan() {
    if (!this.geometry || !this.edges.length) return;
    const boxes = [];
    let mine = "";
    for (const [id, row] of this.rowOf) {
      const index = this.planCell(id);
      if (index < 0) continue;
      const box = this.rect(row, index, 1);
      if (id === this.store.selected) mine = box;
      else boxes.push(box);
    }
    this.halo.setAttribute("d", boxes.join("") + mine);
    this.plan.setAttribute("d", boxes.join(""));
    this.planSelected.setAttribute("d", mine);
  }

  drawHover() {
    if (!this.geometry) return;
    const row = this.rowOf.get(this.store.hovered);
    const { x, row: height } = this.geometry;
    this.light.setAttribute("d", row === undefined ? ""
      : `M${x(0)} ${row * height}H${x(1)}V${(row + 1) * height}H${x(0)}Z`);
  }

  listen() {
    const { box, store, tip } = this;
    const at = (event) => {
      const outer = box.getBoundingClientRect();
      const y = event.clientY - outer.top + box.scrollTop;
      const x = event.clientX - outer.left;
      if (!this.geometry) return null;
      const unit = store.units[Math.floor(y / this.geometry.row)];
      return unit ? { unit, x, y: event.clientY - outer.top } : null;
    };
    const leave = () => {
      tip.hidden = true;
      store.hover(null);
    };
    box.addEventListener("pointermove", (event) => {
      if (event.pointerType === "touch") return;
      const place = at(event);
      if (!place) {
        leave();
        return;
      }
      store.hover(place.unit.id);
      this.showTip(place);
    });
    box.addEventListener("pointerleave", leave);
    box.addEventListener("click", (event) => {
      const place = at(event);
      if (place) store.select(place.unit.id);
    });
  }

  showTip({ unit, x, y }) {
    const { store, tip } = this;
    if (!store.yard) return;
    const { margin, inner, width } = this.geometry;
    const sparsity = (x - margin.l) / inner;
    const index = this.edges.findIndex((edge) => sparsity < edge) - 1;
    tip.hidden = index < 0;
    if (index < 0) return;
    const level = store.grid[index];
    const point = store.curves.get(unit.id).find((p) => p.sparsity === level);
    tip.firstElementChild.textContent = unit.label;
    const preview = point && isPreview(point) ? ", preview" : "";
    tip.lastElementChild.textContent = point?.achieved === 0
      ? `${percent(level, 0)} of ${plural(unit.size, "weight")}: nothing removed`
      : `${percent(level, 0)} removed: ` + (point
        ? `${store.metric.text(point.value)} (${store.yard.change(point.value)})${preview}`
        : store.remark(unit.id) ?? "not measured yet");
    tip.style.left = `${this.box.offsetLeft + Math.min(x + 14, width - tip.offsetWidth - 4)}px`;
    const above = y + 30 + tip.offsetHeight > this.box.clientHeight;
    tip.style.top = `${this.box.offsetTop + (above ? y - tip.offsetHeight - 10 : y + 16)}px`;
  }
}
