// What the chip of a layer says: how far its curve is, its knee, or what is odd about it. Pure.

import { removedCount } from "./prediction.js";
import { readKnee } from "./reading.js";
import { isPreview, isSettled, measuredKnee } from "./sharpness.js";

/** A knee below this is called fragile. */
export const FRAGILE_BELOW = 0.45;

/** The state of a curve that is not finished, or null when it is. */
function unfinished({ points, known, expected, live, done, mode }) {
  const settled = known.filter(isSettled).length;
  if (settled >= known.length && (known.length >= expected || (done && known.length > 0))) return null;
  const kind = live ? "live" : "plain";
  const icon = live ? "live" : null;
  if (known.length > 0 && known.every(isPreview)) {
    return {
      kind, icon, word: "preview", knee: null,
      title: `${known.length} points on the first ${known[0].samples} samples; not for decisions`,
    };
  }
  const searching = live && mode === "knee";
  return {
    kind, icon, word: searching ? "searching" : `${settled} of ${expected}`, knee: null,
    title: (live ? "points settled so far; refining" : "points settled; the rest is not") +
      (points.length > settled ? `, ${points.length} have a figure` : ""),
  };
}

/** What knee mode found of a unit: its largest measured sparsity that is tolerated. */
function kneeChip(known, goal, words) {
  const knee = measuredKnee(known, goal);
  if (!knee) {
    const first = known[0] ? Math.round(known[0].sparsity * 100) : 0;
    return {
      kind: "danger", icon: "warn", word: "no level", knee: 0,
      title: `loses more than tolerated at ${first}\u202f% already, the first level measured`,
    };
  }
  const percent = `${Number((knee.sparsity * 100).toFixed(2))}\u202f%`;
  if (knee.achieved === 0) {
    return {
      kind: "warn two", icon: null, word: "nothing removed", knee: knee.sparsity,
      title: `the largest level that is tolerated, ${percent}, removes nothing`,
    };
  }
  return {
    kind: "plain", icon: "knee", word: `knee ${percent}`, knee: knee.sparsity,
    title: `${percent}: ${words(knee)}`,
  };
}

/**
 * What the chip of a layer says.
 *
 * @param {object} unit `points`: read in the metric; `known`: all that were measured; `remark`: why
 *   there is no curve or what is odd; `expected`: levels asked for; `mode`, `goal`: of the analysis
 * @returns {{kind: "plain" | "warn" | "warn two" | "warn remark" | "danger" | "live",
 *   icon: string | null, word: string, knee: number | null, title: string}}
 */
export function chipOf(unit) {
  const { points, known = points, yard, tolerance, level, removed, size, remark = null } = unit;
  if (level > 0 && removed === 0) {
    return {
      kind: "warn two", icon: null, word: "nothing removed", knee: null,
      title: "the threshold is less than half a weight of this layer",
    };
  }
  const said = remark ?? known.find((point) => point.remark && point.achieved !== 0)?.remark;
  if (said) return { kind: "warn remark", icon: null, word: said, knee: null, title: said };
  const rough = unfinished({ ...unit, known });
  if (rough) return rough;
  if (yard === null || points.length === 0) {
    return { kind: "plain", icon: null, word: "–", knee: null, title: "not measured" };
  }
  if (known.every((point) => point.achieved === 0)) {
    return {
      kind: "warn two", icon: null, word: "nothing removed", knee: null,
      title: `no level measured removes one of its ${size} weights: the curve says nothing`,
    };
  }
  if (unit.mode === "knee") return kneeChip(known, unit.goal, unit.dropWords);
  const { knee, holds, noisy } = readKnee(points, yard, tolerance);
  const limit = yard.metric.limit(tolerance);
  const percent = `${Math.floor(knee * 100 + 1e-9)}\u202f%`;
  const spared = removedCount(knee, size) === 0;
  if (spared && holds) {
    return {
      kind: "warn two", icon: null, word: "nothing removed", knee,
      title: `no level up to ${percent} removes one of its ${size} weights: the curve says nothing`,
    };
  }
  if (noisy) {
    return {
      kind: "warn", icon: "noise", word: "noise", knee,
      title: `knee at ${percent}, but the loss crosses ${limit} more than once within its noise`,
    };
  }
  if (!holds && (knee < FRAGILE_BELOW || spared)) {
    return {
      kind: "danger", icon: "warn", word: "fragile", knee,
      title: `loses more than ${limit} beyond ${percent}${spared ? ", where nothing is removed yet" : ""}`,
    };
  }
  return {
    kind: "plain", icon: holds ? "check" : "knee", word: `${holds ? "holds" : "knee"} ${percent}`, knee,
    title: holds ? `loses no more than ${limit} up to ${percent}, the last level measured`
      : `tolerates ${percent} for a loss of ${limit}`,
  };
}
