// What every Plotly chart of the product shares: colours from the tokens, axes, notes, redrawing.
// Plotly itself is the global that static/plotly.min.js defines.

import { onThemeChange } from "./theme.js";

let probe = null;

/** The colour a token has now, resolved for the theme on the screen: "accent" → "rgb(…)". */
export function token(name) {
  if (!probe) {
    probe = document.createElement("i");
    probe.hidden = true;
    document.body.append(probe);
  }
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}

export const sans = () => getComputedStyle(document.body).fontFamily;
export const mono = () =>
  getComputedStyle(document.documentElement).getPropertyValue("--mono").trim();

export const CONFIG = { displayModeBar: false, responsive: true };

export function axis(extra = {}) {
  return {
    fixedrange: true,
    zeroline: false,
    showgrid: false,
    ticks: "outside",
    ticklen: 4,
    tickcolor: token("control"),
    linecolor: token("rule"),
    tickfont: { size: 11, color: token("ink-3") },
    ...extra,
  };
}

export function layout(extra = {}) {
  return {
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: sans(), size: 11, color: token("ink-2") },
    dragmode: false,
    hovermode: "closest",
    showlegend: false,
    hoverlabel: {
      bgcolor: token("raised"),
      bordercolor: token("control"),
      font: { family: sans(), size: 12, color: token("ink") },
    },
    ...extra,
  };
}

/** An annotation without an arrow. Names in `text` must have been through plotlyText. */
export function note(x, y, text, extra = {}) {
  return {
    x,
    y,
    text,
    showarrow: false,
    xanchor: "left",
    yanchor: "middle",
    font: { size: 11, color: token("ink-2") },
    ...extra,
  };
}

/** Draws now, and again whenever the theme or the width changes; many calls a frame draw once. */
export function redrawing(draw) {
  let asked = false;
  const ask = () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
  onThemeChange(ask);
  addEventListener("resize", ask);
  return ask;
}

/** Round tick values for a range: about `about` of them, steps of 1, 2 or 5. */
export function niceTicks(low, high, about = 5) {
  const raw = (high - low) / about;
  const power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= raw * 0.999);
  const ticks = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k += 1) {
    ticks.push(Number((k * step).toPrecision(12)));
  }
  return ticks;
}
