// The threshold on the chart: an element of its own over Plotly, a slider for pointer and keyboard.
// Also what the pointer does on the rest of the chart: hover previews, click selects.

import { $ } from "../dom.js";
import { percent } from "../format.js";
import { readAt } from "./reading.js";
import { levelText, stepByKey } from "./steps.js";
import { fromPercent, toSparsity } from "./store.js";

export class Handle {
  /**
   * @param {import("./store.js").Store} store
   * @param {import("./undo.js").History} history
   * @param {import("./chart.js").Chart} chart
   */
  constructor(store, history, chart) {
    this.store = store;
    this.history = history;
    this.chart = chart;
    this.element = $("#handle");
    this.flag = $("#handle span");
    this.tip = $("#tip");
    this.pointer = null;
    chart.afterDraw.push(() => this.place());
    store.on(["thresholds", "selection"], () => this.place());
    store.on(["points"], () => this.describe());
    this.drag();
    this.look();
    this.element.addEventListener("keydown", (event) => {
      stepByKey(event, store, history, store.selected);
    });
  }

  place() {
    const { geometry } = this.chart;
    this.element.hidden = !geometry || !this.store.selected;
    if (this.element.hidden) return;
    const level = this.store.levels.get(this.store.selected);
    const x = geometry.x(toSparsity(level));
    this.element.style.left = `${x}px`;
    this.element.style.height = `${geometry.height - geometry.margin.b}px`;
    this.flag.textContent = percent(toSparsity(level), level % 10_000 ? 1 : 0);
    // The flag stays off the axis' numbers at one end and inside the page at the other.
    const half = this.flag.offsetWidth / 2;
    const edge = Math.max(0, geometry.margin.l + half - 3 - x) -
      Math.max(0, x + half + 4 - geometry.width);
    this.flag.style.setProperty("--nudge", `${edge}px`);
    this.describe();
  }

  describe() {
    const { store, element } = this;
    if (!store.selected) return;
    const level = store.levels.get(store.selected);
    const points = store.curves.get(store.selected);
    const parts = [`${levelText(level)} percent`];
    if (store.yard && points.length) {
      const { value } = readAt(points, store.yard, toSparsity(level));
      parts.push(`${store.metric.spoken(value)} ${store.metric.word} with this layer alone`);
    }
    element.setAttribute("aria-valuenow", levelText(level));
    element.setAttribute("aria-valuetext", parts.join(", "));
    element.setAttribute("aria-label", `Threshold on the chart, ${store.selected}`);
  }

  at(event) {
    const box = this.chart.wrap.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  }

  drag() {
    const { element, store, history } = this;
    element.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      element.focus({ preventScroll: true });
      element.setPointerCapture(event.pointerId);
      const x = this.chart.geometry.x(toSparsity(store.levels.get(store.selected)));
      this.pointer = { id: event.pointerId, unit: store.selected, offset: this.at(event).x - x };
      history.close();
      this.tip.hidden = true;
    });
    element.addEventListener("pointermove", (event) => {
      const { pointer } = this;
      if (pointer?.id !== event.pointerId) return;
      const sparsity = this.chart.geometry.sparsity(this.at(event).x - pointer.offset);
      const level = fromPercent(Math.round(sparsity * 100));
      history.edit(() => store.setLevel(pointer.unit, level), `drag:${pointer.unit}`);
    });
    const end = (event) => {
      if (this.pointer?.id !== event.pointerId) return;
      this.pointer = null;
      history.close();
    };
    element.addEventListener("pointerup", end);
    element.addEventListener("pointercancel", end);
    element.addEventListener("lostpointercapture", end);
  }

  look() {
    const { chart, store, tip } = this;
    const { wrap } = chart;
    const leave = () => {
      tip.hidden = true;
      store.hover(null);
    };
    wrap.addEventListener("pointermove", (event) => {
      if (this.pointer || event.pointerType === "touch") return;
      if (event.target.closest("#handle")) {
        leave();
        return;
      }
      const { x, y } = this.at(event);
      const unit = chart.nearest(x, y);
      store.hover(unit);
      wrap.classList.toggle("pick", unit !== null);
      tip.hidden = unit === null;
      if (unit !== null) this.showTip(unit, x, y);
    });
    wrap.addEventListener("pointerleave", leave);
    wrap.addEventListener("click", (event) => {
      if (event.target.closest("#handle")) return;
      const { x, y } = this.at(event);
      const unit = chart.nearest(x, y, event.pointerType === "touch" ? 30 : undefined);
      if (unit) store.select(unit);
    });
  }

  showTip(unit, x, y) {
    const { store, tip, chart } = this;
    const sparsity = Math.round(chart.geometry.sparsity(x) * 100) / 100;
    const { value } = readAt(store.curves.get(unit), store.yard, sparsity);
    tip.firstElementChild.textContent = store.byId.get(unit).label;
    tip.lastElementChild.textContent = `${percent(sparsity, 0)} removed: ${store.metric.text(value)}`;
    const { width, height } = chart.geometry;
    tip.style.left = `${Math.min(x + 14, width - tip.offsetWidth - 4)}px`;
    tip.style.top = `${y + 16 + tip.offsetHeight > height ? y - tip.offsetHeight - 10 : y + 16}px`;
  }
}
