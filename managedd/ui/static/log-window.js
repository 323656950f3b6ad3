// The lines around what is looked at, in a space as high as the whole log would be: the scroll bar tells the place, and a few hundred rows are there.
//
// Rows are as high as their text, so the space's height is a guess: while one scrolls through the rows their places are exact, and where they are
// in the space is set right when they come to one of its ends.
import { LogLines, PART } from "./log-lines.js";
import { explain, widen } from "./log-row.js";
import { LogRows, MAX_ROWS } from "./log-rows.js";

const STEP = 100; // rows that are added at a time
const FOLLOWED = 150; // rows while the end is followed
const MARGIN_PX = 900; // of rows that are there beyond what is seen
const MAX_SPACE_PX = 12_000_000; // browsers draw no more than some thirty millions
const END_PX = 4;

export class LogWindow extends EventTarget {
  // Event: `moved`.
  total = 0;
  isFollowing = true;
  #scroller;
  #space;
  #lines;
  #rows;
  #top = 0; // of the rows, in the space
  #rowPx = 20;
  #scrolled = 0;
  #atSeen = 0; // the total when the end was seen last
  #pending = 0;
  #sized;

  constructor(scroller, fetch) {
    super();
    this.#scroller = scroller;
    this.#lines = new LogLines(fetch, (isAsking) => this.#asks(isAsking));
    this.#rows = new LogRows((number) => this.#lines.at(number));
    this.#space = document.createElement("div");
    this.#space.className = "log-space";
    this.#space.append(this.#rows.element);
    scroller.replaceChildren(this.#space);
    scroller.addEventListener("scroll", () => this.#later(), { passive: true });
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && this.#leaveEnd(), { passive: true });
    scroller.addEventListener("keydown", (event) => ["PageUp", "ArrowUp", "Home"].includes(event.key) && this.#leaveEnd());
    scroller.addEventListener("mouseover", (event) => event.target.localName === "time" && explain(event.target));
    this.#sized = new ResizeObserver(() => this.#later());
    this.#sized.observe(scroller);
  }

  close() {
    this.#sized.disconnect();
    cancelAnimationFrame(this.#pending);
    this.#lines.close();
  }

  get seen() {
    const from = this.#scroller.scrollTop, to = from + this.#scroller.clientHeight;
    return { first: this.#rows.numberAt(from - this.#top), last: this.#rows.numberAt(to - 1 - this.#top) };
  }

  // How many lines came since the end was seen.
  get fresh() {
    return this.total - this.#atSeen;
  }

  cursor(number) {
    return this.#rows.row(number)?.cursor ?? this.#lines.at(number)?.id;
  }

  reset() {
    this.#lines.clear();
    this.#scroller.removeAttribute("aria-busy");
    this.#rows.forget();
    this.total = this.#atSeen = 0;
    this.isFollowing = true;
    this.#later();
  }

  // The log has `total` lines now; these are some of them, from number `first` on.
  grow(total, lines, first) {
    const isFirst = this.total === 0;
    this.total = total;
    if (isFirst) this.#atSeen = total;
    if (this.isFollowing || first + lines.length - 1 < total || isFirst) this.#keep(lines, first);
    else if (first === this.#rows.last + 1) this.#keep(lines.slice(0, STEP), first);
    this.#later();
  }

  toEnd() {
    this.isFollowing = true;
    this.#later();
    this.#moved();
  }

  stay() {
    this.#leaveEnd();
    this.#moved();
  }

  // The line of that number is in the middle; `part` has it and what is around.
  show(number, part) {
    this.isFollowing = false;
    this.#keep(part.lines, part.first_line, number);
    const first = Math.max(part.first_line, number - STEP), last = Math.min(part.first_line + part.lines.length - 1, number + STEP);
    this.#replace(first, last);
    const row = this.#rows.row(number);
    const middle = row.offsetTop + row.offsetHeight / 2;
    this.#top = this.#ideal(number) - row.offsetTop;
    this.#settle(this.#top + middle - this.#scroller.clientHeight / 2);
    this.#later();
  }

  // Where the text stands, and which line was found.
  mark(text, number) {
    this.#rows.mark(text, number);
  }

  wrap() {
    const { first } = this.seen;
    const isOn = this.#scroller.classList.toggle("wraps");
    const row = this.#rows.row(first);
    this.#guess();
    if (row && !this.isFollowing) {
      this.#top = this.#ideal(first) - row.offsetTop;
      this.#settle(this.#ideal(first));
    }
    this.#later();
    return isOn;
  }

  async widen(number, whole) {
    const part = await whole(number).catch(() => null);
    const row = this.#rows.row(number);
    if (!row || part?.lines[0]?.id !== row.cursor) return;
    this.#leaveEnd();
    widen(row, part.lines[0]);
    this.#rows.paint();
    this.#later();
  }

  // --- each frame ---

  #later() {
    this.#pending ||= requestAnimationFrame(() => {
      this.#pending = 0;
      this.#frame();
    });
  }

  #frame() {
    const top = this.#scroller.scrollTop;
    if (this.isFollowing && top < this.#scrolled - END_PX && !this.#isAtEnd()) this.isFollowing = false;
    else if (!this.isFollowing && top > this.#scrolled && this.#isAtEnd()) this.isFollowing = true;
    if (this.isFollowing) this.#followEnd();
    else this.#followEyes();
    this.#scrolled = this.#scroller.scrollTop;
    if (this.#isAtEnd()) this.#atSeen = this.total;
    this.#moved();
  }

  #followEnd() {
    if (!this.total) return this.#settle(0);
    if (this.#rows.last !== this.total || this.#rows.isEmpty) {
      const from = Math.max(1, this.total - FOLLOWED + 1);
      const missing = this.#lines.missing(from, this.total);
      if (missing) return this.#ask(Math.max(1, this.total - PART + 1));
      if (this.#rows.last >= from - 1 && !this.#rows.isEmpty && this.#rows.last < this.total) {
        this.#rows.append(this.total);
        this.#trimTop(FOLLOWED);
      } else {
        this.#replace(from, this.total);
      }
    }
    this.#settle(Infinity);
  }

  #followEyes() {
    if (!this.total) return;
    const top = this.#scroller.scrollTop, bottom = top + this.#scroller.clientHeight;
    const rowsBottom = this.#top + this.#rows.height;
    if (this.#rows.isEmpty || top > rowsBottom || bottom < this.#top) return this.#jump(top);
    if (rowsBottom - bottom < MARGIN_PX && this.#rows.last < this.total) this.#extendDown();
    else if (top - this.#top < MARGIN_PX && this.#rows.first > 1) this.#extendUp();
    this.#settle(this.#scroller.scrollTop);
  }

  // Somewhere else: by the scroll bar, or by Home or End.
  #jump(top) {
    const { clientHeight, scrollHeight } = this.#scroller;
    const share = Math.min(1, top / Math.max(1, scrollHeight - clientHeight));
    const visible = Math.ceil(clientHeight / this.#rowPx);
    const number = Math.max(1, Math.round(1 + share * (this.total - visible)));
    const first = Math.max(1, number - STEP), last = Math.min(this.total, number + STEP);
    if (this.#lines.missing(first, last)) return this.#ask(Math.max(1, number - PART / 2));
    this.#replace(first, last);
    if (share === 1 && last === this.total) {
      this.isFollowing = true;
      return this.#settle(Infinity);
    }
    this.#top = top - this.#rows.row(number).offsetTop;
    this.#settle(top);
  }

  #extendDown() {
    const last = Math.min(this.#rows.last + STEP, this.total);
    const missing = this.#lines.missing(this.#rows.last + 1, last);
    if (missing) this.#ask(missing);
    if (missing === this.#rows.last + 1) return;
    this.#rows.append(missing ? missing - 1 : last);
    this.#trimTop();
  }

  #extendUp() {
    const first = Math.max(1, this.#rows.first - STEP);
    if (this.#lines.missing(first, this.#rows.first - 1)) return this.#ask(Math.max(1, this.#rows.first - PART));
    const before = this.#rows.height;
    this.#rows.prepend(first);
    this.#top -= this.#rows.height - before;
    this.#rows.trimBottom(MAX_ROWS);
    this.#rows.paint();
  }

  #trimTop(most = MAX_ROWS) {
    const before = this.#rows.height;
    this.#rows.trimTop(most);
    this.#top += before - this.#rows.height;
  }

  #replace(first, last) {
    this.#rows.replace(first, last);
    this.#guess();
  }

  // --- places ---

  get #idealPx() {
    return Math.min(this.total * this.#rowPx, MAX_SPACE_PX);
  }

  #ideal(number) {
    return ((number - 1) / Math.max(1, this.total)) * this.#idealPx;
  }

  #guess() {
    if (!this.#rows.isEmpty) this.#rowPx = Math.min(200, Math.max(16, this.#rows.height / this.#rows.count));
  }

  // The rows are where they are in the space, which has room for what is before and behind them; what is seen at `top` stays in sight.
  #settle(top) {
    const height = this.#rows.height;
    let shift = 0;
    if (this.#rows.first <= 1) shift = -this.#top;
    else if (this.#top <= MARGIN_PX) shift = Math.max(this.#ideal(this.#rows.first), 2 * MARGIN_PX) - this.#top;
    if (this.#rows.last >= this.total && top === Infinity && this.#rows.first > 1) shift = Math.max(0, this.#idealPx - height, 2 * MARGIN_PX) - this.#top;
    this.#top += shift;
    const behind = this.total - this.#rows.last;
    const room = behind > 0 ? Math.max(this.#idealPx - this.#top - height, Math.min(behind, STEP) * this.#rowPx) : 0;
    const space = `${this.#top + height + room}px`, place = `${this.#top}px`;
    if (this.#space.style.height !== space) this.#space.style.height = space;
    if (this.#rows.element.style.top !== place) this.#rows.element.style.top = place;
    const wanted = top === Infinity ? this.#scroller.scrollHeight : top + shift;
    if (Math.abs(this.#scroller.scrollTop - wanted) >= 1) this.#scroller.scrollTop = wanted;
    this.#scrolled = this.#scroller.scrollTop;
  }

  #isAtEnd() {
    const { scrollTop, clientHeight } = this.#scroller;
    return this.#rows.last >= this.total && scrollTop + clientHeight >= this.#top + this.#rows.height - END_PX;
  }

  #leaveEnd() {
    if (!this.isFollowing) return;
    this.isFollowing = false;
    this.#atSeen = this.total;
  }

  #moved() {
    this.dispatchEvent(new CustomEvent("moved"));
  }

  // --- lines ---

  // The farthest from what is looked at go.
  #keep(lines, first, around = first) {
    this.#lines.keep(lines, first, this.#near(around));
  }

  #near(number) {
    return this.isFollowing ? this.total : number;
  }

  #ask(number) {
    this.#lines.ask(number, (asked) => this.#near(asked));
  }

  #asks(isAsking) {
    if (isAsking) return this.#scroller.setAttribute("aria-busy", "true");
    this.#scroller.removeAttribute("aria-busy");
    this.#later();
  }
}
