// The lines of a log that are in memory, by their numbers; which more are asked for, one part at a time.
const MAX_KEPT = 1200;
export const PART = 300; // lines that are asked for at a time
const AGAIN_MS = 1000;

export class LogLines {
  #fetch;
  #changed;
  #kept = new Map(); // number → line
  #asking = null; // an AbortController

  // `fetch(number, count, signal)` gives { lines, first_line }, or null; `changed(isAsking)` is told when a part is asked for, and when it came or did not.
  constructor(fetch, changed) {
    this.#fetch = fetch;
    this.#changed = changed;
  }

  at(number) {
    return this.#kept.get(number);
  }

  // The first of these numbers whose line is not here; 0: all are.
  missing(first, last) {
    for (let number = first; number <= last; number++) if (!this.#kept.has(number)) return number;
    return 0;
  }

  // The lines from number `first` on are here; where they are too many, those go that are the farthest from `near`.
  keep(lines, first, near) {
    lines.forEach((line, at) => this.#kept.set(first + at, line));
    if (this.#kept.size <= MAX_KEPT) return;
    const numbers = [...this.#kept.keys()].sort((one, other) => Math.abs(one - near) - Math.abs(other - near));
    for (const number of numbers.slice(MAX_KEPT / 2)) this.#kept.delete(number);
  }

  clear() {
    this.close();
    this.#kept.clear();
  }

  close() {
    this.#asking?.abort();
    this.#asking = null;
  }

  // One request at a time; where one is when it is answered decides on the next. `near` says what is looked at by then.
  async ask(number, near) {
    if (this.#asking) return;
    const asking = (this.#asking = new AbortController());
    this.#changed(true);
    const part = await this.#fetch(number, PART, asking.signal).catch(() => null);
    if (this.#asking !== asking) return;
    if (!part) await new Promise((done) => setTimeout(done, AGAIN_MS));
    if (this.#asking !== asking) return;
    this.#asking = null;
    if (part) this.keep(part.lines, part.first_line, near(number));
    this.#changed(false);
  }
}
