// How sharp the curves are, and what makes them sharper: Sharpen (a layer, levels, everything) and
// Make exact. What that costs is estimated from the points that are here.

import { post } from "../api.js";
import { openDialog } from "../dialog.js";
import { $, h } from "../dom.js";
import { duration, number, percent, plural, SPACE } from "../format.js";
import { toast } from "../toast.js";
import { samplesMissing, scoreUnits, widthWords } from "./sharpness.js";
import { toSparsity } from "./store.js";

/** Splits up to this size are always measured whole. */
const SMALL_SPLIT = 400;
/** How far round a threshold levels count as near: so many levels of the grid to each side. */
const NEAR_LEVELS = 2;

/**
 * Samples to be evaluated for a part of the points, and of how many points. What a level that nobody
 * has measured needs for a half width can't be said; all samples are all samples.
 * @param {import("./store.js").Store} store
 * @param {(unit: string, sparsity: number) => boolean} covers
 * @param {number} target half width in units of the score; 0 for all samples
 */
export function costOf({ book, grid, baseline }, covers, target) {
  let samples = 0;
  let points = 0;
  for (const [criterion, units] of book.raw) {
    for (const [unit, known] of units) {
      if (!known.length && book.remarkOf(criterion, unit)) continue;
      const there = new Set(known.map((point) => point.sparsity));
      const absent = grid.filter((level) => !there.has(level) && covers(unit, level)).length;
      points += absent;
      if (!(target > 0)) samples += absent * (baseline?.samples ?? 0);
      for (const point of known) {
        const missing = covers(unit, point.sparsity) ? samplesMissing(point, target) : 0;
        samples += missing;
        if (missing > 0) points += 1;
      }
    }
  }
  return { samples, points };
}

/** The levels round the thresholds of a plan, as the lowest and the highest; null without any. */
export function nearThresholds(levels, grid) {
  const chosen = [...levels.values()].filter((level) => level > 0).map(toSparsity);
  if (!chosen.length || !grid.length) return null;
  const lowest = grid.filter((level) => level < Math.min(...chosen)).slice(-NEAR_LEVELS)[0] ?? grid[0];
  const above = grid.filter((level) => level > Math.max(...chosen)).slice(0, NEAR_LEVELS);
  return [Math.min(lowest, Math.min(...chosen)), above.at(-1) ?? grid.at(-1)];
}

/**
 * What bf16 changes in the intact network; empty where it was not asked for.
 * @param {?{used: string, reason: ?string, answers: number, differing: ?number, loss: ?number, loss_float32: ?number}} arithmetic
 */
export function arithmeticWords(arithmetic) {
  if (!arithmetic) return "";
  const { used, reason, answers, differing } = arithmetic;
  if (used !== "bfloat16") return `Computed in float32, not bf16: ${reason}`;
  if (differing === null) {
    const [own, exact] = [arithmetic.loss, arithmetic.loss_float32].map((loss) =>
      loss === null ? "not finite" : loss.toPrecision(4));
    return `bf16: the intact network's loss is ${own}, in float32 ${exact}.`;
  }
  const share = percent(differing / Math.max(1, answers), 2);
  return `bf16 changes ${number(differing)} of ${plural(answers, "answer")} (${share}) of the intact network.`;
}

export class Precision {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    this.dialog = $("#sharpen-dialog");
    this.form = $("form", this.dialog);
    this.problem = $("#sharpen-problem");
    $("#sharpen").addEventListener("click", () => this.ask());
    $("#exact").addEventListener("click", () => this.makeExact());
    this.form.addEventListener("input", () => this.describe());
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.seconds = 0;
    this.evaluated = 0;
    this.last = null;
    store.on(["status"], () => this.watch());
    store.on(["points", "status", "baseline", "metric"], () => this.draw());
    this.draw();
  }

  /** Seconds that one evaluation of a sample takes, as this page has seen it. */
  get rate() {
    return this.seconds > 1 && this.evaluated > 0 ? this.seconds / this.evaluated : null;
  }

  /** Counts time and samples between two words of a running worker. */
  watch() {
    const { store } = this;
    const samples = store.progress?.samples ?? 0;
    const now = performance.now() / 1000;
    if (store.status === "running" && this.last && samples > this.last.samples) {
      this.seconds += now - this.last.now;
      this.evaluated += samples - this.last.samples;
    }
    const same = this.last?.samples === samples && store.status === "running";
    if (!same) this.last = store.status === "running" ? { samples, now } : null;
  }

  /** "1,200 more sample evaluations, about 12 s". */
  costWords({ samples }) {
    const time = this.rate ? `, about ${duration(samples * this.rate)}` : "";
    return `${number(samples)} more sample evaluations${time}`;
  }

  draw() {
    const { store } = this;
    const { counts, evaluation, task } = store;
    const total = Math.max(store.total, counts.points);
    const partial = counts.points - counts.whole - counts.preview;
    const parts = [
      ["whole", counts.whole, "on all samples"], ["partial", partial, "on a part of them"],
      ["preview", counts.preview, "preview"], ["none", total - counts.points, "not measured"],
    ].filter(([, size]) => size > 0);
    const bar = $("#precision-bar");
    bar.hidden = total === 0;
    bar.setAttribute("aria-label",
      `Points: ${parts.map(([, size, words]) => `${number(size)} ${words}`).join(", ")}`);
    bar.replaceChildren(...parts.map(([kind, size]) =>
      h("i", { class: kind, style: { "flex-grow": String(size) } })));
    const share = percent(evaluation.confidence, 0);
    $("#precision-goal").textContent = {
      adaptive: evaluation.half_width
        ? `${widthWords(evaluation.half_width, task)} at ${share}` : "adaptive",
      knee: `knees at ${widthWords(evaluation.tolerance, task).replace(`±${SPACE}`, "")}, ${share}`,
      exact: "exact",
    }[evaluation.mode] ?? "";
    const words = [`${number(counts.whole)} of ${number(total)} points on all samples`];
    if (partial) words.push(`${number(partial)} on a part`);
    if (counts.preview) words.push(plural(counts.preview, "preview"));
    $("#precision-say").textContent = `${words.join(", ")}.`;
    const arithmetic = arithmeticWords(store.baseline?.arithmetic);
    $("#precision-arithmetic").textContent = arithmetic;
    $("#precision-arithmetic").hidden = !arithmetic;
    const rest = costOf(store, () => true, 0);
    const nothing = counts.points === 0;
    const exact = !nothing && rest.points === 0;
    // An exact analysis, or one of a small split, sees all samples anyway.
    const anyway = evaluation.mode === "exact" || store.baseline?.samples <= SMALL_SPLIT;
    for (const button of [$("#sharpen"), $("#exact")]) button.disabled = nothing || exact || anyway;
    $("#exact-cost").textContent = nothing ? "There is nothing to sharpen yet."
      : exact ? "Every point is exact: all samples of the split were seen."
        : anyway ? "Every point is measured on all samples of the split."
          : rest.samples ? `Exact takes ${this.costWords(rest)}.` : "";
  }

  /** What the dialog's form covers: for the request, and for the estimate of its cost. */
  get part() {
    const { store } = this;
    const chosen = this.form.elements.part.value;
    if (chosen === "unit") {
      return { body: { units: [store.selected] }, covers: (unit) => unit === store.selected };
    }
    const near = chosen === "near" ? nearThresholds(store.levels, store.grid) : null;
    if (near) {
      const [low, high] = near;
      return { body: { sparsities: near }, covers: (_, sparsity) => sparsity >= low && sparsity <= high };
    }
    return { body: {}, covers: () => true };
  }

  get target() {
    const { factor } = scoreUnits(this.store.task);
    return Number(this.form.elements.width.value) / factor;
  }

  ask() {
    const { store, form } = this;
    const { factor, unit } = scoreUnits(store.task);
    const near = nearThresholds(store.levels, store.grid);
    $("#sharpen-unit").textContent = store.byId.get(store.selected)?.label ?? "";
    $("#sharpen-near").textContent = near
      ? near.map((level) => percent(level, 0)).join(" to ") : "choose thresholds first";
    const radio = $("input[value=near]", form);
    radio.disabled = !near;
    if (!near && form.elements.part.value === "near") form.elements.part.value = "unit";
    $("#sharpen-units").textContent = unit;
    // Half of what was asked for before, until somebody types another.
    if (!form.elements.width.value) {
      const before = store.goals.map((goal) => goal.half_width).filter(Boolean);
      const least = Math.min(store.evaluation.half_width ?? 0.01, ...before);
      form.elements.width.value = String(Number(((least / 2) * factor).toPrecision(2)));
    }
    this.problem.hidden = true;
    this.describe();
    openDialog(this.dialog);
  }

  describe() {
    const exact = this.form.elements.exact.checked;
    this.form.elements.width.disabled = exact;
    const cost = costOf(this.store, this.part.covers, exact ? 0 : this.target);
    $("#sharpen-cost").textContent = cost.points
      ? `${plural(cost.points, "point")}: ${this.costWords(cost)}.`
      : "All points there are that sharp already.";
  }

  async submit() {
    const { form } = this;
    const exact = form.elements.exact.checked;
    const field = form.elements.width;
    const good = exact || this.target > 0;
    field.setAttribute("aria-invalid", String(!good));
    if (!good) {
      this.say("Write how sharp: a number above 0.");
      field.focus();
      return;
    }
    const button = $("button[type=submit]", form);
    button.disabled = true;
    try {
      await this.send({ ...this.part.body, ...(exact ? { exact: true } : { half_width: this.target }) });
      this.dialog.close("yes");
      toast("Sharpening.");
    } catch (error) {
      this.say([error.message, error.hint].filter(Boolean).join(" "));
    } finally {
      button.disabled = false;
    }
  }

  say(text) {
    this.problem.textContent = text;
    this.problem.hidden = false;
  }

  async send(body) {
    const { store } = this;
    const before = store.told;
    const analysis = await post(`/api/analyses/${store.analysis.id}/sharpen`, body);
    // Events that came meanwhile say more of how it stands.
    store.take(store.told === before ? analysis : { ...analysis, status: undefined });
  }

  async makeExact() {
    const button = $("#exact");
    const box = $("#precision-error");
    box.hidden = true;
    button.disabled = true;
    try {
      await this.send({ exact: true });
      toast("Making every point exact.");
    } catch (error) {
      box.textContent = [error.message, error.hint].filter(Boolean).join(" ");
      box.hidden = false;
    }
    this.draw();
  }
}
