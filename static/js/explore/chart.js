// All curves in one chart. Plotly draws axes, context lines (one trace, however many layers), the
// selected curve with its band and the labels; it redraws when data, selection or size change. What
// follows the pointer (hovered curve, threshold ring) is an SVG on top, so that a drag costs nothing.

import { axis, layout, mono, note, token } from "../charts.js";
import { $, svg } from "../dom.js";
import { plotlyText, plural } from "../format.js";
import { placeLabels } from "./labels.js";
import { interpolate } from "./prediction.js";
import { axisOf, rangeOf, roundTicks, tickText } from "./scale.js";
import { intervalWords, isPreview, sharpness } from "./sharpness.js";
import { toSparsity } from "./store.js";
import { tracesOf } from "./traces.js";

const PERCENTS = [0, 10, 20, 30, 40, 50, 60, 70, 80, 90, 100];
/** While points stream in, the chart is redrawn at most this often (ms). */
const STREAM_PAUSE = 120;
const NEAR = 18;
/** Width of a character of the labels, a little generous (px). */
const GLYPH = 6.5;

export const isNarrow = () => innerWidth < 720;
/** Left and right margins, shared with the heat map so that the x axes line up. */
export const margins = () => (isNarrow() ? { l: 52, r: 14 } : { l: 54, r: 142 });

export class Chart {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    this.plot = $("#curves");
    this.wrap = this.plot.parentElement;
    this.hoverLine = svg("path", { class: "hover-line" });
    this.hoverDots = svg("path", { class: "hover-dots" });
    this.hoverLabel = svg("text", { class: "hover-label" });
    this.ring = svg("circle", { class: "ring", r: 5.5, hidden: true });
    this.overlay = svg("svg", { class: "overlay", "aria-hidden": "true" },
      this.hoverLine, this.hoverDots, this.hoverLabel, this.ring);
    this.wrap.append(this.overlay);
    /** Called after every redraw: what stands on the chart moves along. */
    this.afterDraw = [];
    this.drawnAt = 0;
    this.timer = 0;

    const topics = ["selection", "scale", "tolerance", "baseline", "theme", "size", "criterion", "fit"];
    store.on(topics, () => this.draw());
    store.on(["points"], () => this.drawSoon());
    store.on(["hover", "selection"], () => this.drawHover());
    store.on(["thresholds"], (dirty) => {
      if (dirty.get("thresholds").has(store.selected)) this.drawRing();
    });
  }

  get ready() {
    return this.store.yard !== null && this.wrap.clientWidth > 80 && this.wrap.clientHeight > 60;
  }

  /** Batches streamed points: the first at once, then one redraw every STREAM_PAUSE. */
  drawSoon() {
    const wait = this.drawnAt + STREAM_PAUSE - performance.now();
    if (wait <= 0) this.draw();
    else if (!this.timer) this.timer = setTimeout(() => this.draw(), wait);
  }

  measure() {
    const { store } = this;
    const { yard } = store;
    let lowest = yard.baseline;
    let highest = yard.baseline;
    for (const points of [...store.curves.values(), store.overlaid(store.selected)]) {
      for (const { value } of points) {
        if (value < lowest) lowest = value;
        if (value > highest) highest = value;
      }
    }
    const [low, high] = rangeOf(store.scale, yard, lowest, highest, store.tolerance);
    const unit = axisOf(store.scale, yard);
    const margin = { ...margins(), t: 22, b: 40 };
    const width = this.wrap.clientWidth;
    const height = this.wrap.clientHeight;
    const inner = { width: width - margin.l - margin.r, height: height - margin.t - margin.b };
    const clampUnit = (value) => unit(Math.max(low, Math.min(high, value)));
    this.geometry = {
      margin, width, height, inner, low, high, unit, clampUnit,
      x: (sparsity) => margin.l + inner.width * sparsity,
      y: (value) =>
        margin.t + (inner.height * (unit(high) - clampUnit(value))) / (unit(high) - unit(low)),
      sparsity: (x) => Math.min(1, Math.max(0, (x - margin.l) / inner.width)),
    };
  }

  draw() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (!this.ready) return;
    this.drawnAt = performance.now();
    this.measure();
    const g = this.geometry;
    Plotly.react(this.plot, tracesOf(this.store, g), this.layout(), { staticPlot: true, displayModeBar: false });
    this.overlay.setAttribute("viewBox", `0 0 ${g.width} ${g.height}`);
    this.drawRing();
    this.drawHover();
    for (const follow of this.afterDraw) follow();
  }

  layout() {
    const { store } = this;
    const { margin, width, height, low, high, unit, y } = this.geometry;
    const { yard, metric } = store;
    const { baseline } = yard;
    const tolerated = yard.at(store.tolerance);
    const narrow = isNarrow();
    const close = Math.abs(y(baseline) - y(tolerated)) < 14;
    const reserved = narrow ? [baseline, ...(close ? [] : [tolerated])] : [];
    const ticks = roundTicks(low, high, yard, y, narrow ? 22 : 18, reserved);
    const line = (value, dash, color) => ({
      type: "line", xref: "x", x0: 0, x1: 100, yref: "y", y0: unit(value), y1: unit(value),
      line: { color, width: 1, dash }, layer: "below",
    });
    return layout({
      width, height, autosize: false, margin: { ...margin, pad: 0 }, hovermode: false,
      xaxis: axis({
        range: [0, 100], tickvals: PERCENTS, showline: true,
        title: {
          text: `weights removed from this one layer, %${this.bandWords(narrow)}`,
          font: { size: 11, color: token("ink-3") }, standoff: 7,
        },
      }),
      yaxis: axis({
        range: [unit(low), unit(high)], ticklen: 3,
        tickvals: [...ticks, ...reserved].map(unit),
        ticktext: [
          ...ticks.map((value) => tickText(value, metric)),
          ...reserved.map((value) => `<b>${tickText(metric.fraction ? Number(value.toFixed(3)) : value, metric)}</b>`),
        ],
      }),
      shapes: [line(baseline, "solid", token("control")), line(tolerated, "5px,4px", token("ink-2"))],
      annotations: [
        ...(narrow ? [] : [...this.references(close), ...this.names()]), ...this.remarks(),
      ],
    });
  }

  /** What band and whiskers are, or that there are none. */
  bandWords(narrow) {
    const { store } = this;
    if (store.hasIntervals === false) return narrow ? " (no interval)" : "  (no interval for this metric)";
    if (!store.hasIntervals || narrow) return "";
    const points = store.curves.get(store.selected) ?? [];
    const partial = points.find((point) => sharpness(point) !== "whole");
    const { confidence } = store.evaluation;
    if (!partial) return `  (band: ${Number((confidence * 100).toFixed(2))} % interval)`;
    const whole = points.some((point) => sharpness(point) === "whole");
    return `  (whiskers: ${intervalWords(partial, confidence)}` +
      `${whole ? "; band: of the population" : ""})`;
  }

  /** The words at the baseline and at the tolerated value. */
  references(close) {
    const { yard, metric, tolerance } = this.store;
    const { unit } = this.geometry;
    const { baseline } = yard;
    const tolerated = yard.at(tolerance);
    const words = (value, text) => note(100, unit(value), text, { xshift: 7 });
    if (close) {
      return [words(baseline, `base ${metric.bare(baseline)}, tol. ${metric.text(tolerated)}`)];
    }
    return [
      words(baseline, `baseline ${metric.text(baseline)}`),
      words(tolerated, `tolerated ${metric.text(tolerated)}`),
    ];
  }

  /** Words in the corner that curves leave free: that points are a preview, where the knee is. */
  remarks() {
    const { store } = this;
    const points = store.curves.get(store.selected) ?? [];
    const lines = [];
    const rough = points.filter(isPreview);
    if (rough.length) lines.push(`small and faint: preview, ${plural(rough[0].samples, "sample")}`);
    if (isNarrow()) {
      if (store.overlaid(store.selected).length) {
        lines.push(`filled: ${plotlyText(store.criterion)}, open: ${plotlyText(store.compared)}`);
      }
      if (store.fitted && store.fit(store.selected)) lines.push("thin line: fit");
    }
    const knee = store.knee(store.selected);
    if (knee) {
      const share = Number((knee.sparsity * 100).toFixed(2));
      lines.push(`<b>knee ${share} %</b>: ${store.dropWords(knee)}`);
    }
    if (!lines.length) return [];
    // Losses fall to the right, errors rise: the other corner at the left is free.
    const low = store.metric.sign > 0;
    return [note(0, low ? 0 : 1, lines.join("<br>"), {
      xref: "paper", yref: "paper", xshift: 6, yshift: low ? 4 : -4, align: "left",
      yanchor: low ? "bottom" : "top", bgcolor: token("paper"), opacity: 0.9,
    })];
  }

  /** Direct labels: what is drawn of the selected layer, then the outermost curves that still fit. */
  names() {
    const { store } = this;
    const g = this.geometry;
    const { yard } = store;
    const last = store.grid.at(-1) ?? 1;
    const ends = [];
    const add = (name, end, color, isSelected) =>
      ends.push({ name, end, color, isSelected, y: g.y(end.value) });
    for (const unit of store.units) {
      const end = store.curves.get(unit.id).at(-1);
      const isSelected = unit.id === store.selected;
      if (!end || (!isSelected && end.sparsity < last)) continue;
      add(unit.label, end, isSelected ? "accent" : "ink-3", isSelected);
    }
    const second = store.overlaid(store.selected).at(-1);
    if (second) add(store.compared, second, "accent", true);
    const fit = store.fitted ? store.fit(store.selected)?.at(-1) : null;
    if (fit) add("fit", { sparsity: fit[0], value: fit[1] }, "ink-2", true);
    const taken = [g.y(yard.baseline), g.y(yard.at(store.tolerance))];
    return placeLabels(ends, taken, {
      bottom: g.height - g.margin.b - 6, most: 6, fromTop: store.metric.sign < 0,
    }).map(
      ({ name, end, color, isSelected, shift }) => {
        const room = (g.width - g.x(end.sparsity) - 10) / GLYPH;
        const text = plotlyText(cutStart(name, Math.floor(room)));
        const crowded = end.sparsity < last;
        const strong = isSelected && name !== store.compared && name !== "fit";
        return note(end.sparsity * 100, g.clampUnit(end.value), strong ? `<b>${text}</b>` : text, {
          xshift: 8, yshift: -shift, font: { family: mono(), size: 10.5, color: token(color) },
          ...(crowded ? { bgcolor: token("paper"), opacity: 0.92 } : {}),
        });
      },
    );
  }

  /** The hollow ring where the threshold meets the selected curve. */
  drawRing() {
    const { store } = this;
    const points = store.curves.get(store.selected) ?? [];
    const show = this.geometry && store.yard && points.length > 0;
    this.ring.toggleAttribute("hidden", !show);
    if (!show) return;
    const sparsity = toSparsity(store.levels.get(store.selected));
    const [value] = interpolate(points, store.yard.baseline, sparsity);
    this.ring.setAttribute("cx", this.geometry.x(sparsity).toFixed(2));
    this.ring.setAttribute("cy", this.geometry.y(value).toFixed(2));
  }

  drawHover() {
    const { store } = this;
    const id = store.hovered === store.selected ? null : store.hovered;
    const points = store.curves.get(id) ?? [];
    if (!this.geometry || !store.yard || !points.length) {
      this.hoverLine.removeAttribute("d");
      this.hoverDots.removeAttribute("d");
      this.hoverLabel.textContent = "";
      return;
    }
    const { x, y, width } = this.geometry;
    const at = points.map((p) => `${x(p.sparsity).toFixed(1)} ${y(p.value).toFixed(1)}`);
    const start = `${x(0).toFixed(1)} ${y(store.yard.baseline).toFixed(1)}`;
    this.hoverLine.setAttribute("d", `M${[start, ...at].join("L")}`);
    // Zero-length strokes with round caps are dots.
    this.hoverDots.setAttribute("d", at.map((p) => `M${p}h0`).join(""));
    const end = points.at(-1);
    const narrow = isNarrow();
    const room = narrow ? 30 : Math.floor((width - x(end.sparsity) - 10) / GLYPH);
    this.hoverLabel.textContent = cutStart(store.byId.get(id).label, room);
    this.hoverLabel.setAttribute("x", String(narrow ? width - 16 : x(end.sparsity) + 8));
    this.hoverLabel.setAttribute("y", String(y(end.value) + (narrow ? -8 : 3.5)));
    this.hoverLabel.setAttribute("text-anchor", narrow ? "end" : "start");
  }

  /** The unit whose curve passes nearest to a point of the chart, or null. */
  nearest(px, py, within = NEAR) {
    const { store, geometry: g } = this;
    if (!g || !store.yard || px < g.margin.l - 4 || px > g.width - g.margin.r + 4) return null;
    const { baseline } = store.yard;
    let best = null;
    let least = within;
    const height = (points, x) => g.y(interpolate(points, baseline, g.sparsity(x))[0]);
    for (const [id, points] of store.curves) {
      if (!points.length || g.sparsity(px) > points.at(-1).sparsity + 0.01) continue;
      const offset = Math.abs(height(points, px) - py);
      if (offset > within * 8) continue;
      // On a steep slope the line is nearer than it is high above or below.
      const slope = (height(points, px + 3) - height(points, px - 3)) / 6;
      const distance = offset / Math.hypot(1, slope);
      if (distance < least) {
        least = distance;
        best = id;
      }
    }
    return best;
  }
}

/** Long names are cut at the start: the end is what tells layers apart. */
export function cutStart(name, length) {
  return name.length > length ? `…${name.slice(name.length - length + 1)}` : name;
}
