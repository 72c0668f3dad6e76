// The page's own state, fetched again: the same view model the server rendered it from.

import { poll } from "./live.js";
import { ApiError, signInAgain } from "./api.js";

/** @returns {Promise<object>} the state a reload would show */
export async function refetchState() {
  let response;
  try {
    response = await fetch(location.pathname + location.search, { credentials: "same-origin" });
  } catch {
    throw new ApiError({ status: 0, detail: "The server can't be reached." });
  }
  if (response.redirected && new URL(response.url).pathname === "/sign-in") signInAgain();
  if (!response.ok) throw new ApiError({ status: response.status, title: response.statusText });
  const page = new DOMParser().parseFromString(await response.text(), "text/html");
  const count = page.getElementById("jobs-count");
  if (count) showJobsCount(Number(count.textContent) || 0);
  return JSON.parse(page.getElementById("state").textContent);
}

export function showJobsCount(running) {
  const badge = document.getElementById("jobs-count");
  if (!badge) return;
  badge.textContent = String(running);
  badge.hidden = running === 0;
}

/**
 * Keeps `show(state)` up to date for as long as `isBusy(state)`; the returned function looks at
 * once and starts again, after something was started or stopped here.
 */
export function keepFresh(show, isBusy, state, seconds = 1.5) {
  let stop = null;
  const watch = (now) => {
    stop?.();
    stop = isBusy(now)
      ? poll(async () => {
          const next = await refetchState();
          show(next);
          return isBusy(next);
        }, seconds)
      : null;
  };
  watch(state);
  return async () => {
    const next = await refetchState();
    show(next);
    watch(next);
  };
}
