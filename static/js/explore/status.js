// How the analysis is doing: the pill in the top bar, the sentence when it has failed or stopped,
// the announcement at every quarter, and the event stream behind all of it.

import { get, post } from "../api.js";
import { $, icon } from "../dom.js";
import { duration, number, percent, plural } from "../format.js";
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
    $("#run-pause").addEventListener("click", () => this.hold());
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
    const { counts, total } = this.store;
    const wanted = Math.max(total, counts.points);
    return { done: counts.points, settled: counts.settled, total: wanted };
  }

  /** How much is done: as the worker says while it works, otherwise by the points that are settled. */
  get share() {
    const { store } = this;
    const { settled, total } = this.points;
    const { done = 0, total: all = 0 } = store.progress ?? {};
    if (store.status === "running" && done > 0 && all > 0) return Math.min(1, done / all);
    return total ? Math.min(1, settled / total) : 0;
  }

  /** Pause or resume. */
  async hold() {
    const { store } = this;
    const button = $("#run-pause");
    const verb = store.paused ? "resume" : "pause";
    button.disabled = true;
    try {
      await store.afterwards(post(`/api/jobs/${store.analysis.job_id}/${verb}`), (job) =>
        store.setStatus({ status: job.state, paused: job.paused ?? verb === "pause" }));
    } catch (error) {
      toastError(error);
    } finally {
      button.disabled = false;
    }
  }

  async act(verb, button) {
    button.disabled = true;
    try {
      const { store } = this;
      await store.afterwards(post(`/api/jobs/${store.analysis.job_id}/${verb}`), (job) => {
        if (verb === "retry") store.setStatus({ status: job.state ?? "queued", error: null });
      });
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
    if (store.live) this.drawPill();
    this.drawFoot(done, total);
    this.drawProblem(done, total);
    this.drawWaiting();
    this.announce();
  }

  drawPill() {
    const { store, share } = this;
    const waits = store.status === "queued";
    const known = waits && !store.paused && this.points.settled === 0;
    $("#run-word").textContent = store.paused ? "paused" : waits ? "waiting for a worker" : "running";
    $("#run-share").textContent = waits && !store.paused ? "" : percent(Math.floor(share * 100) / 100, 0);
    const bar = $("#run-bar");
    bar.hidden = known;
    bar.max = 1;
    bar.value = share;
    const left = store.progress?.eta;
    $("#run-eta").textContent = store.status === "running" && left ? `${duration(left)} left` : "";
    const pause = $("#run-pause");
    const word = store.paused ? "Resume the analysis" : "Pause the analysis";
    if (pause.getAttribute("aria-label") === word) return;
    pause.setAttribute("aria-label", word);
    pause.title = store.paused ? "Resume where it stopped" : "Pause; what is measured is kept";
    pause.replaceChildren(icon(store.paused ? "play" : "pause"));
  }

  /** "312 of 418 points known · 96 of 418 settled · 41,200 samples · 12 s left". */
  progressWords(done, total) {
    const { store } = this;
    const { counts, cells, progress } = store;
    const words = [`${number(done)} of ${plural(total, "point")} known`];
    if (cells?.known) words[0] += `, ${number(cells.known)} from before`;
    words.push(`${number(counts.settled)} of ${number(total)} settled`);
    const samples = progress?.samples ?? 0;
    if (samples) words.push(`${number(samples)} samples`);
    if (store.paused) words.push("paused");
    else if (store.status === "running" && progress?.eta) words.push(`${duration(progress.eta)} left`);
    return words.join(" · ");
  }

  drawFoot(done, total) {
    const { store } = this;
    const line = this.progressWords(done, total);
    const where = $("#run-line");
    where.hidden = !store.live || !store.baseline;
    if (!where.hidden) where.textContent = line;
    const { fewest, most } = store.counts;
    const n = !done ? "" : fewest === most
      ? `, n = ${number(most)} per point` : `, n = ${number(fewest)} to ${number(most)} per point`;
    const grid = `${plural(store.units.length, "layer")} × ${plural(store.grid.length, "level")}` +
      (store.criteria.length > 1 ? ` × ${plural(store.criteria.length, "criterion", "criteria")}` : "");
    const reused = store.cells?.known ? `, ${number(store.cells.known)} known before` : "";
    $("#foot-points").textContent = store.live ? line
      : `${number(done)} of ${plural(total, "point")}${reused}, ${grid}${n}`;
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
        queued: store.paused ? "The analysis is paused. It goes on when you resume it."
          : "The analysis waits for a worker. Curves appear here as soon as the first points are measured.",
        running: "Measuring the dense network first. The curves follow, coarse to fine.",
        failed: "There is nothing to draw.", cancelled: "There is nothing to draw.",
        done: "There is nothing to draw.",
      }[store.status];
  }

  announce() {
    const { paused } = this.store;
    if (this.paused !== undefined && this.paused !== paused && this.store.live) {
      $("#run-spoken").textContent = paused ? "Sensitivity analysis paused." : "Sensitivity analysis resumed.";
    }
    this.paused = paused;
    const quarter = quarterOf(this.share, 1);
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
      store.take(await get(`/api/analyses/${store.analysis.id}`));
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
        // Also to learn what a pause or a new goal changed.
        if (!store.live || data.status === "queued") catchUp();
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
      remarks: (data) => {
        store.addRemarks(data.remarks);
        // There are fewer points to come than was thought.
        catchUp();
      },
      job: (data) => measure.onJob(data),
      measurement: (data) => measure.onMeasurement(data),
    },
  });
}
