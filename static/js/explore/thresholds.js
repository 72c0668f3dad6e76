// Starting points that only read the curves: every layer at its knee, or nothing removed.

import { $ } from "../dom.js";
import { readKnee } from "./reading.js";
import { toLevel } from "./store.js";

export function wireThresholds(store, history) {
  const field = $("#tolerance");
  const start = $("#from-knees");
  const clear = $("#clear");
  field.value = String(Number((store.tolerance * 100).toFixed(4)));

  field.addEventListener("input", () => {
    const value = Number(field.value);
    const good = field.value !== "" && value > 0 && value <= 100;
    field.setAttribute("aria-invalid", String(!good));
    if (good) store.set("tolerance", value / 100);
  });
  field.addEventListener("change", () => {
    field.value = String(Number((store.tolerance * 100).toFixed(4)));
    field.setAttribute("aria-invalid", "false");
  });

  start.addEventListener("click", () => {
    const baseline = store.baseline.accuracy;
    history.close();
    history.edit(() => {
      for (const [unit, points] of store.curves) {
        store.setLevel(unit, toLevel(readKnee(points, baseline, store.tolerance).knee));
      }
    });
  });
  clear.addEventListener("click", () => {
    history.close();
    history.edit(() => store.setLevels(new Map()));
  });

  const draw = () => {
    start.disabled = !store.baseline || store.measuredCount === 0;
    clear.disabled = store.nothingChosen;
  };
  store.on(["thresholds", "points", "baseline"], draw);
  draw();
}
