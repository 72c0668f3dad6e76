// The curves as Plotly traces. What is drawn says how well it is known: whole points large and solid
// with a band, points of a part of the split smaller with a whisker, previews small and faint. The
// second criterion has the same colour, a thinner line and open marks; a fit is a thin line in ink.

import { token } from "../charts.js";
import { sharpness } from "./sharpness.js";

const BASE = { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false };
const SIZES = { preview: 4, partial: 5.5, whole: 7 };
const FAINT = 0.5;

/** `#rrggbb` or `rgb(…)` as it looks at a share of its strength. */
const faded = (color, share) => color.replace(/^rgba?\(([^,]+),([^,]+),([^,)]+).*$/, `rgba($1,$2,$3,${share})`);

/**
 * @param {import("./store.js").Store} store
 * @param {{unit: (value: number) => number, clampUnit: (value: number) => number}} geometry
 * @returns {object[]} in the order in which they lie on each other
 */
export function tracesOf(store, { unit, clampUnit }) {
  const chosen = store.curves.get(store.selected) ?? [];
  const second = store.overlaid(store.selected);
  return [
    ...context(store, unit),
    ...bands(store, chosen, clampUnit),
    ...fitted(store, unit),
    ...overlay(second, store, unit, clampUnit),
    whiskers(store, chosen, clampUnit, 1.5),
    ...lines(chosen, store, unit),
    marks(chosen, unit),
    ...knees(store, unit),
  ];
}

/** The parts of a curve between points that are known well, and those that end at a preview. */
function parts(points, start) {
  const found = { firm: { x: [], y: [] }, rough: { x: [], y: [] } };
  let before = { x: 0, y: start, firm: true };
  let last = null;
  for (const { x, y, firm } of points) {
    const kind = firm && before.firm ? "firm" : "rough";
    const part = found[kind];
    if (kind !== last) {
      if (part.x.length) {
        part.x.push(null);
        part.y.push(null);
      }
      part.x.push(before.x);
      part.y.push(before.y);
    }
    part.x.push(x);
    part.y.push(y);
    before = { x, y, firm };
    last = kind;
  }
  return found;
}

const placed = (points, unit) => points.map((point) => ({
  x: point.sparsity * 100, y: unit(point.value), firm: sharpness(point) !== "preview",
}));

/** All other layers: one trace for what is known well, one for previews. */
function context(store, unit) {
  const all = { firm: { x: [], y: [] }, rough: { x: [], y: [] } };
  const start = unit(store.yard.baseline);
  for (const [id, points] of store.curves) {
    if (id === store.selected || !points.length) continue;
    const found = parts(placed(points, unit), start);
    for (const kind of ["firm", "rough"]) {
      if (!found[kind].x.length) continue;
      all[kind].x.push(...found[kind].x, null);
      all[kind].y.push(...found[kind].y, null);
    }
  }
  const many = store.units.length > 60;
  const line = { color: token("context"), width: many ? 0.6 : 1 };
  return [
    { ...BASE, ...all.rough, line: { ...line, width: line.width * 0.75 }, opacity: FAINT },
    { ...BASE, ...all.firm, line, opacity: many ? 0.7 : 1 },
  ];
}

/** Whole points that are neighbours, in runs; dense itself is whole, and the start of the first. */
function wholeRuns(store, points) {
  const dense = store.metric.of(store.baseline);
  const runs = [[{ sparsity: 0, value: store.yard.baseline, low: dense.low, high: dense.high }]];
  for (const point of points) {
    if (sharpness(point) === "whole") runs.at(-1).push(point);
    else if (runs.at(-1).length) runs.push([]);
  }
  return runs;
}

/** The intervals of whole points, joined where they are neighbours. */
function bands(store, points, clampUnit) {
  if (!store.hasIntervals) return [];
  const runs = wholeRuns(store, points);
  const edge = (run, key) => run.map((p) => clampUnit(p[key] ?? p.value));
  return runs.filter((run) => run.length > 1).flatMap((run) => {
    const x = run.map((p) => p.sparsity * 100);
    return [
      { ...BASE, x, y: edge(run, "high"), line: { width: 0 } },
      { ...BASE, x, y: edge(run, "low"), line: { width: 0 }, fill: "tonexty",
        fillcolor: token("accent-band") },
    ];
  });
}

/** The interval of each point that no band shows; `all` where there is no band. */
function whiskers(store, points, clampUnit, width, opacity = 0.55, all = false) {
  const banded = new Set(all ? [] : wholeRuns(store, points).filter((run) => run.length > 1).flat());
  const x = [];
  const y = [];
  for (const point of points) {
    if (banded.has(point) || !Number.isFinite(point.low)) continue;
    x.push(point.sparsity * 100, point.sparsity * 100, null);
    y.push(clampUnit(point.low), clampUnit(point.high), null);
  }
  return { ...BASE, x, y, opacity, line: { color: token("accent"), width } };
}

function lines(points, store, unit) {
  const found = parts(placed(points, unit), unit(store.yard.baseline));
  const color = token("accent");
  return [
    { ...BASE, ...found.rough, line: { color, width: 1 }, opacity: FAINT },
    { ...BASE, ...found.firm, line: { color, width: 2 } },
  ];
}

function marks(points, unit) {
  const kinds = points.map(sharpness);
  const accent = token("accent");
  return {
    ...BASE, mode: "markers", x: points.map((p) => p.sparsity * 100), y: points.map((p) => unit(p.value)),
    marker: {
      size: kinds.map((kind) => SIZES[kind]),
      color: kinds.map((kind) => (kind === "preview" ? faded(accent, FAINT) : accent)),
      line: { color: token("paper"), width: kinds.map((kind) => (kind === "whole" ? 1.25 : 0)) },
    },
  };
}

/** The second criterion of the selected layer. */
function overlay(points, store, unit, clampUnit) {
  if (!points.length) return [];
  const accent = token("accent");
  const x = points.map((p) => p.sparsity * 100);
  const y = points.map((p) => unit(p.value));
  return [
    whiskers(store, points, clampUnit, 1, 0.35, true),
    { ...BASE, x: [0, ...x], y: [unit(store.yard.baseline), ...y], line: { color: accent, width: 1 } },
    { ...BASE, mode: "markers", x, y, marker: {
      size: points.map((p) => SIZES[sharpness(p)]), color: token("paper"),
      opacity: points.map((p) => (sharpness(p) === "preview" ? FAINT : 1)),
      line: { color: accent, width: 1.25 },
    } },
  ];
}

function fitted(store, unit) {
  const line = store.fitted ? store.fit(store.selected) : null;
  if (!line) return [];
  return [{
    ...BASE, x: [0, ...line.map(([s]) => s * 100)],
    y: [unit(store.yard.baseline), ...line.map(([, value]) => unit(value))],
    line: { color: token("ink-2"), width: 1 },
  }];
}

/** A tick at each layer's knee, where knees are what was asked for. */
function knees(store, unit) {
  if (store.evaluation.mode !== "knee") return [];
  const found = { x: [], y: [], color: [], width: [] };
  for (const id of store.curves.keys()) {
    const knee = store.knee(id);
    if (!knee) continue;
    const mine = id === store.selected;
    found.x.push(knee.sparsity * 100);
    found.y.push(unit(knee.value));
    found.color.push(token(mine ? "accent" : "ink-3"));
    found.width.push(mine ? 2.5 : 1.25);
  }
  return [{
    ...BASE, mode: "markers", x: found.x, y: found.y,
    marker: { symbol: "line-ns", size: 15, color: "rgba(0,0,0,0)",
      line: { color: found.color, width: found.width } },
  }];
}
