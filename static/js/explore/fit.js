// The isotonic fit: off until somebody wants it, a line beside the points, never in their place. It
// is the server's; while it is shown and points still come, it is asked for again.

import { get } from "../api.js";
import { $ } from "../dom.js";

const PAUSE = 1500;

/** @param {import("./store.js").Store} store */
export function wireFit(store) {
  const box = $("#fit");
  let timer = 0;
  const ask = async () => {
    timer = 0;
    try {
      store.take(await get(`/api/analyses/${store.analysis.id}`));
    } catch {
      // The lost-connection bar says it; the next points ask again.
    }
  };
  const soon = () => {
    if (store.fitted && !timer) timer = setTimeout(ask, PAUSE);
  };
  const draw = () => {
    box.checked = store.fitted;
    // Not every metric follows from the score that is fitted.
    const possible = Boolean(store.yard) && store.metric.atDrop(0, store.baseline) !== null;
    $("#fit-box").hidden = !possible || !store.units.length;
  };
  box.addEventListener("change", () => {
    store.set("fitted", box.checked, "fit");
    if (box.checked && store.live) ask();
  });
  // `take` marks points only when they are news, so asking comes to rest by itself.
  store.on(["points"], () => store.live && soon());
  store.on(["fit", "metric", "baseline"], draw);
  draw();
}
