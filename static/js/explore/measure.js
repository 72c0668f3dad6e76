// Measure: the joint plan is run by a worker; its figure comes by the event stream, or, when that
// is down, by asking for the job.

import { get, post } from "../api.js";
import { $, $$ } from "../dom.js";
import { duration, number, plural } from "../format.js";
import { poll } from "../live.js";
import { toast, toastError } from "../toast.js";
import { ensurePlan } from "./plans.js";

const ENDED = new Set(["done", "failed", "cancelled"]);

export class Measure {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    this.buttons = $$("[data-measure]");
    this.note = $("#measure-note");
    this.bar = $("#measure-bar");
    this.stopPolling = () => {};
    for (const button of this.buttons) button.addEventListener("click", () => this.start());
    $("#measure-cancel").addEventListener("click", () => this.cancel());
    store.on(["work", "thresholds", "plans", "baseline", "criterion"], () => this.draw());
    this.draw();
  }

  get busy() {
    return this.store.work !== null && !this.store.work.error;
  }

  /** Why the present plan can't be measured now, or "". */
  get reason() {
    const { store } = this;
    if (this.busy) return "A measurement is running.";
    if (!store.units.length) return "There is nothing to prune in this model.";
    if (!store.baseline) return "The baseline is not measured yet.";
    if (store.nothingChosen) return "Choose thresholds first.";
    const current = store.currentPlan();
    if (current && store.measurement(current)) return "This plan is measured.";
    return "";
  }

  async start() {
    const { store } = this;
    if (this.reason) {
      toast(this.reason);
      return;
    }
    store.setWork({ planId: null, jobId: null, phase: "queued", progress: null, error: null });
    try {
      const plan = await ensurePlan(store);
      const job = await post(`/api/plans/${plan.id}/measure`, { split: "tune" });
      if (store.measurement(store.plans.get(plan.id))) return;
      store.setWork({ ...store.work, planId: plan.id, jobId: job.id, phase: job.state ?? "queued" });
      this.watch(plan.id, job.id);
    } catch (error) {
      store.setWork(null);
      toastError(error);
    }
  }

  /** Asks for the job now and then: the stream may be down, or the job may have been instant. */
  watch(planId, jobId) {
    this.stopPolling();
    this.stopPolling = poll(async () => {
      const job = await get(`/api/jobs/${jobId}`);
      if (this.store.work?.jobId !== jobId) return false;
      this.onJob({ ...job, job_id: job.id, plan_id: planId });
      return !ENDED.has(job.state);
    }, 2);
  }

  async fetchPlan(planId) {
    const plan = await get(`/api/plans/${planId}`);
    this.store.putPlan(plan);
    if (this.store.measurement(plan)) this.finish(planId);
  }

  /** A `job` event of the stream, or the job itself. */
  onJob({ job_id: jobId, kind, plan_id: planId, state, error, progress }) {
    const { store } = this;
    if (kind !== undefined && kind !== "measure") return;
    const mine = store.work?.jobId === jobId;
    if (!mine && (this.busy || ENDED.has(state))) return;
    if (state === "failed" || state === "cancelled") {
      this.stopPolling();
      store.setWork(state === "failed"
        ? { ...store.work, phase: state, error: error ?? { message: "The measurement failed." } }
        : null);
      if (state === "cancelled") toast("The measurement was cancelled.");
      return;
    }
    store.setWork({ planId, jobId, phase: state, progress, error: null });
    if (state === "done") {
      // The figures came just before, or have to be asked for.
      this.fetchPlan(planId).catch(toastError);
      return;
    }
    if (!mine) this.watch(planId, jobId);
  }

  /** A `measurement` event of the stream. */
  async onMeasurement({ plan_id: planId, measurement }) {
    if (this.store.addMeasurement(planId, measurement)) this.finish(planId);
    else await this.fetchPlan(planId).catch(toastError);
  }

  finish(planId) {
    const { store } = this;
    if (store.work?.planId !== planId && store.work?.planId !== null) return;
    this.stopPolling();
    store.reference = planId;
    store.setWork(null);
    store.touch("plans");
  }

  async cancel() {
    const jobId = this.store.work?.jobId;
    if (!jobId) return;
    try {
      await post(`/api/jobs/${jobId}/cancel`);
    } catch (error) {
      toastError(error);
    }
  }

  draw() {
    const { store } = this;
    const { work } = store;
    const reason = this.reason;
    for (const button of this.buttons) button.disabled = reason !== "";
    this.bar.hidden = !this.busy;
    $("#measure-error").hidden = !work?.error;
    if (work?.error) {
      $("#measure-error").textContent = [work.error.message, work.error.hint].filter(Boolean).join(" ");
    }
    if (this.busy) {
      const { done = 0, total = 0, eta = null } = work.progress ?? {};
      const bar = $("progress", this.bar);
      if (total) {
        bar.max = total;
        bar.value = done;
      } else bar.removeAttribute("value");
      $("#measure-cancel").hidden = !work.jobId;
      this.note.textContent = work.phase === "queued" ? "Waiting for a worker."
        : `Measuring${eta ? `, ${duration(eta)} left` : "…"}`;
      return;
    }
    const samples = store.splits?.tune ?? store.baseline?.samples;
    this.note.textContent = reason || (samples
      ? `Runs this plan on all ${plural(samples, "tune sample")}.`
      : `Runs this plan on the tune split (${number(samples)}).`);
  }
}
