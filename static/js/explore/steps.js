// One way to change a threshold, whatever the control: range, number field, handle, row keys.

import { fromPercent, toPercent } from "./store.js";

const clamp = (percent) => Math.min(100, Math.max(0, percent));

/** The level that a key asks for, or null when it isn't one of the slider keys. */
export function keyLevel(event, level) {
  if (event.ctrlKey || event.metaKey || event.altKey) return null;
  const step = event.shiftKey ? 5 : 1;
  const percent = toPercent(level);
  const target = {
    ArrowRight: percent + step, ArrowUp: percent + step,
    ArrowLeft: percent - step, ArrowDown: percent - step,
    PageUp: percent + 10, PageDown: percent - 10, Home: 0, End: 100,
  }[event.key];
  return target === undefined ? null : fromPercent(clamp(target));
}

/**
 * Handles a slider key for a unit; holding it down stays one undo step.
 * @returns {boolean} whether the key was one of ours
 */
export function stepByKey(event, store, history, unit) {
  const level = keyLevel(event, store.levels.get(unit));
  if (level === null) return false;
  event.preventDefault();
  if (!event.repeat) history.close();
  history.edit(() => store.setLevel(unit, level), `key:${unit}`);
  return true;
}

/** What a person typed, as a level; null when it is no percentage. */
export function typedLevel(text) {
  const percent = Number(text.replace(",", "."));
  if (text.trim() === "" || !Number.isFinite(percent)) return null;
  return fromPercent(clamp(percent));
}

/** A level as the number fields show it: "29", "12.5", at most four digits after the point. */
export const levelText = (level) => String(toPercent(level));
