// Questions that need an answer, in native dialogs.

import { h } from "./dom.js";

/**
 * Shows a <dialog>; buttons with `data-close` and a click on the backdrop close it.
 * @returns {Promise<string>} its return value
 */
export function openDialog(dialog) {
  return new Promise((resolve) => {
    const onClick = (event) => {
      if (event.target === dialog || event.target.closest("[data-close]")) dialog.close("");
    };
    dialog.addEventListener("click", onClick);
    dialog.addEventListener(
      "close",
      () => {
        dialog.removeEventListener("click", onClick);
        resolve(dialog.returnValue);
      },
      { once: true },
    );
    dialog.returnValue = "";
    dialog.showModal();
  });
}

/**
 * Asks before something that can't be undone.
 * @param {{title: string, text: string, yes: string, no?: string}} question
 * @returns {Promise<boolean>}
 */
export async function confirmDialog({ title, text, yes, no = "Keep it" }) {
  const dialog = h(
    "dialog",
    { class: "dialog", "aria-labelledby": "ask-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "ask-title" }, title),
      h("p", {}, text),
      h(
        "div",
        { class: "dialog-acts" },
        h("button", { class: "btn", value: "", autofocus: true }, no),
        h("button", { class: "btn danger", value: "yes" }, yes),
      ),
    ),
  );
  document.body.append(dialog);
  const answer = await openDialog(dialog);
  dialog.remove();
  return answer === "yes";
}
