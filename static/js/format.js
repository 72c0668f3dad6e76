// Numbers and names as they are read. Pure functions, no DOM.

/** Narrow no-break space: between a number and its unit. */
export const SPACE = "\u202f";
export const MINUS = "\u2212";
const NOTHING = "–";

const known = (value) => typeof value === "number" && Number.isFinite(value);

const grouped = (digits) =>
  new Intl.NumberFormat("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits });
const FORMATS = [0, 1, 2, 3, 4].map(grouped);

/** 270896 → "270,896"; -0.04 with 1 digit → "0.0" (no negative zero). */
export function number(value, digits = 0) {
  if (!known(value)) return NOTHING;
  const text = FORMATS[digits].format(Math.abs(value));
  const isZero = !/[1-9]/.test(text);
  return value < 0 && !isZero ? MINUS + text : text;
}

/** A number that always carries its sign: "+1.2", "−0.3", "0.0". */
export function signed(value, digits = 1) {
  const text = number(value, digits);
  return known(value) && value > 0 && /[1-9]/.test(text) ? `+${text}` : text;
}

/** Fraction 0.714 → "71.4 %". */
export function percent(fraction, digits = 1) {
  return known(fraction) ? `${number(fraction * 100, digits)}${SPACE}%` : NOTHING;
}

/** Fraction 0.714 → "71.4", for where the % stands apart. */
export function percentValue(fraction, digits = 1) {
  return known(fraction) ? number(fraction * 100, digits) : NOTHING;
}

/** Difference of two fractions, −0.011 → "−1.1 pp". */
export function pp(difference, digits = 1) {
  return known(difference) ? `${signed(difference * 100, digits)}${SPACE}pp` : NOTHING;
}

/** Confidence interval of a fraction: "[90.6, 92.1]", in per cent. */
export function interval(low, high, digits = 1) {
  if (!known(low) || !known(high)) return "";
  return `[${number(low * 100, digits)}, ${number(high * 100, digits)}]`;
}

function scaled(value, steps, units) {
  let rest = Math.abs(value);
  let step = 0;
  // 999.6 would be printed as 1000: the next unit takes it.
  while (step < units.length - 1 && rest >= steps - steps / 2000) {
    rest /= steps;
    step += 1;
  }
  const digits = Number.isInteger(rest) ? 0 : rest < 9.995 ? 2 : rest < 99.95 ? 1 : 0;
  return { value: number(value < 0 ? -rest : rest, digits), unit: units[step] };
}

/** Counts: 270896 → {value: "271", unit: "k"}; 2240000 → {value: "2.24", unit: "M"}. */
export function countParts(value) {
  if (!known(value)) return { value: NOTHING, unit: "" };
  return scaled(value, 1000, ["", "k", "M", "G", "T"]);
}

export function count(value) {
  const parts = countParts(value);
  return parts.unit ? `${parts.value}${SPACE}${parts.unit}` : parts.value;
}

/** Decimal units: 1083584 → {value: "1.08", unit: "MB"}. */
export function bytesParts(value) {
  if (!known(value)) return { value: NOTHING, unit: "" };
  return scaled(value, 1000, ["B", "kB", "MB", "GB", "TB"]);
}

export function bytes(value) {
  const parts = bytesParts(value);
  return parts.unit ? `${parts.value}${SPACE}${parts.unit}` : parts.value;
}

/** A mean loss: three significant digits, "0.0632", "2.31". */
export function loss(value) {
  if (!known(value)) return NOTHING;
  if (value !== 0 && (Math.abs(value) < 0.001 || Math.abs(value) >= 10000)) {
    return value.toExponential(1).replace("-", MINUS);
  }
  return value.toPrecision(3).replace("-", MINUS);
}

/** Learning rates: 0.01 → "0.01", 0.00001 → "1e−5". */
export function rate(value) {
  if (!known(value)) return NOTHING;
  const text =
    value >= 0.0001 || value === 0
      ? String(Number(value.toPrecision(3)))
      : Number(value.toPrecision(2)).toExponential();
  return text.replace("-", MINUS);
}

/** Seconds as people say them: "11 s", "2 min", "1 h 20 min". */
export function duration(seconds) {
  if (!known(seconds)) return "";
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 90) return `${whole}${SPACE}s`;
  const minutes = Math.round(whole / 60);
  if (minutes < 90) return `${minutes}${SPACE}min`;
  const hours = Math.floor(minutes / 60);
  if (hours >= 24) return `${Math.floor(hours / 24)}${SPACE}d ${hours % 24}${SPACE}h`;
  return `${hours}${SPACE}h ${minutes % 60}${SPACE}min`;
}

/** "now", "5 min ago", "14:02", "yesterday", "Mon", "3 Feb". `now` in milliseconds. */
export function ago(iso, now = Date.now()) {
  if (!iso) return "";
  const then = new Date(iso);
  const seconds = (now - then.getTime()) / 1000;
  if (Number.isNaN(seconds)) return "";
  if (seconds < 60) return "now";
  if (seconds < 3600) return `${Math.floor(seconds / 60)}${SPACE}min ago`;
  const midnight = new Date(now);
  midnight.setHours(0, 0, 0, 0);
  const days = Math.ceil((midnight.getTime() - then.getTime()) / 86400000);
  if (days <= 0) return clock(iso);
  if (days === 1) return "yesterday";
  if (days < 7) return then.toLocaleDateString("en-GB", { weekday: "short" });
  const sameYear = then.getFullYear() === midnight.getFullYear();
  return then.toLocaleDateString("en-GB", {
    day: "numeric",
    month: "short",
    ...(sameYear ? {} : { year: "numeric" }),
  });
}

/** "14:02", or with seconds "14:02:31", in the reader's time zone. */
export function clock(iso, withSeconds = false) {
  const then = new Date(iso);
  if (!iso || Number.isNaN(then.getTime())) return "";
  const two = (value) => String(value).padStart(2, "0");
  const base = `${two(then.getHours())}:${two(then.getMinutes())}`;
  return withSeconds ? `${base}:${two(then.getSeconds())}` : base;
}

/** "21 Nov 2026, 14:02", in the reader's time zone. */
export function instant(iso) {
  const then = new Date(iso);
  if (!iso || Number.isNaN(then.getTime())) return "";
  const day = then.toLocaleDateString("en-GB", { day: "numeric", month: "short", year: "numeric" });
  return `${day}, ${clock(iso)}`;
}

export function plural(value, one, many = `${one}s`) {
  return `${number(value)} ${value === 1 ? one : many}`;
}

/**
 * Plotly reads a subset of HTML in every text it is given; names are other people's text. This is
 * the one place where they are made harmless for it.
 */
export function plotlyText(text) {
  return String(text).replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** A dotted path cut before its last name: "layer1.0.conv1" → ["layer1.0.", "conv1"]. */
export function splitPath(path) {
  const parts = path.split(".");
  let tail = parts.length - 1;
  // A bare number tells nothing by itself: "downsample.0" stays together.
  while (tail > 0 && /^\d+$/.test(parts[tail])) tail -= 1;
  const head = parts.slice(0, tail).join(".");
  return [head ? `${head}.` : "", parts.slice(tail).join(".")];
}
