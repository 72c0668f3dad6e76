// Server-sent events that survive a lost connection: every event has an id, and a new connection
// starts after the last one that was seen.

const FIRST_WAIT = 1000;
const LONGEST_WAIT = 15000;
const HIDDEN_GRACE = 60000;

/**
 * @param {string} url of the event stream
 * @param {{after?: number, handlers: Record<string, (data: any, id: number) => void>,
 *          onReconnect?: () => void}} options
 *   `handlers` by event type; `onReconnect` after the stream is back.
 * @returns {{close: () => void, last: () => number}}
 */
export function follow(url, { after = 0, handlers, onReconnect }) {
  let source = null;
  let last = after;
  let wait = FIRST_WAIT;
  let timer = 0;
  let ended = false;
  let lost = false;
  let hiddenTimer = 0;

  const address = () => `${url}${url.includes("?") ? "&" : "?"}after=${last}`;

  function connect() {
    clearTimeout(timer);
    if (ended) return;
    source?.close();
    source = new EventSource(address());
    source.onopen = () => {
      wait = FIRST_WAIT;
      if (lost) onReconnect?.();
      lost = false;
      banner(url, false);
    };
    source.onerror = () => {
      // Not left to the browser: after an answer other than 200 it would give up for good.
      source.close();
      lost = true;
      banner(url, true, connect);
      timer = setTimeout(connect, wait);
      wait = Math.min(wait * 2, LONGEST_WAIT);
    };
    for (const [type, handler] of Object.entries(handlers)) {
      source.addEventListener(type, (event) => {
        const id = Number(event.lastEventId);
        if (id && id <= last) return;
        if (id) last = id;
        handler(JSON.parse(event.data), id);
      });
    }
  }

  // A browser has six connections to a server: tabs that nobody looks at give theirs back.
  function onVisibility() {
    clearTimeout(hiddenTimer);
    if (document.hidden) {
      hiddenTimer = setTimeout(() => {
        source?.close();
        source = null;
        clearTimeout(timer);
      }, HIDDEN_GRACE);
    } else if (!source) connect();
  }

  function close() {
    ended = true;
    clearTimeout(timer);
    clearTimeout(hiddenTimer);
    source?.close();
    document.removeEventListener("visibilitychange", onVisibility);
    banner(url, false);
  }

  document.addEventListener("visibilitychange", onVisibility);
  addEventListener("pagehide", () => source?.close());
  addEventListener("pageshow", (event) => event.persisted && connect());
  connect();
  return { close, last: () => last };
}

/**
 * Asks again every `seconds` while the page is visible; `ask` returns false when it has seen
 * enough. Errors only make the lost-connection bar appear.
 */
export function poll(ask, seconds = 2) {
  let timer = 0;
  let ended = false;
  const name = {};
  async function turn() {
    let more = true;
    if (!document.hidden) {
      try {
        more = (await ask()) !== false;
        banner(name, false);
      } catch (error) {
        if (error.status && error.status < 500) more = false;
        else banner(name, true, turn);
      }
    }
    clearTimeout(timer);
    if (more && !ended) timer = setTimeout(turn, seconds * 1000);
  }
  timer = setTimeout(turn, seconds * 1000);
  return () => {
    ended = true;
    clearTimeout(timer);
    banner(name, false);
  };
}

const broken = new Map();

function banner(name, isLost, tryNow) {
  if (isLost) broken.set(name, tryNow);
  else if (!broken.delete(name)) return;
  const bar = document.getElementById("lost");
  if (!bar) return;
  const text = "Connection lost. What you see may be old; trying again by itself.";
  const show = broken.size > 0;
  if (bar.hidden === show) document.getElementById("lost-text").textContent = show ? text : "";
  bar.hidden = !show;
}

document.getElementById("lost-now")?.addEventListener("click", () => {
  for (const again of broken.values()) again?.();
});
