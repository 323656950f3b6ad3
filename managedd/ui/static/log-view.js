// <log-view run="FLOW RUN ID">: one run's log, live. The API's address is that of body[data-api].
//
// However long the log is, here are only the lines around what is looked at; they are fetched by their numbers. It follows the end while that is
// in sight, filters by level, searches on the server, and goes on behind its last line after a lost connection.
import { LogSource } from "./log-source.js";
import { LogSearch } from "./log-search.js";
import { LogWindow } from "./log-window.js";
import { controls } from "./log-controls.js";

const LAST_LINES = 300;
const TELL_MS = 15000;

class LogView extends HTMLElement {
  #source;
  #window;
  #parts;
  #cursor = null; // of the last line that we know of, whatever its level
  #level = null;
  #ended = null;
  #isLost = false;
  #refused = null; // why there is nothing more to come
  #search;
  #news = { lines: 0, errors: 0 };
  #telling;
  #epoch = 0; // another one whenever numbers mean other lines
  // The rest of the page has found the daemon again: it is not waited for any longer.
  #back = () => this.#isLost && !this.#ended && !this.#refused && this.#sync();

  connectedCallback() {
    this.#source = new LogSource(document.body.dataset.api, this.getAttribute("run"));
    this.#parts = controls(this.#source);
    this.replaceChildren(...this.#parts.elements);
    this.#window = new LogWindow(this.#parts.scroller, (number, count, signal) => this.#fetch(number, count, signal));
    this.#window.addEventListener("moved", () => this.#show());
    this.#search = new LogSearch((query, signal) => this.#part(query, signal), this.#window, this.#parts.found);
    this.#listen();
    this.#source.addEventListener("lines", (event) => this.#take(event.detail.lines));
    this.#source.addEventListener("open", () => this.#is({ lost: false }));
    this.#source.addEventListener("lost", () => this.#is({ lost: true }));
    this.#source.addEventListener("refused", (event) => this.#is({ refused: event.detail.message }));
    this.#source.addEventListener("ended", (event) => this.#is({ ended: event.detail.state }));
    document.addEventListener("page:back", this.#back);
    this.#sync();
  }

  disconnectedCallback() {
    document.removeEventListener("page:back", this.#back);
    this.#epoch++;
    this.#search.stop();
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
    this.#cursor = null;
    this.#search.forget();
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

  #is({ lost = this.#isLost, ended = this.#ended, refused = null }) {
    if (lost !== this.#isLost) this.#tell(lost ? "The connection to the log is lost." : "The log is connected again.");
    if (ended && !this.#ended) this.#tell(`The run has ended: ${ended.name}.`);
    this.#isLost = lost;
    this.#ended = ended;
    this.#refused = refused;
    this.#show();
  }

  #show() {
    const { total, seen, isFollowing } = this.#window;
    const { state, place, news, follow } = this.#parts;
    const number = (value) => value.toLocaleString("en");
    place.textContent = total ? `Lines ${number(seen.first)}–${number(seen.last)} of ${number(total)}` : "No lines yet";
    if (this.#ended) state.textContent = `The run has ended: ${this.#ended.name}`;
    else if (this.#refused) state.textContent = this.#refused;
    else if (this.#isLost) state.textContent = "Connection lost; trying again";
    else state.textContent = "Live";
    state.dataset.state = this.#ended ? "ended" : this.#refused || this.#isLost ? "lost" : "live";
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
      this.#find({ text: search.value }, { forward: true });
    });
    search.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || !event.shiftKey) return;
      event.preventDefault();
      this.#find({ text: search.value }, { forward: false });
    });
    search.addEventListener("input", () => {
      this.#search.forget();
      this.#window.mark(search.value, null);
    });
    previous.addEventListener("click", () => this.#find({ text: search.value }, { forward: false }));
    firstError.addEventListener("click", () => this.#find({ find_level: 40 }, { forward: true, fromStart: true }));
    nextError.addEventListener("click", () => this.#find({ find_level: 40 }, { forward: true }));
    level.addEventListener("change", () => {
      this.#level = level.value ? Number(level.value) : null;
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

  #find(wanted, how) {
    if (!wanted.text && !wanted.find_level) return this.#parts.search.focus();
    this.#search.find(wanted, how);
  }
}

customElements.define("log-view", LogView);
