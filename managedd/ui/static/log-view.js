// <log-view run="FLOW RUN ID">: one run's log, live. The API's address is that of body[data-api].
//
// However long the log is, here are only the lines around what is looked at; they are fetched by their numbers. It follows the end while that is
// in sight, filters by level, searches on the server, and goes on behind its last line after a lost connection.
import { LogSource } from "./log-source.js";
import { LogWindow } from "./log-window.js";
import { controls } from "./log-controls.js";

const LAST_LINES = 300;
const AROUND = 200;
const TELL_MS = 15000;

class LogView extends HTMLElement {
  #source;
  #window;
  #parts;
  #cursor = null; // of the last line that we know of, whatever its level
  #level = null;
  #ended = null;
  #isLost = false;
  #search = null; // the one under way
  #match = null; // { number, id }
  #exhausted = null; // what was not found from where one is: the same search begins at the log's other end
  #news = { lines: 0, errors: 0 };
  #telling;
  #epoch = 0; // another one whenever numbers mean other lines

  connectedCallback() {
    this.#source = new LogSource(document.body.dataset.api, this.getAttribute("run"));
    this.#parts = controls(this.#source);
    this.replaceChildren(...this.#parts.elements);
    this.#window = new LogWindow(this.#parts.scroller, (number, count, signal) => this.#fetch(number, count, signal));
    this.#window.addEventListener("moved", () => this.#show());
    this.#listen();
    this.#source.addEventListener("lines", (event) => this.#take(event.detail.lines));
    this.#source.addEventListener("open", () => this.#is({ lost: false }));
    this.#source.addEventListener("lost", () => this.#is({ lost: true }));
    this.#source.addEventListener("ended", (event) => this.#is({ ended: event.detail.state }));
    this.#sync();
  }

  disconnectedCallback() {
    this.#epoch++;
    this.#search?.abort();
    clearTimeout(this.#telling);
    this.#telling = undefined;
    this.#source.stop();
    this.#window.close();
  }

  // --- what there is ---

  // What we do not know yet is asked for, and then what comes is followed.
  async #sync() {
    const epoch = ++this.#epoch;
    let part, cursor = this.#cursor;
    try {
      part = await this.#part(cursor ? { after: cursor, limit: 500 } : { limit: LAST_LINES });
      if (cursor && part.more_after) part = await this.#part({ limit: LAST_LINES });
      while (!part.lines.length && !cursor) {
        // None of this level yet: where the log ends now, and whether one came before that was asked.
        const end = await this.#source.part({ limit: 1, chars: 1 });
        if (!end.lines.length) break;
        part = await this.#part({ limit: LAST_LINES });
        cursor = end.lines[0].id;
      }
    } catch (problem) {
      if (epoch === this.#epoch) this.#failed(problem, cursor);
      return;
    }
    if (epoch !== this.#epoch) return;
    const { lines, first_line: first, total } = part;
    if (total < this.#window.total) this.#window.reset();
    this.#cursor = lines.at(-1)?.id ?? cursor;
    this.#window.grow(total, lines, first);
    this.#show();
    this.#source.follow(this.#cursor, () => this.#sync());
  }

  #failed(problem, cursor) {
    if (problem.status === 401) return location.reload();
    if (problem.status === 422 && cursor) {
      // Our last line is there no more: a log that was removed, or a store from a backup.
      this.#begin();
    } else if (problem.status === 0 || problem.status >= 500 || problem.status === 429) {
      this.#source.lost(() => this.#sync());
    } else {
      this.#parts.state.textContent = problem.message;
    }
  }

  #begin() {
    this.#source.stop();
    this.#cursor = this.#match = null;
    this.#window.reset();
    this.#sync();
  }

  #part(query, signal) {
    return this.#source.part({ level: this.#level, ...query }, signal);
  }

  async #fetch(number, count, signal) {
    const epoch = this.#epoch;
    const part = await this.#part({ line: number, limit: count }, signal);
    return epoch === this.#epoch ? part : null;
  }

  #take(lines) {
    this.#cursor = lines.at(-1).id;
    const admitted = this.#level === null ? lines : lines.filter((line) => line.level >= this.#level);
    if (!admitted.length) return;
    this.#news.lines += admitted.length;
    this.#news.errors += admitted.filter((line) => line.level >= 40).length;
    const total = this.#window.total;
    this.#window.grow(total + admitted.length, admitted, total + 1);
    this.#show();
    this.#telling ??= setTimeout(() => this.#tellNews(), TELL_MS);
  }

  // --- what is said ---

  #is({ lost = this.#isLost, ended = this.#ended }) {
    if (lost !== this.#isLost) this.#tell(lost ? "The connection to the log is lost." : "The log is connected again.");
    if (ended && !this.#ended) this.#tell(`The run has ended: ${ended.name}.`);
    this.#isLost = lost;
    this.#ended = ended;
    this.#show();
  }

  #show() {
    const { total, seen, isFollowing } = this.#window;
    const { state, place, news, follow } = this.#parts;
    const number = (value) => value.toLocaleString("en");
    place.textContent = total ? `Lines ${number(seen.first)}–${number(seen.last)} of ${number(total)}` : "No lines yet";
    if (this.#ended) state.textContent = `The run has ended: ${this.#ended.name}`;
    else if (this.#isLost) state.textContent = "Connection lost; trying again";
    else state.textContent = "Live";
    state.dataset.state = this.#ended ? "ended" : this.#isLost ? "lost" : "live";
    const fresh = this.#window.fresh;
    news.hidden = isFollowing || !fresh;
    if (fresh) news.textContent = `${number(fresh)} new ${fresh === 1 ? "line" : "lines"} ↓`;
    follow.setAttribute("aria-pressed", isFollowing);
  }

  // Not each line is read out: how many came is, now and then.
  #tellNews() {
    this.#telling = undefined;
    const { lines, errors } = this.#news;
    this.#news = { lines: 0, errors: 0 };
    this.#tell(`${lines} new ${lines === 1 ? "line" : "lines"} in the log${errors ? `, ${errors} of them errors` : ""}.`);
  }

  #tell(text) {
    this.#parts.told.textContent = text;
  }

  // --- what a person does ---

  #listen() {
    const { search, form, previous, level, firstError, nextError, wrap, follow, news, scroller } = this.#parts;
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#find({ text: search.value }, true);
    });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !event.shiftKey) return;
      event.preventDefault();
      this.#find({ text: search.value }, false);
    });
    search.addEventListener("input", () => {
      this.#search?.abort();
      this.#found(null, "");
      this.#window.mark(search.value, null);
    });
    previous.addEventListener("click", () => this.#find({ text: search.value }, false));
    firstError.addEventListener("click", () => {
      this.#match = null;
      this.#find({ find_level: 40 }, true, true);
    });
    nextError.addEventListener("click", () => this.#find({ find_level: 40 }, true));
    level.addEventListener("change", () => {
      this.#level = level.value ? Number(level.value) : null;
      this.#search?.abort();
      this.#begin();
    });
    wrap.addEventListener("click", () => wrap.setAttribute("aria-pressed", this.#window.wrap()));
    follow.addEventListener("click", () => (this.#window.isFollowing ? this.#window.stay() : this.#window.toEnd()));
    news.addEventListener("click", () => {
      this.#window.toEnd();
      scroller.focus();
    });
    scroller.addEventListener("click", (event) => {
      const button = event.target.closest("button[data-line]");
      if (button) this.#window.widen(Number(button.dataset.line), (number) => this.#part({ line: number, limit: 1, chars: 200_000 }));
    });
  }

  // The next line that fits, or the one before, from the last match on, or from what is in sight. The server looks at so many lines a time.
  async #find(wanted, forward, fromStart = false) {
    if (!wanted.text && !wanted.find_level) return this.#parts.search.focus();
    this.#search?.abort();
    const search = (this.#search = new AbortController());
    const same = JSON.stringify([wanted, forward]);
    const start = this.#start(forward, fromStart || this.#exhausted === same);
    let query = start, looked = 0, part;
    this.#window.stay();
    this.#found(this.#match, "Searching…");
    try {
      while (true) {
        part = await this.#part({ ...wanted, ...query, limit: AROUND }, search.signal);
        looked += part.searched;
        if (part.match || !part.resume) break;
        query = { [forward ? "after" : "before"]: part.resume };
        this.#parts.found.textContent = `Searching… ${looked.toLocaleString("en")} lines`;
      }
    } catch (problem) {
      if (problem.name !== "AbortError") this.#found(this.#match, problem.message);
      return;
    }
    if (search.signal.aborted) return;
    if (!part.match) {
      this.#exhausted = Object.keys(start).length > 0 ? same : null;
      return this.#found(null, this.#exhausted ? `None ${forward ? "after this; the next search begins at the start" : "before this; the next search begins at the end"}` : "None");
    }
    this.#exhausted = null;
    const number = part.first_line + part.lines.findIndex((line) => line.id === part.match);
    this.#window.mark(wanted.text, number);
    this.#window.show(number, part);
    this.#found({ number, id: part.match }, `Line ${number.toLocaleString("en")}`);
  }

  #start(forward, anew) {
    const end = !forward && this.#cursor ? { before: this.#cursor } : {};
    if (anew) return end;
    const { first, last } = this.#window.seen;
    const isNear = this.#match && this.#match.number >= first && this.#match.number <= last;
    const here = isNear ? this.#match.id : this.#window.cursor(forward ? first - 1 : first);
    return here ? { [forward ? "after" : "before"]: here } : end;
  }

  #found(match, text) {
    this.#match = match;
    this.#parts.found.textContent = text;
  }
}

customElements.define("log-view", LogView);
