// A look at weights without their network: every tensor in a table, the chosen one as a histogram
// with what magnitude would remove. No accuracy is known here, and none is shown.

import { h, svg } from "./dom.js";
import { number, percent, plural, SPACE } from "./format.js";
import { figure } from "./metrics.js";

const SHARES = [50, 80, 90, 95];
/** Drawn in the pixels it will have: its words stay as large as the page's. */
const WIDTH = innerWidth < 720 ? 360 : 720;
const HEIGHT = 200;
const FLOOR = 166;
const TOP = 34;

/** Heights of the bins as one path, from the left edge to the right one. */
function outline(counts, width, floor, top) {
  const most = Math.max(...counts);
  const step = width / counts.length;
  const parts = [`M0 ${floor}`];
  counts.forEach((count, index) => {
    const y = (floor - ((floor - top) * count) / most).toFixed(1);
    parts.push(`V${y}H${((index + 1) * step).toFixed(2)}`);
  });
  return `${parts.join("")}V${floor}Z`;
}

function spark(row) {
  const counts = row.histogram?.counts;
  if (!(counts?.length > 1)) return null;
  return svg(
    "svg",
    { class: "spark", viewBox: "0 0 100 20", preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("path", { d: outline(counts, 100, 20, 1) }),
  );
}

const shapeOf = (row) => (row.shape?.length ? row.shape.join(" × ") : "one number");
const cutAt = (row, share) => row.thresholds?.[String(share)] ?? null;

function faults(row) {
  const found = [];
  if (row.nan) found.push(plural(row.nan, "NaN", "NaN"));
  if (row.inf) found.push(plural(row.inf, "infinity", "infinities"));
  return found.join(", ");
}

/**
 * The table of tensors; `onChoose(row)` when one is chosen.
 * @param {object[]} rows `details.weights` of the API
 */
export function weightsTable(rows, chosen, onChoose) {
  const heads = [
    ["tensor", ""], ["shape", "wide"], ["type", "wide"], ["numbers", "num"], ["values", "wide"],
    ["zeros", "num"], ...SHARES.map((share) => [`${share}${SPACE}% below`, "num cut"]),
  ];
  return h(
    "table",
    { class: "grid weights" },
    h("thead", {}, h("tr", {}, heads.map(([head, kind]) => h("th", { scope: "col", class: kind }, head)))),
    h(
      "tbody",
      {},
      rows.map((row) =>
        h(
          "tr",
          { "aria-current": row === chosen ? "true" : null, onclick: () => onChoose(row) },
          h(
            "th",
            { scope: "row", class: "path mono" },
            h(
              "button",
              { class: "link", type: "button", "aria-pressed": String(row === chosen) },
              h("bdi", {}, row.key),
            ),
            row.also?.length ? h("span", { class: "cap" }, `also ${row.also.join(", ")}`) : null,
            faults(row) ? h("span", { class: "chip danger" }, faults(row)) : null,
          ),
          h("td", { class: "wide" }, shapeOf(row)),
          h("td", { class: "wide" }, row.dtype),
          h("td", { class: "num" }, number(row.numel)),
          h("td", { class: "wide spark-cell" }, spark(row)),
          h("td", { class: "num" }, row.numel ? percent(row.zeros / row.numel) : "–"),
          SHARES.map((share) => h("td", { class: "num cut" }, figure(cutAt(row, share)))),
        ),
      ),
    ),
  );
}

/** The chosen tensor: its histogram, the cuts as marks on both sides of zero, its figures. */
export function weightsChart(row) {
  const { histogram } = row;
  const facts = [
    ["Shape", shapeOf(row)], ["Numbers", `${number(row.numel)}, ${row.dtype}`],
    ["Zeros", row.numel ? `${number(row.zeros)}, ${percent(row.zeros / row.numel)}` : "–"],
    ["Mean, deviation", `${figure(row.mean)}, ${figure(row.std)}`],
    ["Smallest, largest", `${figure(row.min)}, ${figure(row.max)}`],
  ];
  if (faults(row)) facts.push(["Not numbers", faults(row)]);
  return h(
    "figure",
    { class: "weights-figure" },
    h("figcaption", { class: "mono" }, h("bdi", {}, row.key)),
    histogram?.counts?.length > 1
      ? drawing(row)
      : h("p", { class: "note" }, "All its values are the same, or there are none to draw."),
    h("dl", { class: "facts" }, facts.flatMap(([name, text]) => [h("dt", {}, name), h("dd", {}, text)])),
  );
}

function drawing(row) {
  const { low, high, counts } = row.histogram;
  const x = (value) => ((value - low) / (high - low)) * WIDTH;
  const cuts = SHARES.map((share) => [share, cutAt(row, share)]).filter(([, cut]) => cut !== null);
  const inside = (value) => value >= low && value <= high;
  const text = (at, y, words, anchor = "middle") =>
    svg("text", { x: Math.min(WIDTH, Math.max(0, at)).toFixed(1), y, "text-anchor": anchor }, words);
  const marks = cuts.map(([share, cut], index) => {
    const sides = [-cut, cut].filter(inside);
    const right = sides.at(-1);
    return svg("g", { class: "cut" },
      sides.map((side) => svg("path", { d: `M${x(side).toFixed(1)} ${TOP - 8}V${FLOOR}` })),
      right === undefined ? null
        : text(x(right) + 3, 10 + (index % 2) * 12, `${share}${SPACE}%`, x(right) > WIDTH - 40 ? "end" : "start"));
  });
  const widest = cuts.at(-1)?.[1];
  return svg(
    "svg",
    {
      class: "weights-chart", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img",
      "aria-label": `Histogram of ${row.key}, from ${figure(low)} to ${figure(high)}. ` +
        cuts.map(([share, cut]) => `${share} percent are below ${figure(cut)} in magnitude`).join("; "),
    },
    widest ? svg("rect", {
      class: "gone", x: Math.max(0, x(-widest)), y: TOP - 8,
      width: Math.max(0, Math.min(WIDTH, x(widest)) - Math.max(0, x(-widest))), height: FLOOR - TOP + 8,
    }) : null,
    svg("path", { class: "bars-path", d: outline(counts, WIDTH, FLOOR, TOP) }),
    marks,
    svg("path", { class: "axis", d: `M0 ${FLOOR}.5H${WIDTH}` }),
    text(0, HEIGHT - 18, figure(low), "start"),
    inside(0) && x(0) > 60 && x(0) < WIDTH - 60 ? text(x(0), HEIGHT - 18, "0") : null,
    text(WIDTH, HEIGHT - 18, figure(high), "end"),
  );
}
