// The units of an analysis as the page names and sorts them. Pure.

/** Names without ".weight" where nothing is lost by it: "layer1.0.conv1". */
function labels(units) {
  const short = (unit) => (unit.id.endsWith(".weight") ? unit.id.slice(0, -7) : unit.id);
  const uses = new Map();
  for (const unit of units.filter((u) => u.prunable)) {
    uses.set(short(unit), (uses.get(short(unit)) ?? 0) + 1);
  }
  return new Map(
    units.map((unit) => [
      unit.id,
      unit.prunable && uses.get(short(unit)) === 1 && short(unit) ? short(unit) : unit.id,
    ]),
  );
}

/**
 * @typedef {{id: string, index: number, label: string, size: number, shape: number[],
 *   prunable: boolean, reason: string | null}} Unit
 * @param {object} analysis
 * @returns {{units: Unit[], others: Unit[]}} those with curves, and the rest; in network order
 */
export function readUnits(analysis) {
  const names = labels(analysis.units);
  const all = analysis.units.map((unit, index) => ({ ...unit, index, label: names.get(unit.id) }));
  // An analysis can be limited to some units; the others are shown as left alone.
  const analysed = new Set(analysis.curves.map((curve) => curve.unit));
  const units = all.filter((unit) => unit.prunable && analysed.has(unit.id));
  const shown = new Set(units);
  return { units, others: all.filter((unit) => !shown.has(unit)) };
}
