// The page's own state, fetched again: the same view model the server rendered it from.

import { poll } from "./live.js";
import { ApiError, get, signInAgain } from "./api.js";

const AWAY = 1000;

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

/** Asks how many jobs run: for pages that follow one thing only. */
export async function refreshJobsCount() {
  try {
    const { items } = await get("/api/jobs?state=running&limit=100");
    showJobsCount(items.length);
  } catch {
    // The lost-connection bar of the page's own stream says it.
  }
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
          if (!isBusy(next)) stop = null;
          return isBusy(next);
        }, seconds)
      : null;
  };
  watch(state);
  const look = async () => {
    const next = await refetchState();
    show(next);
    watch(next);
  };
  // Another tab may have started something while nobody looked at this one.
  let seen = Date.now();
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) seen = Date.now();
    else if (!stop && Date.now() - seen > AWAY) look().catch(() => {});
  });
  return look;
}
