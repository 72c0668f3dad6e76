// One file to the server, streamed by the browser, with progress in bytes and a way to stop.

import { problemFrom, signInAgain, unreachable } from "./api.js";

export class Cancelled extends Error {}

/**
 * @param {string} path "/api/models" or "/api/datasets"
 * @param {File} file
 * @param {Record<string, string>} fields what is said about it
 * @param {(sent: number, total: number) => void} onProgress bytes of the request body
 * @returns {{done: Promise<object>, cancel: () => void}} `done` gives the created resource; rejects
 *   with ApiError, or with Cancelled after `cancel`
 */
export function upload(path, file, fields, onProgress) {
  const request = new XMLHttpRequest();
  const done = new Promise((resolve, reject) => {
    request.open("POST", path);
    request.setRequestHeader("Accept", "application/json");
    request.upload.addEventListener("progress", (event) => onProgress(event.loaded, event.total));
    request.addEventListener("load", () => {
      if (request.status === 401) signInAgain();
      if (request.status >= 200 && request.status < 300) {
        resolve(JSON.parse(request.responseText));
      } else reject(problemFrom(request.status, request.responseText));
    });
    request.addEventListener("error", () => reject(unreachable()));
    request.addEventListener("abort", () => reject(new Cancelled()));
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.append(name, value);
    form.append("file", file, file.name);
    request.send(form);
  });
  return { done, cancel: () => request.abort() };
}

const MODEL_ENDINGS = ["pt2", "pt", "pth", "safetensors", "onnx", "ckpt", "bin", "pkl", "h5"];
const DATA_ENDINGS = ["npz", "npy", "zip", "csv", "tsv", "parquet"];

/**
 * Which slot a file belongs to when it is dropped beside both (.safetensors can be either: weights
 * are more usual). Files that the server will refuse are sorted too: its answer says
 * what to do instead.
 * @returns {"model" | "dataset" | null}
 */
export function kindOf(fileName) {
  const ending = fileName.toLowerCase().split(".").pop();
  if (MODEL_ENDINGS.includes(ending)) return "model";
  if (DATA_ENDINGS.includes(ending)) return "dataset";
  return null;
}

/**
 * "5, 10 and 12.5 %" in any usual notation to ascending fractions.
 * @returns {number[] | null} null when empty
 * @throws {Error} with a sentence for the person who typed it
 */
export function parseLevels(text) {
  const words = text
    .replaceAll("%", " ")
    .split(/[\s,;]+/)
    .filter(Boolean);
  if (!words.length) return null;
  const levels = words.map((word) => {
    const value = Number(word);
    if (!Number.isFinite(value))
      throw new Error(`“${word}” is not a number. Write levels like 10, 20, 30.`);
    if (value <= 0 || value > 100) throw new Error(`${word} % is not between 0 and 100 %.`);
    return Math.round(value * 1e4) / 1e6;
  });
  return [...new Set(levels)].sort((a, b) => a - b);
}
