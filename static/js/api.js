// The JSON API. Every failure is an ApiError that says what is wrong and what to do.

export class ApiError extends Error {
  /**
   * @param {{status: number, title?: string, detail?: string, hint?: string, errors?: object[]}}
   *   problem
   */
  constructor(problem) {
    super(problem.detail || problem.title || "The server gave no reason.");
    this.name = "ApiError";
    this.status = problem.status;
    this.title = problem.title || "Something went wrong";
    this.detail = problem.detail || "";
    this.hint = problem.hint || "";
    this.errors = problem.errors || [];
  }
}

/** The problem in a response body, whatever its form. Also used for XMLHttpRequest uploads. */
export function problemFrom(status, text) {
  try {
    const body = JSON.parse(text);
    if (body && typeof body === "object") return new ApiError({ ...body, status });
  } catch {
    // Not JSON: a proxy or a crash answered.
  }
  return new ApiError({
    status,
    title: "The server could not answer",
    detail: `The server answered ${status} without a reason. Its log says more.`,
  });
}

export function unreachable() {
  return new ApiError({
    status: 0,
    title: "No connection",
    detail: "The server can't be reached. Check that it is still running, then try again.",
  });
}

/** A cookie that is gone means signing in again; the page comes back afterwards. */
export function signInAgain() {
  const here = location.pathname + location.search;
  location.assign(`/sign-in?next=${encodeURIComponent(here)}`);
}

async function call(method, path, body) {
  let response;
  try {
    response = await fetch(path, {
      method,
      credentials: "same-origin",
      headers: {
        Accept: "application/json",
        ...(body === undefined ? {} : { "Content-Type": "application/json" }),
      },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch {
    throw unreachable();
  }
  if (response.status === 401) signInAgain();
  if (!response.ok) throw problemFrom(response.status, await response.text());
  return response.status === 204 ? null : response.json();
}

export const get = (path) => call("GET", path);
export const post = (path, body = {}) => call("POST", path, body);
export const del = (path) => call("DELETE", path);
