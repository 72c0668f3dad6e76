// Metrics as the pages read and write them: fractions in per cent, everything else as a number, and
// for each what "worse" means. A `Yardstick` holds values against the dense network's. No DOM.

import { interval, MINUS, number, percent, percentValue, pp, signed, SPACE } from "./format.js";

const known = (value) => typeof value === "number" && Number.isFinite(value);

/**
 * What a loss is counted in. `points`: per cent points of a fraction. `share`: the part of the dense
 * network's value by which an error grew. `plain`: the metric's own units.
 * `kink`: where the stretched scale turns from linear to logarithmic. `limits`: of the heat map's
 * colours. `collapse`: a loss that is worth a word. All but `factor` are in the loss's own unit.
 */
const FAMILIES = {
  points: {
    kink: 0.006, limits: [0.0025, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25], tolerance: 0.01,
    collapse: 0.2, factor: 100, unit: "pp", lost: "pp lost",
  },
  share: {
    kink: 0.03, limits: [0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1], tolerance: 0.05,
    collapse: 1, factor: 100, unit: "%", lost: "% above dense",
  },
  plain: {
    kink: 0.006, limits: [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5], tolerance: 0.01,
    collapse: 0.2, factor: 1, unit: "", lost: "lost",
  },
};

/**
 * How metrics follow from the drop of the score by which cells are judged while only a part of the
 * split has been seen. The score is the share of right answers, or for regression the squared error
 * in variances of the labels, or for language modelling the loss in nats. Functions of the dense
 * network's value, the drop, and what else is known of the dense network.
 */
const RIGHT_ANSWERS = { accuracy: (base, drop) => base - drop };
const variance = (dense) => dense("mse") / (1 - dense("r2"));
const SCORES = {
  "single-label": RIGHT_ANSWERS,
  "multi-label": RIGHT_ANSWERS,
  "per-position": RIGHT_ANSWERS,
  regression: {
    mse: (base, drop, dense) => base + drop * variance(dense),
    loss: (base, drop, dense) => base + drop * variance(dense),
    r2: (base, drop) => base - drop,
  },
  "language-modelling": {
    loss: (base, drop) => base + drop,
    perplexity: (base, drop) => base * Math.exp(drop),
  },
};

/** 0.52413 → "0.5241", 23145 → "23,145", 1.2e-7 → "1.20e−7": four significant digits. */
export function figure(value) {
  if (!known(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e7 || (size > 0 && size < 1e-3)) {
    return value.toExponential(2).replace("e+", "e").replaceAll("-", MINUS);
  }
  if (size >= 1000) return number(value, 0);
  return value.toPrecision(4).replace("-", MINUS);
}

/** The ends of an interval with the digits that its width makes worth reading. */
function ends(low, high) {
  const half = (high - low) / 2;
  const digits = half > 0 ? Math.ceil(-Math.log10(half)) + 1 : 9;
  if (digits > 6 || Math.abs(high) >= 1e7) return [figure(low), figure(high)];
  const write = (value) =>
    digits <= 0 ? number(value, 0) : value.toFixed(digits).replace("-", MINUS);
  return [write(low), write(high)];
}

/** A difference of such values with its sign, three significant digits. */
function change(value) {
  if (!known(value)) return "–";
  const size = Math.abs(value);
  const text =
    size >= 1000
      ? size < 1e7 ? number(size, 0) : size.toExponential(1).replace("e+", "e")
      : size > 0 && size < 1e-4 ? size.toExponential(1).replace("-", MINUS) : size.toPrecision(3);
  if (!/[1-9]/.test(text)) return "0";
  return (value < 0 ? MINUS : "+") + text;
}

export class Metric {
  /** @param {{name: string, label: string, higher_is_better: boolean, fraction: boolean}} given */
  constructor(given) {
    Object.assign(this, given);
    this.sign = given.higher_is_better ? 1 : -1;
    /** Inside a sentence: "mean squared error", but "AUROC" and "R²" as they are. */
    this.word = /^[A-Z][a-z]/.test(this.label)
      ? this.label[0].toLowerCase() + this.label.slice(1)
      : this.label;
    this.family = FAMILIES[given.fraction ? "points" : given.higher_is_better ? "plain" : "share"];
    this.unit = given.fraction ? "%" : "";
  }

  /**
   * `{value, low, high}` of a point, baseline, measurement …, or null. Figures of earlier versions
   * have no `metrics`; accuracy and loss are then where they always were.
   */
  of(figures) {
    const found = figures?.metrics?.[this.name];
    if (found) return known(found.value) ? found : null;
    const { accuracy, low, high, loss } = figures ?? {};
    if (this.name === "accuracy" && known(accuracy)) return { value: accuracy, low, high };
    if (this.name === "loss" && known(loss)) return { value: loss, low: null, high: null };
    return null;
  }

  value(figures) {
    return this.of(figures)?.value ?? null;
  }

  /** The value where the score fell by `drop`, or null: not every metric follows from the score. */
  atDrop(drop, dense) {
    const base = this.value(dense);
    if (!this.score || !known(drop) || base === null) return null;
    const other = (name) => dense.metrics?.[name]?.value ?? NaN;
    const found = this.score(base, drop, other);
    return known(found) ? found : null;
  }

  /** What getting worse is called in headings: an error is not lost, it rises. */
  get lossName() {
    return this.higher_is_better ? "Loss" : "Rise";
  }

  /** "95.0 %", "0.5241". */
  text(value, digits = 1) {
    return this.fraction ? percent(value, digits) : figure(value);
  }

  /** The same where the unit stands apart. */
  bare(value) {
    return this.fraction ? percentValue(value) : figure(value);
  }

  /** "−1.1 pp", "+0.0123". */
  difference(value) {
    return this.fraction ? pp(value) : change(value);
  }

  /** "±1.2", in per cent points where it is a fraction; "" when no half width is known. */
  spread(half) {
    if (!(half > 0)) return "";
    return `±${SPACE}${this.fraction ? number(half * 100, 1) : change(half).slice(1)}`;
  }

  /** What a half width of nothing is called: no paired sample changed. */
  get noSpread() {
    return `±${SPACE}${this.fraction ? "0.0" : "0"}`;
  }

  /** "[90.6, 92.1]", "[0.512, 0.533]", or "". */
  range(low, high) {
    if (this.fraction) return interval(low, high);
    return known(low) && known(high) ? `[${ends(low, high).join(", ")}]` : "";
  }

  /** As words for people who listen. */
  spoken(value) {
    return this.fraction ? `${number(value * 100, 1)} percent` : figure(value);
  }

  better(a, b) {
    return this.sign * (a - b) > 0;
  }

  /** A tolerated loss, in the family's unit: "1 pp", "5 %", "0.01". */
  limit(share) {
    const value = Number((share * this.family.factor).toFixed(4));
    return this.family.unit ? `${value}${SPACE}${this.family.unit}` : String(value);
  }

  /** The same with its direction: "−1 pp", "+5 %". */
  signedLimit(share) {
    return (this.sign > 0 ? MINUS : "+") + this.limit(share);
  }

  against(baseline) {
    return new Yardstick(this, baseline);
  }
}

export const ACCURACY = new Metric({
  name: "accuracy", label: "Accuracy", higher_is_better: true, fraction: true,
});
ACCURACY.paired = true;
ACCURACY.score = RIGHT_ANSWERS.accuracy;

/** Values of one metric held against the dense network's: losses are positive, gains negative. */
export class Yardstick {
  constructor(metric, baseline) {
    this.metric = metric;
    this.baseline = baseline;
    /** One unit of loss, in the metric's units. */
    this.scale = metric.family === FAMILIES.share ? Math.abs(baseline) || 1 : 1;
  }

  /** How much worse than dense, in the family's unit. */
  loss(value) {
    return (this.metric.sign * (this.baseline - value)) / this.scale;
  }

  /** The value that has this loss. */
  at(loss) {
    return this.baseline - this.metric.sign * loss * this.scale;
  }

  /** A difference without direction (a deviation, a half width) in the family's unit. */
  size(difference) {
    return difference / this.scale;
  }

  /** "−1.1 pp"; of errors also by how much: "+0.0123, +2.4 %". */
  change(value) {
    const text = this.metric.difference(value - this.baseline);
    if (this.metric.family !== FAMILIES.share || !this.baseline) return text;
    const share = (value - this.baseline) / Math.abs(this.baseline);
    if (Math.abs(share) >= 10) return `${text}, × ${number(share + 1, 0)}`;
    return `${text}, ${signed(share * 100, 1)}${SPACE}%`;
  }

  /** The same in one figure: of errors, by how much they grew. */
  brief(value) {
    const parts = this.change(value).split(", ");
    return parts.at(-1);
  }

  /** Height on the stretched scale: grows with the value, finest near the baseline. */
  stretch(value) {
    return Math.asinh((value - this.baseline) / (this.metric.family.kink * this.scale));
  }

  /** The value at a height of the stretched scale. */
  unstretch(height) {
    return this.baseline + Math.sinh(height) * this.metric.family.kink * this.scale;
  }
}

/** The metrics of an analysis or experiment, the primary one first, and the primary one. */
export function readMetrics({ metrics, metric, task } = {}) {
  const all = (metrics ?? []).map((each) => new Metric(each));
  for (const each of all) {
    // What was lost and gained is counted in answers; only here are they as many as the samples.
    each.paired = each.name === "accuracy" && task === "single-label";
    each.score = SCORES[task]?.[each.name] ?? null;
  }
  const list = all.length ? all : [ACCURACY];
  return { list, primary: list.find((each) => each.name === metric) ?? list[0] };
}
