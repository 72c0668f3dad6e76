// Download: the present plan is saved when it isn't yet, then the browser goes to its file. The
// first byte is asked for before, so that an error is a sentence here and not a page of JSON.

import { problemFrom, unreachable } from "../api.js";
import { $ } from "../dom.js";
import { bytes } from "../format.js";
import { toast, toastError } from "../toast.js";
import { ensurePlan } from "./plans.js";

/** Makes sure that the file is there; the server keeps it for the request that follows. */
async function prepare(url) {
  let response;
  try {
    response = await fetch(url, { credentials: "same-origin", headers: { Range: "bytes=0-0" } });
  } catch {
    throw unreachable();
  }
  if (!response.ok) throw problemFrom(response.status, await response.text());
  await response.body?.cancel();
}

function goTo(url) {
  const link = document.createElement("a");
  link.href = url;
  link.download = "";
  document.body.append(link);
  link.click();
  link.remove();
}

/** @param {import("./store.js").Store} store */
export function wireDownload(store) {
  const menu = $("#download");
  const size = bytes(store.facts.total_bytes);
  for (const place of menu.querySelectorAll("[data-size]")) place.textContent = `about ${size}`;
  let busy = false;
  menu.addEventListener("click", async (event) => {
    const button = event.target.closest("[data-format]");
    if (!button || busy) return;
    busy = true;
    menu.setAttribute("aria-busy", "true");
    const done = toast("Preparing the file…", { seconds: 0 });
    try {
      const plan = await ensurePlan(store);
      const url = `/api/plans/${plan.id}/checkpoint?format=${button.dataset.format}`;
      await prepare(url);
      goTo(url);
    } catch (error) {
      toastError(error);
    } finally {
      done();
      busy = false;
      menu.removeAttribute("aria-busy");
    }
  });
}
