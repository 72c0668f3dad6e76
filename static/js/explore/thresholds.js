// Starting points that only read the curves: every layer at its knee, or nothing removed.

import { $ } from "../dom.js";
import { readKnee } from "./reading.js";
import { toLevel } from "./store.js";

export function wireThresholds(store, history) {
  const field = $("#tolerance");
  const start = $("#from-knees");
  const clear = $("#clear");
  const shown = () => String(Number((store.tolerance * store.metric.family.factor).toFixed(4)));
  const label = () => {
    const { family, sign } = store.metric;
    const what = sign > 0 ? "drop" : "rise";
    $("#tolerance-label").textContent = `Tolerated ${what} per layer`;
    $("#tolerance-unit").textContent = family.unit;
    field.step = family.factor === 1 ? "0.001" : "0.1";
    field.value = shown();
    field.title = family.unit === "%" ? "in per cent of the dense network's value" : "";
  };
  store.on(["metric"], label);
  label();

  field.addEventListener("input", () => {
    const value = Number(field.value);
    const good = field.value !== "" && value > 0 && value <= 100;
    field.setAttribute("aria-invalid", String(!good));
    if (good) store.set("tolerance", value / store.metric.family.factor);
  });
  field.addEventListener("change", () => {
    field.value = shown();
    field.setAttribute("aria-invalid", "false");
  });

  start.addEventListener("click", () => {
    const { yard } = store;
    history.close();
    history.edit(() => {
      for (const { id: unit } of store.units) {
        store.setLevel(unit, toLevel(readKnee(store.sound(unit), yard, store.tolerance).knee));
      }
    });
  });
  clear.addEventListener("click", () => {
    history.close();
    history.edit(() => store.setLevels(new Map()));
  });

  const draw = () => {
    start.disabled = !store.yard || store.measuredCount === 0;
    clear.disabled = store.nothingChosen;
  };
  store.on(["thresholds", "points", "baseline"], draw);
  draw();
}
