// Which metric the page is read in: a select, kept up to date with what is defined here.

import { $, h } from "../dom.js";

/** @param {import("./store.js").Store} store */
export function wireMetric(store) {
  const select = $("#metric");
  const note = $("#metric-note");
  let listed = "";
  const draw = () => {
    const { metrics, metric } = store;
    const names = metrics.map((each) => each.name).join();
    if (names !== listed) {
      listed = names;
      select.replaceChildren(
        ...metrics.map((each) => h("option", { value: each.name }, each.label)),
      );
    }
    select.value = metric.name;
    note.textContent = metric.higher_is_better ? "" : "less is better";
    $("#curves").setAttribute("aria-label",
      `${metric.label} against sparsity, one line per layer. The same numbers are in the table of ` +
      "numbers and in the CSV.");
    for (const legend of document.querySelectorAll("[data-scale-name]")) {
      legend.textContent = `${metric.label} scale`;
    }
  };
  select.addEventListener("change", () => store.setMetric(select.value));
  store.on(["metric", "baseline", "points"], draw);
  draw();
}
