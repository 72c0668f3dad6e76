// Elements without HTML strings: names come from other people's files and stay text.

const SVG = "http://www.w3.org/2000/svg";

/**
 * h("a", {href: "/", class: "x", onclick: f}, "text", child, [more], null)
 * Keys that start with "on" become listeners, `dataset` and `style` take objects, true/false set
 * and leave out boolean attributes. Strings become text nodes.
 */
export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children);
}

/** The same for SVG elements. */
export function svg(tag, props = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(element, props, children) {
  for (const [key, value] of Object.entries(props)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(element.dataset, value);
    else if (key === "style") {
      for (const [name, text] of Object.entries(value)) element.style.setProperty(name, text);
    } else if (key === "value" && "value" in element) element.value = value;
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter(isChild));
  return element;
}

const isChild = (child) => child !== null && child !== undefined && child !== false;

/** An icon of the sprite in partials/icons.html. */
export function icon(name) {
  return svg(
    "svg",
    { class: "i", viewBox: "0 0 16 16", "aria-hidden": "true" },
    svg("use", { href: `#i-${name}` }),
  );
}

export const $ = (selector, root = document) => root.querySelector(selector);
export const $$ = (selector, root = document) => [...root.querySelectorAll(selector)];

/** What a row is about: names of buttons repeat from row to row, these don't. */
const ROWS = ["data-job", "data-analysis", "data-model"];
/** `data-does` is the same on a button and on the one that takes its place (pause, resume). */
const NAMES = ["data-does", "aria-label", "href", "id"];

/** New content for a live region of the page; what had the focus in there has it afterwards. */
export function renew(container, ...children) {
  const active = container.contains(document.activeElement) ? document.activeElement : null;
  const name = active && selector(active, NAMES);
  const around = active?.closest(ROWS.map((key) => `[${key}]`).join());
  const row = around && container.contains(around) && selector(around, ROWS);
  container.replaceChildren(...children.flat(Infinity).filter(isChild));
  if (name) $(row ? `${row} ${name}` : name, container)?.focus();
}

function selector(element, attributes) {
  const found = attributes.find((key) => element.getAttribute(key));
  return found && `[${found}="${CSS.escape(element.getAttribute(found))}"]`;
}

/** The state that the server put into the page. */
export function readState() {
  return JSON.parse(document.getElementById("state").textContent);
}
