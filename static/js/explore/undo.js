// Undo and redo of thresholds. One gesture (a drag, a held key, one visit to a number field) is one
// step: everything recorded under the same gesture name until `close` belongs together.

const LIMIT = 200;

export class History {
  /** @param {import("./store.js").Store} store */
  constructor(store) {
    this.store = store;
    this.past = [];
    this.future = [];
    this.gesture = null;
    this.listeners = [];
  }

  onChange(listener) {
    this.listeners.push(listener);
  }

  announce() {
    for (const listener of this.listeners) listener(this);
  }

  /** Makes an edit. `gesture`: a name that stays open until `close`, or null for one step. */
  edit(change, gesture = null) {
    const before = new Map(this.store.levels);
    change();
    const same = [...before].every(([unit, level]) => this.store.levels.get(unit) === level);
    if (same) return;
    if (gesture === null || gesture !== this.gesture) {
      this.past.push(before);
      if (this.past.length > LIMIT) this.past.shift();
    }
    this.gesture = gesture;
    this.future = [];
    this.announce();
  }

  /** Ends the open gesture: the next edit is a new step. */
  close() {
    this.gesture = null;
  }

  move(from, to) {
    const levels = from.pop();
    if (!levels) return;
    to.push(new Map(this.store.levels));
    this.store.setLevels(levels);
    this.close();
    this.announce();
  }

  undo() {
    this.move(this.past, this.future);
  }

  redo() {
    this.move(this.future, this.past);
  }
}
