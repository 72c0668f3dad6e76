// The page's state in its address, so that a reload or a shared link shows the same page.
//
//   plan=7          the saved plan the thresholds come from; its measurement is shown (stale when t
//                   differs from it)
//   t=26,56*3,0*18  thresholds in per cent, one per prunable unit in network order, "v*n" for n
//                   equal ones in a row. Left out when they are those of `plan`, or all 0
//   unit=ID         the selected unit
//   scale=linear    accuracy scale, when not stretched
//   sort=size       order of the table, when not network
//   metric=mse      what the page is read in, when not the primary metric
//   criterion=NAME  whose curves the plan is made from, when not the first; compare=NAME laid over it
//   fit=1           the isotonic fit is shown
//   tol=0.5         tolerated loss, in the field's unit, when not the metric's usual one
//
// What a link names that this analysis doesn't have is ignored.

import { fromPercent, toLevel, toPercent } from "./store.js";

const SORTS = ["network", "sensitivity", "size"];
const SCALES = ["stretched", "linear"];
const PAUSE = 250;

export function writeThresholds(levels) {
  const runs = [];
  for (const level of levels) {
    const last = runs.at(-1);
    if (last && last.level === level) last.count += 1;
    else runs.push({ level, count: 1 });
  }
  return runs
    .map(({ level, count }) => `${toPercent(level)}${count > 1 ? `*${count}` : ""}`)
    .join(",");
}

/** @returns {number[] | null} levels, or null when the text doesn't fit `count` units */
export function readThresholds(text, count) {
  const levels = [];
  for (const part of text.split(",")) {
    const match = /^(\d{1,3}(?:\.\d{1,4})?)(?:\*(\d{1,5}))?$/.exec(part);
    if (!match || Number(match[1]) > 100) return null;
    const times = Number(match[2] ?? 1);
    if (levels.length + times > count) return null;
    for (let i = 0; i < times; i += 1) levels.push(fromPercent(Number(match[1])));
  }
  return levels.length === count ? levels : null;
}

/**
 * Puts what the address says into the store.
 * @param {import("./store.js").Store} store
 * @returns {string[]} what was ignored, as sentences
 */
export function readUrl(store, search = location.search) {
  const query = new URLSearchParams(search);
  const ignored = [];
  if (store.reference !== null) {
    const { sparsities, criterion } = store.plans.get(store.reference);
    if (criterion) store.setCriterion(criterion);
    store.setLevels(new Map(Object.entries(sparsities).map(([unit, s]) => [unit, toLevel(s)])));
  } else if (query.has("plan")) ignored.push("The link names a plan that is not here.");
  if (query.has("t")) {
    const levels = readThresholds(query.get("t"), store.units.length);
    if (levels) store.setLevels(new Map(store.units.map((unit, i) => [unit.id, levels[i]])));
    else ignored.push("The thresholds in the link don't fit this model.");
  }
  if (query.has("unit")) {
    if (store.byId.has(query.get("unit"))) store.select(query.get("unit"));
    else ignored.push("The link names a layer that is not in this analysis.");
  }
  if (SCALES.includes(query.get("scale"))) store.set("scale", query.get("scale"));
  if (SORTS.includes(query.get("sort"))) store.set("sort", query.get("sort"));
  store.setCriterion(query.get("criterion"));
  const other = query.get("compare");
  if (store.criteria.includes(other) && other !== store.criterion) store.set("compared", other, "criterion");
  if (query.has("fit")) store.set("fitted", true, "fit");
  if (query.has("metric")) store.setMetric(query.get("metric"));
  const tolerance = Number(query.get("tol"));
  const { factor } = store.metric.family;
  if (tolerance > 0 && tolerance <= 100) store.set("tolerance", tolerance / factor);
  return ignored;
}

/** @param {import("./store.js").Store} store */
export function urlOf(store) {
  const query = new URLSearchParams();
  const current = store.currentPlan();
  const plan = current ?? store.plans.get(store.reference);
  if (plan && !(store.nothingChosen && !store.plans.has(store.reference))) {
    query.set("plan", String(plan.id));
  }
  if (!current && (plan || !store.nothingChosen)) {
    query.set("t", writeThresholds(store.levels.values()));
  }
  if (store.selected !== (store.units[0]?.id ?? null)) query.set("unit", store.selected);
  if (store.scale !== "stretched") query.set("scale", store.scale);
  if (store.sort !== "network") query.set("sort", store.sort);
  if (store.metric !== store.primary) query.set("metric", store.metric.name);
  if (store.criterion !== store.criteria[0]) query.set("criterion", store.criterion);
  if (store.compared) query.set("compare", store.compared);
  if (store.fitted) query.set("fit", "1");
  const { family } = store.metric;
  if (store.tolerance !== family.tolerance) {
    query.set("tol", String(Number((store.tolerance * family.factor).toFixed(4))));
  }
  const text = query.toString().replaceAll("%2C", ",").replaceAll("%2A", "*");
  return location.pathname + (text ? `?${text}` : "");
}

/** Keeps the address up to date, some time after the last change. */
export function followUrl(store) {
  let timer = 0;
  const write = () => {
    clearTimeout(timer);
    timer = 0;
    const url = urlOf(store);
    if (url !== location.pathname + location.search) history.replaceState(null, "", url);
  };
  store.on(["thresholds", "selection", "scale", "sort", "tolerance", "metric", "criterion", "fit",
    "plans"], () => {
    clearTimeout(timer);
    timer = setTimeout(write, PAUSE);
  });
  // A reload right after an edit must not lose it.
  addEventListener("pagehide", () => timer && write());
}
