// Light and dark: the system's preference, unless this browser has stored a choice.

const KEY = "prunescope-theme";
const system = matchMedia("(prefers-color-scheme: dark)");
const listeners = new Set();

/** @returns {"light" | "dark"} the theme that is on the screen now */
export function theme() {
  return document.documentElement.dataset.theme ?? (system.matches ? "dark" : "light");
}

/** Calls `listener(theme)` after every change, for charts to redraw. Returns what stops it. */
export function onThemeChange(listener) {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

function announce() {
  for (const listener of listeners) listener(theme());
}

export function toggleTheme() {
  const next = theme() === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = next;
  try {
    localStorage.setItem(KEY, next);
  } catch {
    // The choice then lasts as long as the page.
  }
  announce();
}

system.addEventListener("change", () => {
  if (!document.documentElement.dataset.theme) announce();
});

addEventListener("storage", (event) => {
  if (event.key !== KEY) return;
  if (event.newValue) document.documentElement.dataset.theme = event.newValue;
  else delete document.documentElement.dataset.theme;
  announce();
});
