// Cancel and retry, the same everywhere.

import { post } from "./api.js";
import { h, icon } from "./dom.js";
import { toast, toastError } from "./toast.js";
import { isOpen, kindName } from "./words.js";

/** The button that fits a job's state, or null. `after` runs when the server has agreed. */
export function jobButton(job, after) {
  const what = `${kindName(job.kind)} ${job.label ?? ""}`.trim();
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
