// The experiment's figures as text: before/after, dots, epochs, downloads.

import { h } from "./dom.js";
import {
  bytes,
  count,
  loss,
  number,
  pp,
  rate,
  SPACE,
} from "./format.js";
import { bestEpoch, runName, tuned } from "./experiment-model.js";

const FORMATS = ["safetensors", "pth", "recipe", "masks"];

function metricCell(metric, figure, dense, strong) {
  const found = metric.of(figure);
  if (!found) return h("td", { class: "num muted" }, "–");
  const start = metric.value(dense);
  const change = start !== null && dense !== figure ? found.value - start : null;
  const text = metric.text(found.value);
  return h(
    "td",
    { class: "num" },
    strong ? h("b", {}, text) : text,
    h("span", { class: "ci" }, metric.range(found.low, found.high)),
    strong && change !== null ? h("span", { class: "ci" }, metric.difference(change)) : null,
  );
}

function plainCell(figure, key, show, sub) {
  return h(
    "td",
    { class: "num" },
    figure ? show(figure[key]) : "–",
    figure && sub ? h("span", { class: "ci" }, sub(figure[key])) : null,
  );
}

/**
 * One column a run: the dense network first, then the plan, then what it is compared with. The
 * primary metric before and after, the others after.
 */
export function beforeAfter(runs, dense, { primary, list }) {
  const split = dense?.split ?? runs.find((run) => run.before)?.before.split ?? "test";
  const less = (key) => (value) => (dense?.[key] ? pp0(value / dense[key] - 1) : "");
  const row = (title, sub, cells) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, title, sub ? h("span", { class: "ci" }, sub) : null),
      cells,
    );
  const figure = (run) => run.after ?? run.before;
  return h(
    "table",
    { class: "ba" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        h("th", {}, h("span", { class: "sr" }, "quantity")),
        h("th", { scope: "col", class: "num" }, "dense"),
        runs.map((run) =>
          h(
            "th",
            { scope: "col", class: run.name === "plan" ? "num me" : "num" },
            runName(run.name),
          ),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      row(`${primary.label}, pruned`, `on ${split}, not retrained`, [
        metricCell(primary, dense, dense, false),
        runs.map((run) => metricCell(primary, run.before, dense, false)),
      ]),
      row(`${primary.label}, retrained`, `on ${split}, best epoch`, [
        metricCell(primary, dense, dense, false),
        runs.map((run) => metricCell(primary, run.after, dense, true)),
      ]),
      others(list, primary, [dense, ...runs.map((run) => run.after)]).map((metric) =>
        row(metric.label, `on ${split}, retrained`, [
          metricCell(metric, dense, dense, false),
          runs.map((run) => metricCell(metric, run.after, dense, false)),
        ]),
      ),
      row("Best epoch", "chosen on tune", [
        h("td", { class: "num muted" }, "–"),
        runs.map((run) =>
          h("td", { class: "num" }, run.after ? String(run.best_epoch ?? "–") : "–"),
        ),
      ]),
      row("Parameters", "counted non-zero", [
        plainCell(dense, "parameters", number),
        runs.map((run) => plainCell(figure(run), "parameters", number, less("parameters"))),
      ]),
      row("MACs", "counted non-zero", [
        plainCell(dense, "macs", count),
        runs.map((run) => plainCell(figure(run), "macs", count, less("macs"))),
      ]),
      row("Weights on disk", "packed", [
        plainCell(dense, "bytes", bytes),
        runs.map((run) => plainCell(figure(run), "bytes", bytes, less("bytes"))),
      ]),
      Number.isFinite(dense?.latency_ms)
        ? row("Latency, dense kernels", "zeros do not speed them up", [
            plainCell(dense, "latency_ms", milliseconds),
            runs.map((run) => plainCell(run.after, "latency_ms", milliseconds)),
          ])
        : null,
    ),
  );
}

/** Further metrics that somebody has a value of. */
const others = (list, primary, figures) =>
  list.filter(
    (metric) => metric !== primary && figures.some((figure) => metric.value(figure) !== null),
  );

const milliseconds = (value) =>
  Number.isFinite(value) ? `${number(value, value < 10 ? 2 : 1)}${SPACE}ms` : "–";
const pp0 = (change) => pp(change, 1).replace("pp", "%");

/** The metric of every run on the final split, as dots with their intervals on one scale. */
export function equalSize(runs, dense, metric) {
  const rows = [
    ...(metric.of(dense) ? [{ name: "dense", figure: metric.of(dense), kind: "sure" }] : []),
    ...runs.map((run) => ({
      name: runName(run.name),
      figure: metric.of(run.after),
      before: metric.value(run.before),
      kind: run.name === "plan" ? "me" : "",
    })),
  ];
  const shown = rows.filter((row) => row.figure);
  if (!shown.length) return null;
  const low = Math.min(...shown.map((row) => row.figure.low ?? row.figure.value));
  const high = Math.max(...shown.map((row) => row.figure.high ?? row.figure.value));
  const pad = Math.max((high - low) * 0.08, metric.fraction ? 0.002 : Math.abs(high) * 0.01 || 0.01);
  // Room at one side for the figures of pruned networks that are far worse than everything else.
  const known = (value) => value !== null && value !== undefined;
  const below = (value) => known(value) && value < low - pad;
  const above = (value) => known(value) && value > high + pad;
  const margin = (high - low) * 0.14;
  const from = low - pad - (shown.some((row) => below(row.before)) ? margin : 0);
  const end = high + pad + (shown.some((row) => above(row.before)) ? margin : 0);
  const to = metric.fraction ? Math.min(1, end) : end;
  const dear = metric.value(dense);
  const at = (value) => String(Math.min(1, Math.max(0, (value - from) / (to - from))));
  return h(
    "table",
    { class: "dots" },
    h(
      "thead",
      { class: "sr" },
      h(
        "tr",
        {},
        ["run", metric.word, "retrained"].map((name) =>
          h("th", { scope: "col" }, name),
        ),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map(({ name, figure, before, kind }) =>
        h(
          "tr",
          { class: kind },
          h("th", { scope: "row" }, name),
          h(
            "td",
            {},
            h(
              "div",
              { class: "track" },
              figure
                ? [
                    dear !== null ? h("i", { class: "g", style: { "--x": at(dear) } }) : null,
                    known(before) && before >= from && before <= to
                      ? h("i", { class: "t", style: { "--x": at(before) } })
                      : null,
                    known(before) && before < from
                      ? h("i", { class: "off" }, `◂ ${metric.text(before, 0)}`)
                      : null,
                    known(before) && before > to
                      ? h("i", { class: "off right" }, `${metric.text(before, 0)} ▸`)
                      : null,
                    h("i", {
                      class: "w",
                      style: {
                        "--lo": at(figure.low ?? figure.value),
                        "--hi": at(figure.high ?? figure.value),
                      },
                    }),
                    h("i", { class: "d", style: { "--x": at(figure.value) } }),
                  ]
                : null,
            ),
          ),
          h("td", { class: "num" }, figure ? metric.bare(figure.value) : "–"),
        ),
      ),
    ),
    h(
      "tfoot",
      {},
      h(
        "tr",
        {},
        h("td"),
        h(
          "td",
          {},
          h(
            "span",
            { class: "axis" },
            h("span", { style: { "--x": "0" } }, metric.bare(from)),
            h("span", { style: { "--x": "1" } }, metric.bare(to)),
          ),
        ),
        h("td", { class: "num" }, metric.unit),
      ),
    ),
  );
}

/** All epochs of one run, newest first; the one that is kept is marked. */
export function epochTable(run, metric) {
  const best = bestEpoch(run, metric);
  const figures = (row) => tuned(row, metric) ?? { value: null };
  return h(
    "table",
    { class: "grid" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["epoch", "train loss", "tune loss", `tune ${metric.word}`, "learning rate"].map((name) =>
          h("th", { scope: "col", class: "num" }, name),
        ),
        h("th", { scope: "col" }, h("span", { class: "sr" }, "kept")),
      ),
    ),
    h(
      "tbody",
      {},
      [...run.trajectory]
        .reverse()
        .map((row) =>
          h(
            "tr",
            { class: row === best ? "kept" : "" },
            h("td", { class: "num" }, String(row.epoch)),
            h("td", { class: "num" }, row.epoch === 0 ? "–" : loss(row.train_loss)),
            h("td", { class: "num" }, loss(row.tune_loss)),
            h(
              "td",
              { class: "num" },
              metric.text(figures(row).value),
              " ",
              h("span", { class: "ci" }, metric.range(figures(row).low, figures(row).high)),
            ),
            h("td", { class: "num" }, row.epoch === 0 ? "–" : rate(row.learning_rate)),
            h(
              "td",
              {},
              row === best
                ? h("b", {}, run.after ? "kept" : "best so far")
                : row.epoch === 0
                  ? h("span", { class: "muted" }, "pruned only")
                  : "",
            ),
          ),
        ),
    ),
  );
}

/** A line a run with its four files; runs that have not ended have none. */
export function downloads(experiment, runs) {
  const base = `/api/experiments/${experiment.id}/checkpoint`;
  return runs
    .filter((run) => run.after)
    .map((run) =>
      h(
        "div",
        { class: "files" },
        h("span", { class: "head" }, runName(run.name)),
        FORMATS.map((format) =>
          h(
            "a",
            {
              href: `${base}?run=${encodeURIComponent(run.name)}&format=${format}`,
              download: true,
              "aria-label": `${runName(run.name)} as ${format}`,
            },
            format,
          ),
        ),
      ),
    );
}
