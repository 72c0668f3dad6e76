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
    ? button("rest", `Resume: ${nameOf(job)}`, "play", `/api/jobs/${job.id}/resume`, "In the queue again.", after)
    : button("rest", `Pause: ${nameOf(job)}`, "pause", `/api/jobs/${job.id}/pause`, "Paused; what is done is kept.", after);
}

/** Whose turn is first: three buttons for a job that has not ended, otherwise null. */
export function priorityButtons(job, after) {
  if (!isOpen(job.state) || !job.priority) return null;
  const group = h("div", { class: "seg", role: "group", "aria-label": `Priority: ${nameOf(job)}` },
    PRIORITIES.map((priority) => h("button", {
      type: "button", "aria-pressed": String(priority === job.priority),
      "aria-label": `${priority} priority: ${nameOf(job)}`,
      onclick: ({ currentTarget }) => {
        if (priority === job.priority) return;
        once(currentTarget, async () => {
          await post(`/api/jobs/${job.id}/priority`, { priority });
          await after();
        });
      },
    }, priority)));
  return group;
}

/** The button that fits a job's state, or null. `after` runs when the server has agreed. */
export function jobButton(job, after) {
  const what = nameOf(job);
  if (isOpen(job.state))
    return button("run", `Cancel: ${what}`, "x", `/api/jobs/${job.id}/cancel`, "Cancelling.", after);
  if (job.state === "failed" || job.state === "cancelled") {
    return button(
      "run",
      `Try again: ${what}`,
      "retry",
      `/api/jobs/${job.id}/retry`,
      "In the queue again.",
      after,
    );
  }
  return null;
}

function button(does, label, glyph, path, done, after) {
  return h(
    "button",
    {
      class: "btn ghost icon small",
      type: "button",
      dataset: { does },
      "aria-label": label,
      title: label.split(":")[0],
      onclick: ({ currentTarget }) =>
        once(currentTarget, async () => {
          await post(path);
          toast(done);
          await after();
        }),
    },
    icon(glyph),
  );
}

/** Does what a button asks for, once; `disabled` would take the keyboard's place away meanwhile. */
async function once(button, action) {
  if (button.ariaDisabled) return;
  button.ariaDisabled = "true";
  try {
    await action();
  } catch (error) {
    toastError(error);
  }
  button.ariaDisabled = null;
}
