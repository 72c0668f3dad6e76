// Keyboard shortcuts: outside text fields only, listed under "?", and they can be switched off.

import { openDialog } from "../dialog.js";
import { $ } from "../dom.js";
import { stepByKey } from "./steps.js";

const KEY = "prunescope-shortcuts";
const TYPED = "input:not([type=range], [type=radio], [type=checkbox]), select, textarea";

const stored = () => {
  try {
    return localStorage.getItem(KEY) !== "off";
  } catch {
    return true;
  }
};

/**
 * @param {{store: import("./store.js").Store, history: import("./undo.js").History,
 *   table: import("./layers.js").LayerTable, measure: import("./measure.js").Measure}} page
 */
export function wireShortcuts({ store, history, table, measure }) {
  let on = stored();
  const dialog = $("#shortcuts");
  const box = $("#shortcuts-on");
  const hints = $("#foot-keys");
  const show = () => {
    box.checked = on;
    hints.classList.toggle("off", !on);
  };
  box.addEventListener("change", () => {
    on = box.checked;
    try {
      localStorage.setItem(KEY, on ? "on" : "off");
    } catch {
      // The choice then lasts as long as the page.
    }
    show();
  });
  const help = () => dialog.open || openDialog(dialog);
  for (const button of document.querySelectorAll("[data-help]")) button.addEventListener("click", help);
  show();

  const single = {
    j: () => store.select(table.neighbour(1)),
    k: () => store.select(table.neighbour(-1)),
    m: () => measure.start(),
    "/": () => $("#q").focus(),
    "?": help,
  };

  addEventListener("keydown", (event) => {
    const { target } = event;
    if (document.querySelector("dialog[open]")) return;
    const inField = target.closest(TYPED);
    if ((event.ctrlKey || event.metaKey) && !event.altKey) {
      // Thresholds follow a number field at once, so undoing there undoes the threshold.
      if (inField && !target.matches(".pct")) return;
      const key = event.key.toLowerCase();
      if (key === "z" || key === "y") {
        event.preventDefault();
        if (key === "y" || event.shiftKey) history.redo();
        else history.undo();
      }
      return;
    }
    if (!on || inField || event.altKey || event.ctrlKey || event.metaKey) return;
    const action = single[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) {
      event.preventDefault();
      action();
      return;
    }
    const isRow = event.key === "ArrowLeft" || event.key === "ArrowRight";
    const taken = target.closest("[role=slider], [role=tab], input, summary");
    if (isRow && !taken && store.selected) stepByKey(event, store, history, store.selected);
  });
}
