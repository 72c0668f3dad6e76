// Which criterion the plan is made by, and which one is laid over it for comparison.

import { $, h } from "../dom.js";

/** @param {import("./store.js").Store} store */
export function wireCriteria(store) {
  const select = $("#criterion");
  const compare = $("#compare");
  if (!select || !compare) return;
  const draw = () => {
    select.value = store.criterion;
    compare.replaceChildren(
      h("option", { value: "" }, "no other"),
      ...store.criteria.filter((name) => name !== store.criterion)
        .map((name) => h("option", { value: name }, name)),
    );
    compare.value = store.compared ?? "";
  };
  select.addEventListener("change", () => store.setCriterion(select.value));
  compare.addEventListener("change", () => store.set("compared", compare.value || null, "criterion"));
  store.on(["criterion"], draw);
  draw();
}
