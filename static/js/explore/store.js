// The one state of the explore page, and who hears of a change. Every change marks a topic dirty;
// all listeners run once in the next animation frame, with what became dirty. Nothing here draws.

import { readMetrics } from "../metrics.js";
import { CurveBook } from "./curve-book.js";
import { dropWords, measuredKnee } from "./sharpness.js";
import { readUnits } from "./units.js";

const SCALE = 1_000_000;

/** Sparsity (fraction) → level (integer millionths), so that equal thresholds compare equal. */
export const toLevel = (sparsity) => Math.min(SCALE, Math.max(0, Math.round(sparsity * SCALE)));
export const toSparsity = (level) => level / SCALE;
/** Level → percent without binary dust: 290000 → 29. */
export const toPercent = (level) => level / 10_000;
export const fromPercent = (percent) => toLevel(percent / 100);

/**
 * @typedef {"thresholds" | "points" | "baseline" | "selection" | "hover" | "scale" | "sort" |
 *   "query" | "tolerance" | "metric" | "criterion" | "fit" | "remarks" | "status" | "plans" |
 *   "work" | "theme" | "size" | "clock"} Topic
 * @typedef {import("./units.js").Unit} Unit
 * @typedef {Map<Topic, Set<string>>} Dirty  topic → the unit ids concerned (empty: all or none)
 */

export class Store {
  /** @param {object} state what the server put into the page; see templates/explore.html */
  constructor(state) {
    const { analysis } = state;
    this.analysis = analysis;
    this.facts = state.facts;
    this.splits = state.splits;
    this.model = state.model;
    this.dataset = state.dataset;
    this.criteria = analysis.criteria?.length ? analysis.criteria : ["magnitude"];
    /** The criterion of the plan, and one that is laid over it for comparison, or null. */
    this.criterion = this.criteria[0];
    this.compared = null;
    this.fitted = false;
    this.grid = [...(analysis.sparsities ?? [])].sort((a, b) => a - b);
    this.baseline = analysis.baseline ?? null;
    this.readMetrics(analysis);
    Object.assign(this, readUnits(analysis));
    this.byId = new Map(this.units.map((unit) => [unit.id, unit]));
    this.factsById = new Map(this.facts.units.map((unit) => [unit.id, unit]));

    /** How cells were to be measured when the analysis was started. */
    this.evaluation = { mode: "exact", confidence: 0.95, tolerance: 0.01, ...analysis.evaluation };
    this.book = new CurveBook(this.units, this.criteria);
    this.book.setReader(this.metric, this.evaluation.confidence);
    this.book.putCurves(analysis.curves, this.criterion);
    this.book.putRemarks(analysis.remarks);

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
    this.cells = analysis.cells ?? null;
    this.goals = analysis.goals ?? [];
    this.paused = analysis.paused === true;
    /** How often the status was said, by events and answers. */
    this.told = 0;

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

  /** @type {Map<string, object[]>} measured points by unit, of the plan's criterion, as they came */
  get points() {
    return this.book.raw.get(this.criterion);
  }

  /** @type {Map<string, object[]>} the same read in the chosen metric, without those it lacks */
  get curves() {
    return this.book.read.get(this.criterion);
  }

  /** The points of a unit from which conclusions may be drawn; see `CurveBook.sound`. */
  sound(unit) {
    return this.book.sound(this.criterion, unit);
  }

  /** The curve of the criterion that is laid over; empty without one. */
  overlaid(unit) {
    return this.book.read.get(this.compared)?.get(unit) ?? [];
  }

  /** Why a unit has no curve, or what is odd about it. */
  remark(unit, criterion = this.criterion) {
    return this.book.remarkOf(criterion, unit);
  }

  /** The isotonic fit of a unit in the chosen metric, [sparsity, value]; null where it has none. */
  fit(unit) {
    const fit = this.book.fits.get(CurveBook.key(this.criterion, unit));
    const line = fit?.map(([sparsity, drop]) => [sparsity, this.metric.atDrop(drop, this.baseline)]);
    return line?.length && line.every(([, value]) => value !== null) ? line : null;
  }

  /** In knee mode, the point of a unit's largest sparsity that is tolerated; otherwise null. */
  knee(unit) {
    if (this.evaluation.mode !== "knee") return null;
    return measuredKnee(this.sound(unit), this.evaluation.tolerance);
  }

  dropWords(point) {
    return dropWords(point, this.task);
  }

  setCriterion(criterion) {
    if (!this.criteria.includes(criterion) || criterion === this.criterion) return;
    if (this.compared === criterion) this.set("compared", this.criterion, "criterion");
    this.criterion = criterion;
    for (const unit of this.units) this.touch("points", unit.id);
    for (const topic of ["criterion", "baseline", "plans"]) this.touch(topic);
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
    this.book.setReader(this.metric, this.evaluation.confidence);
    for (const unit of this.units) this.touch("points", unit.id);
    for (const topic of ["metric", "baseline", "tolerance"]) this.touch(topic);
  }

  addPoints(points) {
    for (const point of points) {
      const { unit, criterion = this.criteria[0] } = point;
      if (this.book.put(criterion, unit, point)) this.touch("points", unit);
    }
    this.counted = null;
  }

  /** The analysis as the API gives it now: everything that may have changed since the page was made. */
  take(analysis) {
    for (const [, unit] of this.book.putCurves(analysis.curves ?? [], this.criteria[0])) {
      this.touch("points", unit);
    }
    this.counted = null;
    this.addRemarks(analysis.remarks);
    if (analysis.baseline && !this.baseline) this.setBaseline(analysis.baseline);
    this.takeMetrics(analysis);
    this.setStatus(analysis);
    this.touch("fit");
  }

  addRemarks(remarks) {
    if (!remarks?.length) return;
    this.book.putRemarks(remarks);
    this.touch("remarks");
  }

  /** Points that are wanted: as the server counts them, or every level of every layer. */
  get total() {
    return this.cells?.total ?? this.units.length * this.grid.length * this.criteria.length;
  }

  /** Of all criteria: how many points are known, settled, whole …; see `CurveBook.count`. */
  get counts() {
    this.counted ??= this.book.count();
    return this.counted;
  }

  setBaseline(baseline) {
    this.baseline = baseline;
    // Chosen before it was known that it is not defined here.
    if (!this.metrics.includes(this.metric)) this.setMetric(this.primary.name);
    this.touch("baseline");
  }

  /** Parts of the analysis or of a `status` event; what is not said stays as it is. */
  /**
   * What a request answers, unless events have said more by the time that it is here: they come by
   * another connection.
   * @template T
   * @param {Promise<T>} answer
   * @param {(answer: T) => void} take
   */
  async afterwards(answer, take) {
    const before = this.told;
    const said = await answer;
    if (this.told === before) take(said);
  }

  setStatus({ status, error, progress, cells, goals, paused, job_id: job }) {
    if (status) {
      this.told += 1;
      this.status = status;
      this.error = error ?? null;
    }
    if (progress) this.progress = { ...this.progress, ...progress };
    if (cells) this.cells = cells;
    if (goals) this.goals = goals;
    if (job) this.analysis.job_id = job;
    if (paused !== undefined) this.paused = paused;
    else if (status && status !== "queued") this.paused = false;
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

  set(field, value, topic = field) {
    if (this[field] === value) return;
    this[field] = value;
    this.touch(topic);
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

  /** Whether a saved plan is exactly what the thresholds and the criterion say now. */
  matches(plan) {
    if (plan.criterion && plan.criterion !== this.criterion) return false;
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
