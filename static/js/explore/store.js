// The one state of the explore page, and who hears of a change. Every change marks a topic dirty;
// all listeners run once in the next animation frame, with what became dirty. Nothing here draws.

import { readMetrics } from "../metrics.js";
import { curvePoint } from "./reading.js";

const SCALE = 1_000_000;

/** Sparsity (fraction) → level (integer millionths), so that equal thresholds compare equal. */
export const toLevel = (sparsity) => Math.min(SCALE, Math.max(0, Math.round(sparsity * SCALE)));
export const toSparsity = (level) => level / SCALE;
/** Level → percent without binary dust: 290000 → 29. */
export const toPercent = (level) => level / 10_000;
export const fromPercent = (percent) => toLevel(percent / 100);

/**
 * @typedef {"thresholds" | "points" | "baseline" | "selection" | "hover" | "scale" | "sort" |
 *   "query" | "tolerance" | "metric" | "status" | "plans" | "work" | "theme" | "size" | "clock"} Topic
 * @typedef {{id: string, index: number, label: string, size: number, shape: number[],
 *   prunable: boolean, reason: string | null}} Unit
 * @typedef {Map<Topic, Set<string>>} Dirty  topic → the unit ids concerned (empty: all or none)
 */

/** Names without ".weight" where nothing is lost by it: "layer1.0.conv1". */
function labels(units) {
  const short = (unit) => (unit.id.endsWith(".weight") ? unit.id.slice(0, -7) : unit.id);
  const uses = new Map();
  for (const unit of units.filter((u) => u.prunable)) {
    uses.set(short(unit), (uses.get(short(unit)) ?? 0) + 1);
  }
  return new Map(
    units.map((unit) => [
      unit.id,
      unit.prunable && uses.get(short(unit)) === 1 && short(unit) ? short(unit) : unit.id,
    ]),
  );
}

/** Puts a point where its sparsity belongs; whether there was none at that sparsity. */
function putInOrder(points, entry) {
  let at = points.length;
  while (at > 0 && points[at - 1].sparsity >= entry.sparsity) at -= 1;
  const replaces = points[at]?.sparsity === entry.sparsity;
  points.splice(at, replaces ? 1 : 0, entry);
  return !replaces;
}

export class Store {
  /** @param {object} state what the server put into the page; see templates/explore.html */
  constructor(state) {
    const { analysis } = state;
    this.analysis = analysis;
    this.facts = state.facts;
    this.splits = state.splits;
    this.model = state.model;
    this.dataset = state.dataset;
    this.criterion = analysis.criteria?.[0] ?? "magnitude";
    this.grid = [...(analysis.sparsities ?? [])].sort((a, b) => a - b);
    this.baseline = analysis.baseline ?? null;
    this.readMetrics(analysis);

    const names = labels(analysis.units);
    /** @type {Unit[]} */
    const all = analysis.units.map((unit, index) => ({ ...unit, index, label: names.get(unit.id) }));
    // An analysis can be limited to some units; the others are shown as left alone.
    const analysed = new Set(analysis.curves.map((curve) => curve.unit));
    this.units = all.filter((unit) => unit.prunable && analysed.has(unit.id));
    const shown = new Set(this.units);
    this.others = all.filter((unit) => !shown.has(unit));
    this.byId = new Map(this.units.map((unit) => [unit.id, unit]));
    this.factsById = new Map(this.facts.units.map((unit) => [unit.id, unit]));

    /** @type {Map<string, object[]>} measured points by unit, ascending sparsity, as they came */
    this.points = new Map(this.units.map((unit) => [unit.id, []]));
    /** @type {Map<string, object[]>} the same read in the chosen metric, without those it lacks */
    this.curves = new Map(this.units.map((unit) => [unit.id, []]));
    for (const curve of analysis.curves) {
      if (curve.criterion !== undefined && curve.criterion !== this.criterion) continue;
      for (const point of curve.points) this.insert(curve.unit, point);
    }

    /** @type {Map<string, number>} threshold levels by unit, in network order */
    this.levels = new Map(this.units.map((unit) => [unit.id, 0]));
    this.selected = this.units[0]?.id ?? null;
    this.hovered = null;
    this.scale = "stretched";
    this.sort = "network";
    this.query = "";
    /** The loss that counts as tolerated, in the metric's unit: the line, the knees, the chips. */
    this.tolerance = this.metric.family.tolerance;

    this.status = analysis.status;
    this.error = analysis.error ?? null;
    this.progress = analysis.progress ?? { done: 0, total: 0, eta: null };

    /** @type {Map<number, object>} plans of this analysis by id */
    this.plans = new Map();
    for (const plan of [...(state.plans ?? [])].reverse()) this.plans.set(plan.id, plan);
    if (state.plan) this.plans.set(state.plan.id, state.plan);
    /** The plan that was last opened or measured: its figures go stale, not away, on an edit. */
    this.reference = state.plan?.id ?? null;
    /** @type {{planId: number | null, jobId: number | null, phase: string, progress: object | null,
     *   error: object | null} | null} the measurement under way or failed */
    this.work = null;

    this.listeners = [];
    /** @type {Dirty} */
    this.dirty = new Map();
    this.frame = 0;
  }

  /** Calls `listener(dirty)` in the frame after any of the topics changed. */
  on(topics, listener) {
    this.listeners.push({ topics: new Set(topics), listener });
  }

  touch(topic, unit = null) {
    if (!this.dirty.has(topic)) this.dirty.set(topic, new Set());
    if (unit !== null) this.dirty.get(topic).add(unit);
    if (!this.frame) this.frame = requestAnimationFrame(() => this.flush());
  }

  flush() {
    const { dirty } = this;
    this.dirty = new Map();
    this.frame = 0;
    for (const { topics, listener } of this.listeners) {
      for (const topic of dirty.keys()) {
        if (topics.has(topic)) {
          listener(dirty);
          break;
        }
      }
    }
  }

  /** Adds or replaces one measured point. Points of units or criteria not shown are passed over. */
  insert(unit, point) {
    const points = this.points.get(unit);
    if (!points || !(point.sparsity > 0)) return false;
    const entry = curvePoint(point, this.metric);
    if (entry) putInOrder(this.curves.get(unit), entry);
    return putInOrder(points, point);
  }

  /** The metrics that the page can be read in; the primary one, until another is chosen. */
  readMetrics({ metrics, metric, task }) {
    const { list, primary } = readMetrics({ metrics, metric, task });
    this.task = task;
    this.primary = primary;
    this.allMetrics = list;
    this.metric = list.find((each) => each.name === this.metric?.name) ?? primary;
  }

  /** Those that are defined here: with four classes there is no top 5. */
  get metrics() {
    if (!this.baseline) return this.allMetrics;
    return this.allMetrics.filter((each) => each.value(this.baseline) !== null);
  }

  /** The dense network's value in the chosen metric; null until it is measured. */
  get yard() {
    const base = this.metric.value(this.baseline);
    if (base === null) return null;
    if (this.kept?.metric !== this.metric || this.kept.baseline !== base) {
      this.kept = this.metric.against(base);
    }
    return this.kept;
  }

  /** Whether the chosen metric comes with intervals; null while no point says. */
  get hasIntervals() {
    for (const points of this.curves.values()) {
      for (const { deviation, low } of points) return deviation > 0 || typeof low === "number";
    }
    return null;
  }

  setMetric(name) {
    const metric = this.metrics.find((each) => each.name === name);
    if (!metric || metric === this.metric) return;
    const sameUnit = metric.family === this.metric.family;
    this.metric = metric;
    if (!sameUnit) this.tolerance = metric.family.tolerance;
    this.reread();
  }

  /** What the analysis turned out to predict, and so its metrics, may be known with the baseline. */
  takeMetrics(analysis) {
    if (!analysis.metrics || analysis.task === this.task) return;
    this.readMetrics(analysis);
    this.tolerance = this.metric.family.tolerance;
    this.reread();
  }

  reread() {
    for (const [unit, points] of this.points) {
      this.curves.set(unit, points.map((point) => curvePoint(point, this.metric)).filter(Boolean));
      this.touch("points", unit);
    }
    for (const topic of ["metric", "baseline", "tolerance"]) this.touch(topic);
  }

  addPoints(points) {
    for (const point of points) {
      if (point.criterion !== undefined && point.criterion !== this.criterion) continue;
      this.insert(point.unit, point);
      this.touch("points", point.unit);
    }
  }

  /** Measured points over all units. */
  get measuredCount() {
    let total = 0;
    for (const points of this.points.values()) total += points.length;
    return total;
  }

  setBaseline(baseline) {
    this.baseline = baseline;
    // Chosen before it was known that it is not defined here.
    if (!this.metrics.includes(this.metric)) this.setMetric(this.primary.name);
    this.touch("baseline");
  }

  setStatus({ status, error, progress }) {
    if (status) this.status = status;
    this.error = error ?? null;
    if (progress) this.progress = progress;
    this.touch("status");
  }

  get live() {
    return this.status === "queued" || this.status === "running";
  }

  /** @returns {boolean} whether anything changed */
  setLevel(unit, level) {
    if (!this.levels.has(unit) || this.levels.get(unit) === level) return false;
    this.levels.set(unit, level);
    this.touch("thresholds", unit);
    return true;
  }

  /** Sets all thresholds; units that `levels` doesn't name get 0. */
  setLevels(levels) {
    for (const unit of this.levels.keys()) this.setLevel(unit, levels.get(unit) ?? 0);
  }

  select(unit) {
    if (!this.byId.has(unit) || unit === this.selected) return;
    this.selected = unit;
    this.touch("selection");
  }

  hover(unit) {
    if (unit === this.hovered) return;
    this.hovered = unit;
    this.touch("hover");
  }

  set(field, value) {
    if (this[field] === value) return;
    this[field] = value;
    this.touch(field);
  }

  /** @returns {Map<string, number>} fractions by unit, as the prediction wants them */
  sparsities() {
    return new Map([...this.levels].map(([unit, level]) => [unit, toSparsity(level)]));
  }

  /** The thresholds as the API takes them. */
  sparsityObject() {
    return Object.fromEntries(this.sparsities());
  }

  get nothingChosen() {
    for (const level of this.levels.values()) if (level) return false;
    return true;
  }

  /** Whether a saved plan is exactly what the thresholds say now. */
  matches(plan) {
    for (const [unit, level] of this.levels) {
      if (toLevel(plan.sparsities[unit] ?? 0) !== level) return false;
    }
    return true;
  }

  /** The saved plan with the present thresholds: measured ones first, then the newest. */
  currentPlan() {
    let found = null;
    for (const plan of this.plans.values()) {
      if (!this.matches(plan)) continue;
      if (!found || this.measurement(plan) || !this.measurement(found)) found = plan;
    }
    return found;
  }

  /** The newest measurement of a plan on the tune split, or null. */
  measurement(plan) {
    const all = (plan?.measurements ?? []).filter((m) => (m.split ?? "tune") === "tune");
    return all.at(-1) ?? null;
  }

  putPlan(plan) {
    this.plans.set(plan.id, plan);
    this.touch("plans");
  }

  addMeasurement(planId, measurement) {
    const plan = this.plans.get(planId);
    if (!plan) return false;
    const old = plan.measurements ?? [];
    const known = measurement.id !== undefined && old.some((m) => m.id === measurement.id);
    if (!known) this.plans.set(planId, { ...plan, measurements: [...old, measurement] });
    this.touch("plans");
    return true;
  }

  setWork(work) {
    this.work = work;
    this.touch("work");
  }
}
