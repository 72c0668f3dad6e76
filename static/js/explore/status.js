// How the analysis is doing: the pill in the top bar, the sentence when it has failed or stopped,
// the announcement at every quarter, and the event stream behind all of it.

import { get, post } from "../api.js";
import { $ } from "../dom.js";
import { duration, number, plural } from "../format.js";
import { follow } from "../live.js";
import { refreshJobsCount } from "../refresh.js";
import { toastError } from "../toast.js";

/** The quarter last passed: 0, 25, 50, 75 or 100. */
export function quarterOf(done, total) {
  return total > 0 ? Math.floor((done / total) * 4) * 25 : 0;
}

export class Status {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    this.quarter = null;
    $("#run-cancel").addEventListener("click", () => this.act("cancel", $("#run-cancel")));
    $("#run-retry").addEventListener("click", () => this.act("retry", $("#run-retry")));
    store.on(["status", "points", "baseline"], () => this.draw());
    let before = null;
    store.on(["status", "work"], () => {
      const now = `${store.status} ${store.work?.phase ?? ""}`;
      if (before !== now) refreshJobsCount();
      before = now;
    });
    this.draw();
  }

  /** Points known and points wanted; the stream's points may be ahead of the last progress. */
  get points() {
    const { store } = this;
    const total = store.units.length * store.grid.length;
    return { done: Math.min(total, store.measuredCount), total };
  }

  async act(verb, button) {
    button.disabled = true;
    try {
      const job = await post(`/api/jobs/${this.store.analysis.job_id}/${verb}`);
      if (verb === "retry") this.store.setStatus({ status: job.state ?? "queued", error: null });
    } catch (error) {
      toastError(error);
    } finally {
      button.disabled = false;
    }
  }

  draw() {
    const { store } = this;
    const { done, total } = this.points;
    const pill = $("#run-status");
    pill.hidden = !store.live;
    if (store.live) {
      const share = total ? Math.floor((100 * done) / total) : 0;
      $("#run-word").textContent = store.status === "queued" ? "waiting for a worker" : "running";
      $("#run-share").textContent = store.status === "queued" ? "" : `${share}\u202f%`;
      const bar = $("#run-bar");
      bar.hidden = store.status === "queued";
      bar.max = Math.max(1, total);
      bar.value = done;
      const left = store.progress?.eta;
      $("#run-eta").textContent = store.status === "running" && left ? `${duration(left)} left` : "";
    }
    this.drawFoot(done, total);
    this.drawProblem(done, total);
    this.drawWaiting();
    this.announce(done, total);
  }

  drawFoot(done, total) {
    const { store } = this;
    const n = store.baseline ? `, n = ${number(store.baseline.samples)} per point` : "";
    $("#foot-points").textContent =
      `${number(done)} of ${plural(total, "point")}, ${plural(store.units.length, "layer")} × ` +
      `${plural(store.grid.length, "level")}${n}`;
  }

  drawProblem(done, total) {
    const { store } = this;
    const ended = store.status === "failed" || store.status === "cancelled";
    $("#run-problem").hidden = !ended;
    if (!ended) return;
    const kept = done
      ? `${number(done)} of ${number(total)} points are measured and kept.`
      : "Nothing was measured.";
    const failed = store.status === "failed";
    $("#run-problem").classList.toggle("calm", !failed);
    $("#run-problem-title").textContent = failed
      ? store.error?.message || "The analysis failed."
      : "The analysis was stopped.";
    $("#run-problem-hint").textContent = [failed ? store.error?.hint : "", kept].filter(Boolean).join(" ");
    $("#run-retry-word").textContent = failed ? "Try again" : "Continue";
  }

  /** What stands in the place of the chart before there is anything to draw. */
  drawWaiting() {
    const { store } = this;
    const box = $("#waiting");
    const empty = store.units.length === 0;
    box.hidden = store.baseline !== null && !empty;
    $("#p-view").classList.toggle("bare", !box.hidden);
    if (box.hidden) return;
    box.textContent = empty
      ? "This model has no weights that can be pruned, so there is nothing to draw."
      : {
        queued: "The analysis waits for a worker. Curves appear here as soon as the first points are measured.",
        running: "Measuring the dense network first. The curves follow, coarse to fine.",
        failed: "There is nothing to draw.", cancelled: "There is nothing to draw.",
        done: "There is nothing to draw.",
      }[store.status];
  }

  announce(done, total) {
    const quarter = quarterOf(done, total);
    if (this.quarter === null || !this.store.live) {
      if (this.quarter !== null && this.store.status === "done" && this.quarter < 100) {
        $("#run-spoken").textContent = "Sensitivity analysis complete.";
      }
      this.quarter = quarter;
      return;
    }
    if (quarter <= this.quarter) return;
    this.quarter = quarter;
    $("#run-spoken").textContent = quarter === 100 ? "Sensitivity analysis complete."
      : `Sensitivity analysis ${quarter} per cent done.`;
  }
}

/**
 * Follows the analysis' event stream from where the page's own state ends.
 *
 * What an earlier analysis of the same network and data has measured is no news, so no event tells
 * of it; but a page that was opened before the worker had looked doesn't have it either. It asks
 * once when points come without a baseline, and once more at the end.
 */
export function followAnalysis(store, measure) {
  let asking = false;
  const catchUp = async () => {
    if (asking) return;
    asking = true;
    try {
      const analysis = await get(`/api/analyses/${store.analysis.id}`);
      const { baseline, curves } = analysis;
      for (const { unit, criterion, points } of curves) {
        store.addPoints(points.map((point) => ({ unit, criterion, ...point })));
      }
      if (baseline && !store.baseline) store.setBaseline(baseline);
      store.takeMetrics(analysis);
    } catch {
      // The lost-connection bar says it; the next event asks again.
    } finally {
      asking = false;
    }
  };
  return follow(`/api/analyses/${store.analysis.id}/events`, {
    after: store.analysis.event_id ?? 0,
    handlers: {
      status: (data) => {
        store.setStatus(data);
        if (!store.live) catchUp();
      },
      baseline: (data) => {
        store.setBaseline(data);
        // What is predicted turns out only now: its metrics are the analysis's.
        if (data.kind && data.kind !== store.task) catchUp();
      },
      points: (data) => {
        store.addPoints(data.points);
        if (!store.baseline) catchUp();
      },
      job: (data) => measure.onJob(data),
      measurement: (data) => measure.onMeasurement(data),
    },
  });
}
