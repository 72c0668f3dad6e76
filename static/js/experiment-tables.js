// The experiment's figures as text: before/after, dots, epochs, downloads.

import { h } from "./dom.js";
import {
  bytes,
  count,
  interval,
  loss,
  number,
  percent,
  percentValue,
  pp,
  rate,
  SPACE,
} from "./format.js";
import { bestEpoch, runName } from "./experiment-model.js";

const FORMATS = ["safetensors", "pth", "recipe", "masks"];

function accuracyCell(figure, dense, strong) {
  if (!figure) return h("td", { class: "num muted" }, "–");
  const change = dense && dense !== figure ? figure.accuracy - dense.accuracy : null;
  return h(
    "td",
    { class: "num" },
    strong ? h("b", {}, percent(figure.accuracy)) : percent(figure.accuracy),
    h("span", { class: "ci" }, interval(figure.low, figure.high)),
    strong && change !== null ? h("span", { class: "ci" }, pp(change)) : null,
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

/** One column a run: the dense network first, then the plan, then what it is compared with. */
export function beforeAfter(runs, dense) {
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
      row("Accuracy, pruned", `on ${split}, not retrained`, [
        accuracyCell(dense, dense, false),
        runs.map((run) => accuracyCell(run.before, dense, false)),
      ]),
      row("Accuracy, retrained", `on ${split}, best epoch`, [
        accuracyCell(dense, dense, false),
        runs.map((run) => accuracyCell(run.after, dense, true)),
      ]),
      row("Loss, retrained", `on ${split}`, [
        plainCell(dense, "loss", loss),
        runs.map((run) => plainCell(run.after, "loss", loss)),
      ]),
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

const milliseconds = (value) =>
  Number.isFinite(value) ? `${number(value, value < 10 ? 2 : 1)}${SPACE}ms` : "–";
const pp0 = (change) => pp(change, 1).replace("pp", "%");

/** Accuracy of every run on the final split, as dots with their intervals on one scale. */
export function equalSize(runs, dense) {
  const rows = [
    ...(dense ? [{ name: "dense", figure: dense, kind: "sure" }] : []),
    ...runs.map((run) => ({
      name: runName(run.name),
      figure: run.after,
      before: run.before,
      kind: run.name === "plan" ? "me" : "",
    })),
  ];
  const shown = rows.filter((row) => row.figure);
  if (!shown.length) return null;
  const low = Math.min(...shown.map((row) => row.figure.low ?? row.figure.accuracy));
  const high = Math.max(...shown.map((row) => row.figure.high ?? row.figure.accuracy));
  const pad = Math.max((high - low) * 0.08, 0.002);
  // Room at the left for the figures of pruned networks that are far below everything else.
  const isFar = shown.some((row) => row.before && row.before.accuracy < low - pad);
  const [from, to] = [low - pad - (isFar ? (high - low) * 0.14 : 0), Math.min(1, high + pad)];
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
        ["run", "accuracy", "retrained", "pruned only"].map((name) =>
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
                    dense ? h("i", { class: "g", style: { "--x": at(dense.accuracy) } }) : null,
                    before && before.accuracy >= from
                      ? h("i", { class: "t", style: { "--x": at(before.accuracy) } })
                      : null,
                    before && before.accuracy < from
                      ? h("i", { class: "off" }, `◂ ${percent(before.accuracy, 0)}`)
                      : null,
                    h("i", {
                      class: "w",
                      style: { "--lo": at(figure.low), "--hi": at(figure.high) },
                    }),
                    h("i", { class: "d", style: { "--x": at(figure.accuracy) } }),
                  ]
                : null,
            ),
          ),
          h("td", { class: "num" }, figure ? percentValue(figure.accuracy) : "–"),
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
            h("span", { style: { "--x": "0" } }, percentValue(from)),
            h("span", { style: { "--x": "1" } }, percentValue(to)),
          ),
        ),
        h("td", { class: "num" }, "%"),
      ),
    ),
  );
}

/** All epochs of one run, newest first; the one that is kept is marked. */
export function epochTable(run) {
  const best = bestEpoch(run);
  return h(
    "table",
    { class: "grid" },
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        ["epoch", "train loss", "tune loss", "tune accuracy", "learning rate"].map((name) =>
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
              percent(row.tune_accuracy),
              " ",
              h("span", { class: "ci" }, interval(row.low, row.high)),
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
