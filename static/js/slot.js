// One half of the drop zone: empty, sending, importing, ready or failed.

import { get, post } from "./api.js";
import { h } from "./dom.js";
import { bytes, count, number, percent } from "./format.js";
import { fileForm, saidIn, taskRows } from "./slot-form.js";
import { toastError } from "./toast.js";
import { Cancelled, upload } from "./upload.js";
import { fieldsOf, formOf, speaksForItself } from "./upload-form.js";
import { tellApart } from "./words.js";

const ASK_EVERY = 600;

export class Slot {
  /**
   * @param {HTMLElement} element with a .slot-body
   * @param {{path: string, accept: string, formats: string, limit: number,
   *   onChange: () => void, onUploaded: () => void}} options
   */
  constructor(element, options) {
    this.element = element;
    this.body = element.querySelector(".slot-body");
    this.options = options;
    this.kind = element.dataset.kind;
    this.known = [];
    this.item = null;
    this.turn = 0;
    /** What was said about the last file: a second try starts from it. */
    this.said = {};
    this.picker = h("input", {
      type: "file",
      hidden: true,
      accept: options.accept,
      dataset: { picker: this.kind },
      "aria-label": this.kind === "model" ? "Model file" : "Data file",
      onchange: () => {
        const [file] = this.picker.files;
        if (file) this.take(file);
        this.picker.value = "";
      },
    });
    element.append(this.picker);
    this.state = "empty";
    this.render();
  }

  /** The id of what is chosen, once it is ready. */
  get id() {
    return this.item?.status === "ready" ? this.item.id : null;
  }

  get busy() {
    return this.state === "sending" || this.state === "importing";
  }

  /** What is already here and can be chosen instead of a file. */
  offer(items) {
    const ready = items.filter((item) => item.status === "ready");
    const same = ready.map((item) => item.id).join() === this.known.map((item) => item.id).join();
    this.known = ready;
    if (!same && (this.state === "empty" || this.state === "failed")) this.render();
  }

  choose(item) {
    this.turn += 1;
    this.item = item;
    if (item.status === "importing") this.watch(item);
    else this.showItem();
  }

  /** A file that was chosen or dropped: sent at once, or asked about first. */
  take(file) {
    this.running?.cancel();
    this.file = null;
    if (file.size > this.options.limit) {
      this.showFailed(file.name, {
        message: `${file.name} has ${bytes(file.size)}; the limit is ${bytes(this.options.limit)}.`,
        hint: "Raise PRUNESCOPE_MAX_UPLOAD_BYTES, or bring a smaller file.",
      });
      return;
    }
    this.file = file;
    const form = formOf(this.kind, file.name);
    if (this.state === "empty" && this.body.querySelector("select[name=task]")) {
      this.said = saidIn(this.body);
    }
    if (speaksForItself(form)) this.send(file, form ? fieldsOf(form, this.said) : {});
    else this.ask(file);
  }

  /** The questions about a file; also the way to correct what an import did not like. */
  async ask(file) {
    this.turn += 1;
    const turn = this.turn;
    this.item = null;
    const form = await fileForm({
      kind: this.kind,
      file,
      said: this.said,
      onSend: (fields, said) => {
        this.said = said;
        this.send(file, fields);
      },
      onCancel: () => this.showEmpty(),
    });
    if (turn !== this.turn) return;
    this.set("asking", h("p", { class: "name" }, file.name), form);
    form.querySelector("input, select")?.focus({ preventScroll: true });
  }

  async send(file, fields = {}) {
    this.running?.cancel();
    this.turn += 1;
    const turn = this.turn;
    this.item = null;
    const bar = h("progress", { max: 1, value: 0, "aria-label": `Sending ${file.name}` });
    const words = h("span", { class: "cap" }, `${bytes(0)} of ${bytes(file.size)}`);
    this.running = upload(this.options.path, file, fields, (sent, total) => {
      const share = total ? sent / total : 0;
      bar.value = share;
      words.textContent =
        share >= 1
          ? "arrived, being stored"
          : `${bytes(share * file.size)} of ${bytes(file.size)}, ${percent(share, 0)}`;
    });
    this.set(
      "sending",
      h("p", { class: "name" }, file.name),
      bar,
      h(
        "div",
        { class: "row sb", style: { width: "100%" } },
        words,
        h(
          "button",
          { class: "btn small", type: "button", onclick: () => this.running?.cancel() },
          "Cancel",
        ),
      ),
    );
    try {
      const item = await this.running.done;
      this.options.onUploaded();
      if (turn === this.turn) await this.watch(item);
    } catch (error) {
      if (turn !== this.turn) return;
      if (error instanceof Cancelled) this.showEmpty();
      else this.showFailed(file.name, error);
    } finally {
      if (turn === this.turn) this.running = null;
    }
  }

  /** Asks until the import has ended one way or the other. */
  async watch(item) {
    const turn = this.turn;
    let now = item;
    this.set(
      "importing",
      h("p", { class: "name" }, item.name),
      h("progress", { "aria-label": `Importing ${item.name}` }),
      h(
        "div",
        { class: "row sb", style: { width: "100%" } },
        h("span", { class: "cap", role: "status" }, "being read and checked"),
        h(
          "button",
          { class: "btn small", type: "button", onclick: () => this.give(item) },
          "Cancel",
        ),
      ),
    );
    while (turn === this.turn && now.status === "importing") {
      await new Promise((resolve) => setTimeout(resolve, ASK_EVERY));
      try {
        now = await get(`${this.options.path}/${item.id}`);
      } catch (error) {
        if (error.status && error.status < 500) {
          if (turn === this.turn) this.showFailed(item.name, error);
          return;
        }
      }
    }
    if (turn !== this.turn) return;
    this.item = now;
    this.options.onUploaded();
    this.showItem();
  }

  /** Stops an import that is waiting or under way. */
  async give(item) {
    try {
      await post(`/api/jobs/${item.job_id}/cancel`);
    } catch (error) {
      // It has ended in the meantime; then its end is what the slot shows.
      if (error.status !== 409) toastError(error);
      return;
    }
    this.showEmpty();
    this.options.onUploaded();
  }

  showItem() {
    const { item } = this;
    const page = `/${this.kind === "model" ? "models" : "datasets"}/${item.id}`;
    if (item.status === "failed") {
      this.showFailed(item.name, item.error ?? { message: "It could not be read." }, page);
      return;
    }
    this.set(
      "ready",
      h("p", { class: "name" }, h("a", { href: page }, item.name)),
      h("p", { class: "cap" }, this.kind === "model" ? modelFacts(item) : datasetFacts(item)),
      h(
        "div",
        { class: "slot-acts" },
        h(
          "button",
          { class: "btn small", type: "button", onclick: () => this.showEmpty() },
          "Another one",
        ),
      ),
    );
  }

  showFailed(name, error, page = null) {
    this.item = null;
    this.failure = { name, error, page };
    this.state = "failed";
    this.render();
    this.options.onChange();
  }

  showEmpty() {
    this.turn += 1;
    this.item = null;
    this.file = null;
    this.said = {};
    this.state = "empty";
    this.render();
    this.options.onChange();
  }

  set(state, ...content) {
    this.state = state;
    this.element.classList.toggle("ready", state === "ready");
    this.element.dataset.state = state;
    this.body.replaceChildren(...content);
    this.options.onChange();
  }

  render() {
    const { formats, limit } = this.options;
    const failure = this.state === "failed" ? this.failure : null;
    this.element.classList.remove("ready");
    this.element.dataset.state = this.state;
    const what = this.kind === "model" ? "model" : "data file";
    // Only what can be said about it can be corrected, and only while the file is at hand.
    const again = failure && this.file && formOf(this.kind, this.file.name) ? this.file : null;
    this.body.replaceChildren(
      ...(failure
        ? [
            h("p", { class: "name" }, failure.name),
            h("p", { class: "wrong", role: "alert" }, failure.error.message),
            failure.error.hint && !failure.error.message.includes(failure.error.hint)
              ? h("p", { class: "cap" }, failure.error.hint)
              : "",
            failure.page ? h("a", { class: "cap", href: failure.page }, "More on its page") : "",
          ]
        : [
            h(
              "p",
              { class: "muted" },
              `${formats}${Number.isFinite(limit) ? bytes(limit) : "any size"}`,
            ),
          ]),
      h(
        "div",
        { class: "slot-acts" },
        h(
          "button",
          { class: "btn", type: "button", onclick: () => this.picker.click() },
          "Choose file…",
          h("span", { class: "sr" }, ` ${what}`),
        ),
        again
          ? h(
              "button",
              { class: "btn", type: "button", onclick: () => this.ask(again) },
              "Correct and upload again",
            )
          : "",
        this.known.length ? this.select() : "",
      ),
      this.kind === "dataset" && !failure
        ? h(
            "details",
            { class: "say-part" },
            h("summary", {}, "Task: classification, or another"),
            h("div", { class: "say-form" }, taskRows(this.said)),
          )
        : "",
    );
  }

  select() {
    return h(
      "select",
      {
        "aria-label": this.kind === "model" ? "Or a model that is here" : "Or data that is here",
        onchange: (event) => {
          const found = this.known.find((item) => String(item.id) === event.target.value);
          if (found) this.choose(found);
        },
      },
      h("option", { value: "" }, "or from here…"),
      tellApart(this.known).map((item) => h("option", { value: item.id }, item.told)),
    );
  }
}

function modelFacts(model) {
  if (model.kind === "weights") return `weights only, ${bytes(model.bytes)}: no network, no curves`;
  return `${count(model.parameters)} parameters, ${count(model.macs)} MACs, ${bytes(model.bytes)}`;
}

function datasetFacts(dataset) {
  const shape = (dataset.input_shape ?? []).join(" × ");
  const sizes = Object.entries(dataset.splits ?? {})
    .filter(([, size]) => size > 0)
    .map(([name, size]) => `${name} ${number(size)}`);
  const classes = dataset.classes ? `; ${dataset.classes} classes` : `; ${dataset.task}`;
  return `${sizes.join(", ")}; input ${shape}${classes}`;
}
