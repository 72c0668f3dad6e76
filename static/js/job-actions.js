// Cancel, retry, pause, resume and priority, the same everywhere.

import { post } from "./api.js";
import { h, icon } from "./dom.js";
import { toast, toastError } from "./toast.js";
import { isOpen, kindName } from "./words.js";

/** Those that go on where they stopped; others would begin anew. */
const RESUMABLE = new Set(["analyse", "retrain"]);
const PRIORITIES = ["low", "normal", "high"];

const nameOf = (job) => `${kindName(job.kind)} ${job.label ?? ""}`.trim();

/** Pause or resume, or null where the job has ended or would begin anew. */
export function pauseButton(job, after) {
  if (!isOpen(job.state) || (!RESUMABLE.has(job.kind) && !job.paused)) return null;
  return job.paused
    ? button(`Resume: ${nameOf(job)}`, "play", `/api/jobs/${job.id}/resume`, "In the queue again.", after)
    : button(`Pause: ${nameOf(job)}`, "pause", `/api/jobs/${job.id}/pause`, "Paused; what is done is kept.", after);
}

/** Whose turn is first: three buttons for a job that has not ended, otherwise null. */
export function priorityButtons(job, after) {
  if (!isOpen(job.state) || !job.priority) return null;
  const group = h("div", { class: "seg", role: "group", "aria-label": `Priority: ${nameOf(job)}` },
    PRIORITIES.map((priority) => h("button", {
      type: "button", "aria-pressed": String(priority === job.priority),
      "aria-label": `${priority} priority: ${nameOf(job)}`,
      onclick: async (event) => {
        if (priority === job.priority) return;
        event.currentTarget.disabled = true;
        try {
          await post(`/api/jobs/${job.id}/priority`, { priority });
          await after();
        } catch (error) {
          toastError(error);
          event.target.disabled = false;
        }
      },
    }, priority)));
  return group;
}

/** The button that fits a job's state, or null. `after` runs when the server has agreed. */
export function jobButton(job, after) {
  const what = nameOf(job);
  if (isOpen(job.state))
    return button(`Cancel: ${what}`, "x", `/api/jobs/${job.id}/cancel`, "Cancelling.", after);
  if (job.state === "failed" || job.state === "cancelled") {
    return button(
      `Try again: ${what}`,
      "retry",
      `/api/jobs/${job.id}/retry`,
      "In the queue again.",
      after,
    );
  }
  return null;
}

function button(label, glyph, path, done, after) {
  const element = h(
    "button",
    {
      class: "btn ghost icon small",
      type: "button",
      "aria-label": label,
      title: label.split(":")[0],
      onclick: async () => {
        element.disabled = true;
        try {
          await post(path);
          toast(done);
          await after();
        } catch (error) {
          toastError(error);
          element.disabled = false;
        }
      },
    },
    icon(glyph),
  );
  return element;
}
