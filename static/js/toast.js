// Short messages in the corner, read aloud politely.

/**
 * @param {string} text
 * @param {{kind?: "info" | "error", seconds?: number}} [options] errors stay until they are
 *   closed, and so does everything with 0 seconds
 * @returns {() => void} closes it
 */
export function toast(text, { kind = "info", seconds = kind === "error" ? 0 : 4 } = {}) {
  const box = document.getElementById("toasts");
  // The same sentence twice says no more than once.
  for (const old of box.children) if (old.firstElementChild.textContent === text) old.remove();
  const note = document.createElement("div");
  note.className = `toast ${kind}`;
  const words = document.createElement("span");
  words.textContent = text;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "btn ghost icon";
  close.setAttribute("aria-label", "Close this message");
  close.textContent = "×";
  close.addEventListener("click", () => note.remove());
  note.append(words, close);
  box.append(note);
  while (box.children.length > 4) box.firstElementChild.remove();
  if (seconds) setTimeout(() => note.remove(), seconds * 1000);
  return () => note.remove();
}

/** Shows any error; one from the server has its own sentence and its own advice. */
export function toastError(error) {
  const hint = error.hint && !error.message.includes(error.hint) ? ` ${error.hint}` : "";
  toast(`${error.message}${hint}`, { kind: "error" });
}
