// Where the names at the ends of the curves go so that none covers another. Pure.

const LINE = 14;

/**
 * The selected labels are always placed, moved to the nearest free line if they must; the others only
 * where they fit, beginning where the most sensitive layers end: those are the ones to name. That is
 * the bottom, or with `fromTop` the top.
 *
 * @template {{y: number, isSelected: boolean}} Label
 * @param {Label[]} labels `y` in pixels, growing downwards
 * @param {number[]} taken heights of text that is already there
 * @returns {(Label & {shift: number})[]} `shift` in pixels, growing downwards
 */
export function placeLabels(labels, taken, { bottom = Infinity, most = 6, fromTop = false } = {}) {
  const used = [...taken];
  const free = (y) => used.every((other) => Math.abs(other - y) >= LINE);
  const placed = [];
  for (const label of labels.filter((each) => each.isSelected)) {
    const shifts = [0];
    for (let step = 2; step <= 4 * LINE; step += 2) shifts.push(step, -step);
    const shift = shifts.find((s) => free(label.y + s) && label.y + s <= bottom) ?? 0;
    used.push(label.y + shift);
    placed.push({ ...label, shift });
  }
  const others = labels.filter((label) => !label.isSelected).sort((a, b) => (fromTop ? a.y - b.y : b.y - a.y));
  for (const label of others) {
    if (placed.length > most) break;
    // A curve that ends on the floor has its name just above it, not cut by the axis.
    const y = Math.min(label.y, bottom);
    if (label.y > bottom + LINE || !free(y)) continue;
    used.push(y);
    placed.push({ ...label, shift: y - label.y });
  }
  return placed;
}
