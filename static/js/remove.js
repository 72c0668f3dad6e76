// Deleting a model, a data set or an experiment: asks first, names what goes with it.

import { del } from "./api.js";
import { confirmDialog } from "./dialog.js";
import { toastError } from "./toast.js";

/**
 * @param {string} path API path of the thing
 * @param {{title: string, text: string, next?: string}} words `next`: where to go afterwards
 */
export async function removeWithQuestion(path, { title, text, next = "/" }) {
  if (!(await confirmDialog({ title, text, yes: "Delete" }))) return;
  try {
    await del(path);
  } catch (error) {
    if (error.status !== 409) {
      toastError(error);
      return;
    }
    const yes = await confirmDialog({
      title: "Something still depends on it",
      text: `${error.message} Delete all of it?`,
      yes: "Delete all of it",
    });
    if (!yes) return;
    try {
      await del(`${path}?cascade=true`);
    } catch (second) {
      toastError(second);
      return;
    }
  }
  location.assign(next);
}
