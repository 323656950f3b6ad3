// The next line of a log that fits, or the one before: from the last match on while that is in sight, else from what is in sight.
const AROUND = 200;

export class LogSearch {
  #part;
  #window;
  #said;
  #running = null; // an AbortController
  #match = null; // { number, id }
  #exhausted = null; // what was not found from where one is: the same search begins at the log's other end

  // `part(query, signal)` asks the server; what came of it stands in the element `said`.
  constructor(part, window, said) {
    this.#part = part;
    this.#window = window;
    this.#said = said;
  }

  stop() {
    this.#running?.abort();
  }

  forget() {
    this.stop();
    this.#tell(null, "");
  }

  // The server looks at so many lines a time.
  async find(wanted, { forward, fromStart = false }) {
    this.stop();
    const running = (this.#running = new AbortController());
    const same = JSON.stringify([wanted, forward]);
    if (fromStart) this.#match = null;
    const start = fromStart || this.#exhausted === same ? {} : this.#start(forward);
    const isWhole = !Object.keys(start).length;
    this.#window.stay();
    this.#tell(this.#match, "Searching…");
    let part;
    try {
      part = await this.#found(wanted, forward, start, running.signal);
    } catch (problem) {
      if (problem.name !== "AbortError") this.#tell(this.#match, problem.message);
      return;
    }
    if (running.signal.aborted) return;
    this.#exhausted = part || isWhole ? null : same;
    if (!part) return this.#tell(null, isWhole ? "None" : `None ${forward ? "after this; the next search begins at the start" : "before this; the next search begins at the end"}`);
    const number = part.first_line + part.lines.findIndex((line) => line.id === part.match);
    this.#window.mark(wanted.text, number);
    this.#window.show(number, part);
    this.#tell({ number, id: part.match }, `Line ${number.toLocaleString("en")}`);
  }

  async #found(wanted, forward, start, signal) {
    let query = start, looked = 0;
    if (!forward && !start.before) {
      const last = await this.#last(wanted, signal);
      if (!last || last.match) return last;
      query = { before: last.id };
    }
    while (true) {
      const part = await this.#part({ ...wanted, ...query, limit: AROUND }, signal);
      if (part.match) return part;
      if (!part.resume) return null;
      looked += part.searched;
      query = { [forward ? "after" : "before"]: part.resume };
      this.#said.textContent = `Searching… ${looked.toLocaleString("en")} lines`;
    }
  }

  // What is before a line does not have the log's last one: that is looked at by itself.
  async #last(wanted, signal) {
    const { lines } = await this.#part({ limit: 2, chars: 1 }, signal);
    if (!lines.length) return null;
    const part = await this.#part({ ...wanted, after: lines.length > 1 ? lines[0].id : null, limit: AROUND }, signal);
    return part.match ? part : { id: lines.at(-1).id };
  }

  #start(forward) {
    const { first, last } = this.#window.seen;
    const isNear = this.#match && this.#match.number >= first && this.#match.number <= last;
    const here = isNear ? this.#match.id : this.#window.cursor(forward ? first - 1 : last + 1);
    return here ? { [forward ? "after" : "before"]: here } : {};
  }

  #tell(match, text) {
    this.#match = match;
    this.#said.textContent = text;
  }
}
