// Per class: which classes the selected layer costs most at its threshold, as measured at the nearest
// level. The counts are asked for when somebody looks.

import { get } from "../api.js";
import { $, h } from "../dom.js";
import { number, percent, percentValue, plural, signed, SPACE } from "../format.js";
import { samplesWords } from "./sharpness.js";
import { toSparsity } from "./store.js";

const PAUSE = 250;
/** Tasks whose answers are one of some classes. */
const CLASSIFYING = new Set(["single-label", "per-position"]);
const SHOWN = 100;

/** The measured point nearest to a sparsity, or null. */
function nearest(points, sparsity) {
  return points.reduce((a, b) => (
    !a || Math.abs(b.sparsity - sparsity) < Math.abs(a.sparsity - sparsity) ? b : a), null);
}

/**
 * Classes with their shares of right answers, those that lose most first. Only on all samples is the
 * dense network's count one of the same samples: `lost` is null otherwise.
 */
export function rankClasses(classes) {
  const share = (right, of) => (of > 0 && Number.isFinite(right) ? right / of : null);
  return classes
    .filter((each) => each.samples > 0)
    .map((each) => {
      const pruned = share(each.pruned, each.samples);
      const paired = share(each.dense, each.samples);
      const dense = paired ?? share(each.dense_right, each.dense_samples);
      return { ...each, pruned, dense, lost: paired === null ? null : dense - pruned, far: dense - pruned };
    })
    .sort((a, b) => b.far - a.far);
}

export class PerClass {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    this.panel = $("#v-classes");
    this.say = $("#classes-say");
    this.timer = 0;
    this.asked = "";
    new MutationObserver(() => this.soon(0)).observe(this.panel, { attributeFilter: ["hidden"] });
    store.on(["selection", "thresholds", "points", "criterion", "baseline"], () => this.soon());
    const tab = () => {
      $("#tab-classes").hidden = !CLASSIFYING.has(store.task);
    };
    store.on(["metric", "baseline"], tab);
    tab();
    this.soon(0);
  }

  soon(pause = PAUSE) {
    if (this.panel.hidden) return;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.look(), pause);
  }

  async look() {
    const { store } = this;
    const unit = store.selected;
    const sparsity = toSparsity(store.levels.get(unit) ?? 0);
    const points = store.points.get(unit) ?? [];
    const point = sparsity > 0 ? nearest(points, sparsity) : null;
    if (!point) {
      this.asked = "";
      const why = !unit ? "There is nothing to prune in this model."
        : !points.length ? store.remark(unit) ?? "Not measured yet."
          : "Nothing is removed from this layer: move its threshold.";
      this.show(unit, why, []);
      return;
    }
    const query = new URLSearchParams({ unit, criterion: store.criterion, sparsity: String(point.sparsity) });
    const asked = `${query} ${point.samples}`;
    if (asked === this.asked) return;
    this.asked = asked;
    try {
      const found = await get(`/api/analyses/${store.analysis.id}/point?${query}`);
      if (this.asked !== asked) return;
      this.draw(unit, point, found);
    } catch (error) {
      this.asked = "";
      this.show(unit, error.message, []);
    }
  }

  draw(unit, point, { classes }) {
    const ranked = rankClasses(classes ?? []);
    const digits = Number.isInteger(Math.round(point.sparsity * 1e4) / 100) ? 0 : 1;
    const at = `${percent(point.sparsity, digits)} removed, the measured level nearest to the threshold`;
    if (point.achieved === 0) return this.show(unit, `${at}: nothing removed`, []);
    if (!ranked.length) {
      return this.show(unit, `${at}: no counts by class are kept ${classes ? "for it yet" : "for this task"}.`, []);
    }
    if (ranked[0].lost === null) {
      return this.show(unit, `${at}: on ${samplesWords(point)} samples, the hard ones first, so shares are ` +
        "lower than the split’s and can’t be held against dense. Sharpen it to exact to compare.", ranked);
    }
    const losing = ranked.filter((each) => each.lost > 0).length;
    return this.show(unit, `${at}: ${losing} of ${plural(ranked.length, "class", "classes")} lose; on ` +
      `${samplesWords(point)} samples.`, ranked);
  }

  show(unit, words, ranked) {
    const { store } = this;
    this.say.replaceChildren(
      h("span", { class: "mono" }, store.byId.get(unit)?.label ?? ""), h("span", {}, words));
    $("#classes").hidden = ranked.length === 0;
    const largest = Math.max(0.01, ...ranked.map((each) => each.lost ?? 0));
    $("#classes-body").replaceChildren(...ranked.slice(0, SHOWN).map((each) => h("tr", {},
      h("th", { scope: "row" }, each.name ?? String(each.class)),
      h("td", { class: "num" }, number(each.samples)),
      h("td", { class: "num" }, each.lost === null ? "–" : percentValue(each.dense)),
      h("td", { class: "num" }, percentValue(each.pruned)),
      h("td", { class: "num" }, each.lost === null ? "–" : `${signed(-100 * each.lost)}${SPACE}pp`),
      h("td", { class: "barcell" }, h("span", { class: "bars", "aria-hidden": "true" },
        each.lost > 0 ? h("i", { style: { width: `${(100 * each.lost) / largest}%` } }) : null)))));
  }
}
