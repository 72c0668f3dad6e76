// The primary metric of all runs over epochs, and their loss in a panel below: one x axis, never two y axes
// in one panel.

import { roundTicks, tickText } from "./explore/scale.js";
import { axis, CONFIG, layout, niceTicks, note, token } from "./charts.js";
import { loss, plotlyText } from "./format.js";
import { bestEpoch, runName, tuned } from "./experiment-model.js";

const RIGHT = 128;

/** Stretched: the loss against dense on an asinh scale; linear leaves values alone. */
function scaleFor(kind, yard) {
  return kind === "linear" ? (value) => value : (value) => yard.stretch(value);
}

/** Of a fraction, on the stretched scale. */
const ROUND = [
  0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.92, 0.94, 0.95, 0.96, 0.97, 0.98, 0.985,
  0.99, 0.995, 1,
];

/** Tick values that are round and, on the stretched scale, at least 16 px apart. */
function valueTicks(kind, low, high, scale, height, yard) {
  const span = scale(high) - scale(low);
  if (kind !== "linear" && !yard.metric.fraction) {
    const toPixel = (value) => ((scale(high) - scale(value)) / span) * height;
    return roundTicks(low, high, yard, toPixel, 18);
  }
  const candidates = kind === "linear" ? niceTicks(low, high, 5) : ROUND;
  const ticks = [];
  for (const value of candidates.filter((one) => one >= low && one <= high).reverse()) {
    const last = ticks.at(-1);
    if (last === undefined || ((scale(last) - scale(value)) / span) * height >= 17)
      ticks.push(value);
  }
  return ticks;
}

/** Moves labels apart, top to bottom, and gives each its shift in pixels. */
function spread(labels, least = 13) {
  const sorted = [...labels].sort((a, b) => a.pixel - b.pixel);
  let floor = -Infinity;
  for (const label of sorted) {
    label.at = Math.max(label.pixel, floor + least);
    floor = label.at;
  }
  return sorted;
}

/**
 * @param {HTMLElement} element
 * @param {{runs: object[], epochs: number, metric: import("./metrics.js").Metric,
 *   dense: number | null, denseLoss: number | null, kind: "stretched" | "linear"}} what `dense`,
 *   `denseLoss`: metric and loss of the unpruned network on the same split as the epochs
 */
export function drawTrajectories(element, { runs, epochs, metric, dense, denseLoss, kind }) {
  const drawn = runs.filter((run) => run.trajectory.length);
  const at = (row) => tuned(row, metric)?.value ?? null;
  if (!drawn.length) return;
  const narrow = element.clientWidth < 560;
  const right = narrow ? 84 : RIGHT;
  const height = Math.max(200, element.clientHeight - 50);
  const values = drawn.flatMap((run) => run.trajectory.map(at)).filter((value) => value !== null);
  if (!values.length) return;
  const known = dense === null ? values : [...values, dense];
  const top = Math.max(...known);
  const bottom = Math.min(...known);
  const yard = metric.against(dense ?? (metric.higher_is_better ? top : bottom));
  const scale = scaleFor(kind, yard);
  const room = (scale(top) - scale(bottom)) * 0.06 || yard.scale * 0.01;
  const yRange = [scale(bottom) - room, scale(top) + room * 1.6];
  const accuracyHeight = height * 0.62;
  const ceiling = metric.fraction ? Math.min(1, top) : top;
  const ticks = valueTicks(kind, bottom, ceiling, scale, accuracyHeight, yard);
  const losses = drawn
    .flatMap((run) => run.trajectory.flatMap((row) => [row.tune_loss, row.train_loss]))
    .concat(denseLoss ?? [])
    .filter((value) => value > 0);
  const lossRange = losses.length
    ? [Math.log10(Math.min(...losses)) - 0.08, Math.log10(Math.max(...losses)) + 0.08]
    : [-1, 0];
  const colours = {
    plan: token("accent"),
    other: token("context"),
    ink: token("ink"),
    soft: token("ink-2"),
    caption: token("ink-3"),
  };
  const digits =
    kind === "linear" && ticks.length > 1 && Math.abs(ticks[0] - ticks[1]) < 0.0099 ? 1 : null;

  const traces = [];
  const ends = [];
  // The plan last, so that it lies on top.
  for (const run of [...drawn].sort((a, b) => (a.name === "plan") - (b.name === "plan"))) {
    const own = run.name === "plan";
    const x = run.trajectory.map((row) => row.epoch);
    const colour = own ? colours.plan : colours.other;
    const name = plotlyText(runName(run.name));
    if (own && run.trajectory.every((row) => Number.isFinite(tuned(row, metric)?.low))) {
      const edge = (key) =>
        run.trajectory.map((row) =>
          Math.min(yRange[1], Math.max(yRange[0], scale(tuned(row, metric)[key]))),
        );
      traces.push(
        { x, y: edge("high"), mode: "lines", line: { width: 0 }, hoverinfo: "skip" },
        {
          x,
          y: edge("low"),
          mode: "lines",
          line: { width: 0 },
          fill: "tonexty",
          fillcolor: token("accent-band"),
          hoverinfo: "skip",
        },
      );
    }
    traces.push({
      x,
      y: run.trajectory.map((row) => (at(row) === null ? null : scale(at(row)))),
      mode: "lines+markers",
      line: { color: colour, width: own ? 2 : 1.25 },
      marker: { color: colour, size: own ? 4.5 : 3 },
      customdata: run.trajectory.map((row) => metric.text(at(row))),
      hovertemplate: `${name}, epoch %{x}: %{customdata}<extra></extra>`,
    });
    if (own) {
      traces.push({
        x,
        y: run.trajectory.map((row) => row.train_loss),
        yaxis: "y2",
        mode: "lines",
        line: { color: colour, width: 1 },
        opacity: 0.65,
        connectgaps: false,
        customdata: run.trajectory.map((row) => loss(row.train_loss)),
        hovertemplate: `${name}, training, epoch %{x}: %{customdata}<extra></extra>`,
      });
    }
    traces.push({
      x,
      y: run.trajectory.map((row) => row.tune_loss),
      yaxis: "y2",
      mode: "lines",
      line: { color: colour, width: own ? 2 : 1.25 },
      customdata: run.trajectory.map((row) => loss(row.tune_loss)),
      hovertemplate: `${name}, epoch %{x}: loss %{customdata}<extra></extra>`,
    });
    const last = run.trajectory.at(-1);
    ends.push({
      text: own ? `<b>${name}</b>` : name,
      x: last.epoch,
      open: last.epoch < epochs,
      y: scale(at(last) ?? yard.baseline),
      value: metric.text(at(last)),
      colour: own ? colours.plan : colours.soft,
    });
  }

  const pixelOf = (y) => ((yRange[1] - y) / (yRange[1] - yRange[0])) * accuracyHeight;
  if (dense !== null)
    ends.push({
      text: "dense",
      x: epochs,
      y: scale(dense),
      value: metric.text(dense),
      colour: colours.soft,
    });
  for (const end of ends) end.pixel = pixelOf(end.y);
  const words = (end) => (narrow ? end.text : `${end.text} ${end.value}`);
  const annotations = [
    // A line that still grows carries its name at its tip, the others at the right edge.
    ...ends
      .filter((end) => end.open)
      .map((end) =>
        note(end.x, end.y, words(end), {
          xshift: 8,
          yshift: -9,
          font: { size: 11, color: end.colour },
        }),
      ),
    ...spread(ends.filter((end) => !end.open)).map((end) =>
      note(1, end.y, words(end), {
        xref: "paper",
        xshift: 6,
        yshift: end.pixel - end.at,
        font: { size: 11, color: end.colour },
      }),
    ),
  ];
  annotations.push(
    note(0, 1, `<b>${plotlyText(metric.word)}</b> on tune`, {
      xref: "paper",
      yref: "y domain",
      xshift: 8,
      yshift: 2,
      yanchor: "top",
      font: { size: 11, color: colours.ink },
    }),
    note(
      0,
      1,
      narrow ? "<b>loss</b>, thin: training" : "<b>loss</b> on tune; thin: this plan on train",
      {
        xref: "paper",
        yref: "y2 domain",
        xshift: 8,
        yshift: 14,
        yanchor: "top",
        font: { size: 11, color: colours.ink },
      },
    ),
  );

  const hairline = { type: "line", layer: "below", line: { width: 1, color: colours.soft } };
  const shapes = [];
  if (dense !== null) {
    shapes.push({ ...hairline, xref: "paper", x0: 0, x1: 1, y0: scale(dense), y1: scale(dense) });
  }
  if (denseLoss > 0) {
    const level = { yref: "y2", y0: denseLoss, y1: denseLoss };
    shapes.push({ ...hairline, xref: "paper", x0: 0, x1: 1, ...level });
    annotations.push(
      note(1, Math.log10(denseLoss), narrow ? "dense" : `dense ${loss(denseLoss)}`, {
        xref: "paper",
        yref: "y2",
        xshift: 6,
        font: { size: 11, color: colours.soft },
      }),
    );
  }
  const plan = drawn.find((run) => run.name === "plan");
  const best = plan ? bestEpoch(plan, metric) : null;
  if (best && at(best) !== null) {
    traces.push({
      x: [best.epoch],
      y: [scale(at(best))],
      mode: "markers",
      hoverinfo: "skip",
      marker: { size: 12, color: "rgba(0,0,0,0)", line: { color: colours.ink, width: 1.75 } },
    });
    // A thin line to the edge of the panel where no curve is in the way of the words.
    const [edge, yanchor] = metric.higher_is_better || narrow ? [yRange[0], "bottom"] : [yRange[1], "top"];
    shapes.push({
      ...hairline,
      x0: best.epoch,
      x1: best.epoch,
      y0: edge,
      y1: scale(at(best)),
    });
    const xanchor =
      best.epoch > epochs * 0.85 ? "right" : best.epoch < epochs * 0.15 ? "left" : "center";
    annotations.push(
      note(
        best.epoch,
        edge,
        `<b>${plan.after ? "kept" : "best so far"}</b>, epoch ${best.epoch}`,
        {
          xanchor,
          yanchor,
          bgcolor: token("paper"),
          font: { size: 11, color: colours.ink },
        },
      ),
    );
  }

  window.Plotly.react(
    element,
    traces,
    layout({
      margin: { l: 56, r: right, t: 8, b: 38, pad: 0 },
      xaxis: axis({
        range: [-epochs * 0.012, epochs * 1.012],
        anchor: "y2",
        showline: true,
        tickvals: niceTicks(0, epochs, narrow ? 4 : 8).filter(Number.isInteger),
        title: { text: "epoch", font: { size: 11, color: colours.caption }, standoff: 4 },
      }),
      yaxis: axis({
        domain: [0.38, 1],
        range: yRange,
        tickvals: ticks.map(scale),
        ticktext: ticks.map((tick) =>
          metric.fraction
            ? metric.text(tick, digits ?? (Number.isInteger(Math.round(tick * 1e6) / 1e4) ? 0 : 1))
            : tickText(tick, metric),
        ),
        ticklen: 3,
      }),
      yaxis2: axis({
        domain: [0, 0.27],
        type: "log",
        range: lossRange,
        ticklen: 3,
        tickvals: lossTicks(lossRange),
        ticktext: lossTicks(lossRange).map((value) => String(value)),
      }),
      shapes,
      annotations,
    }),
    CONFIG,
  );
}

/** Round values on a log axis, few enough for a low panel. */
function lossTicks([low, high]) {
  const steps = high - low > 1.6 ? [1] : high - low > 0.7 ? [1, 3] : [1, 2, 3, 5, 7];
  const ticks = [];
  for (let power = Math.floor(low); power <= high; power += 1) {
    for (const step of steps) {
      const value = Number((step * 10 ** power).toPrecision(3));
      if (Math.log10(value) >= low && Math.log10(value) <= high) ticks.push(value);
    }
  }
  return ticks.length > 6 ? ticks.filter((_, index) => index % 2 === 0) : ticks;
}
