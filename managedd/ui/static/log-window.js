// The lines around what is looked at, in a space as high as the whole log would be: the scroll bar tells the place, and a few hundred rows are there.
//
// Rows are as high as their text, so the space's height is a guess: while one scrolls through the rows their places are exact, and where they are
// in the space is set right when they come to one of its ends.
import { blankRow, explain, fillRow, widen } from "./log-row.js";
import { markText } from "./log-marks.js";

const MAX_ROWS = 400;
const MAX_KEPT = 1200; // lines in memory
const PAGE = 300;
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
  #rows;
  #fetch;
  #kept = new Map(); // number → line
  #spare = []; // rows that nobody sees
  #first = 1; // the numbers of the rows that are there
  #last = 0;
  #top = 0; // of the rows, in the space
  #rowPx = 20;
  #scrolled = 0;
  #atSeen = 0; // the total when the end was seen last
  #pending = 0;
  #fetching = null; // { abort, wanted }
  #text = "";
  #match = null;

  constructor(scroller, fetch) {
    super();
    this.#scroller = scroller;
    this.#fetch = fetch;
    this.#rows = document.createElement("div");
    this.#rows.className = "log-rows";
    this.#space = document.createElement("div");
    this.#space.className = "log-space";
    this.#space.append(this.#rows);
    scroller.replaceChildren(this.#space);
    scroller.addEventListener("scroll", () => this.#later(), { passive: true });
    scroller.addEventListener("wheel", (event) => event.deltaY < 0 && this.#leaveEnd(), { passive: true });
    scroller.addEventListener("keydown", (event) => ["PageUp", "ArrowUp", "Home"].includes(event.key) && this.#leaveEnd());
    scroller.addEventListener("mouseover", (event) => event.target.localName === "time" && explain(event.target));
    this.#sized = new ResizeObserver(() => this.#later());
    this.#sized.observe(scroller);
  }

  #sized;

  close() {
    this.#sized.disconnect();
    cancelAnimationFrame(this.#pending);
    this.#fetching?.abort.abort();
  }

  get seen() {
    const from = this.#scroller.scrollTop, to = from + this.#scroller.clientHeight;
    return { first: this.#numberAt(from), last: this.#numberAt(to - 1) };
  }

  // How many lines came since the end was seen.
  get fresh() {
    return this.total - this.#atSeen;
  }

  cursor(number) {
    return this.#row(number)?.cursor ?? this.#kept.get(number)?.id;
  }

  reset() {
    this.#fetching?.abort.abort();
    this.#fetching = null;
    this.#kept.clear();
    this.#clear();
    this.total = this.#atSeen = 0;
    this.#match = null;
    this.isFollowing = true;
    this.#later();
  }

  // The log has `total` lines now; these are some of them, from number `first` on.
  grow(total, lines, first) {
    const isFirst = this.total === 0;
    this.total = total;
    if (isFirst) this.#atSeen = total;
    if (this.isFollowing || first + lines.length - 1 < total || isFirst) this.#keep(lines, first);
    else if (first === this.#last + 1) this.#keep(lines.slice(0, STEP), first);
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
    const row = this.#row(number);
    const middle = row.offsetTop + row.offsetHeight / 2;
    this.#top = this.#ideal(number) - row.offsetTop;
    this.#settle(this.#top + middle - this.#scroller.clientHeight / 2);
    this.#later();
  }

  // Where the text stands, and which line was found.
  mark(text, number) {
    this.#text = text ?? "";
    this.#match = number;
    this.#paint();
  }

  wrap() {
    const { first } = this.seen;
    const isOn = this.#scroller.classList.toggle("wraps");
    const row = this.#row(first);
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
    const row = this.#row(number);
    if (!row || part?.lines[0]?.id !== row.cursor) return;
    this.#leaveEnd();
    widen(row, part.lines[0]);
    this.#paint();
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
    if (this.#last !== this.total || this.#first > this.#last) {
      const from = Math.max(1, this.total - FOLLOWED + 1);
      const missing = this.#missing(from, this.total);
      if (missing) return this.#ask(Math.max(1, this.total - PAGE + 1));
      if (this.#last >= from - 1 && this.#last >= this.#first && this.#last < this.total) {
        this.#append(this.#last + 1, this.total);
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
    const rowsBottom = this.#top + this.#rows.offsetHeight;
    if (this.#first > this.#last || top > rowsBottom || bottom < this.#top) return this.#jump(top);
    if (rowsBottom - bottom < MARGIN_PX && this.#last < this.total) this.#extendDown();
    else if (top - this.#top < MARGIN_PX && this.#first > 1) this.#extendUp();
    this.#settle(this.#scroller.scrollTop);
  }

  // Somewhere else: by the scroll bar, or by Home or End.
  #jump(top) {
    const { clientHeight, scrollHeight } = this.#scroller;
    const share = Math.min(1, top / Math.max(1, scrollHeight - clientHeight));
    const visible = Math.ceil(clientHeight / this.#rowPx);
    const number = Math.max(1, Math.round(1 + share * (this.total - visible)));
    const first = Math.max(1, number - STEP), last = Math.min(this.total, number + STEP);
    if (this.#missing(first, last)) return this.#ask(Math.max(1, number - PAGE / 2));
    this.#replace(first, last);
    if (share === 1 && last === this.total) {
      this.isFollowing = true;
      return this.#settle(Infinity);
    }
    this.#top = top - this.#row(number).offsetTop;
    this.#settle(top);
  }

  #extendDown() {
    const last = Math.min(this.#last + STEP, this.total);
    const missing = this.#missing(this.#last + 1, last);
    if (missing) this.#ask(missing);
    if (missing === this.#last + 1) return;
    this.#append(this.#last + 1, missing ? missing - 1 : last);
    this.#trimTop();
  }

  #extendUp() {
    const first = Math.max(1, this.#first - STEP);
    if (this.#missing(first, this.#first - 1)) return this.#ask(Math.max(1, this.#first - PAGE));
    const before = this.#rows.offsetHeight;
    const added = [];
    for (let number = first; number < this.#first; number++) added.push(this.#make(number));
    this.#rows.prepend(...added);
    this.#top -= this.#rows.offsetHeight - before;
    this.#first = first;
    while (this.#last - this.#first + 1 > MAX_ROWS && !this.#isSelected(this.#rows.lastChild)) {
      this.#drop(this.#rows.lastChild);
      this.#last--;
    }
    this.#paint();
  }

  #trimTop(most = MAX_ROWS) {
    const before = this.#rows.offsetHeight;
    while (this.#last - this.#first + 1 > most && !this.#isSelected(this.#rows.firstChild)) {
      this.#drop(this.#rows.firstChild);
      this.#first++;
    }
    this.#top += before - this.#rows.offsetHeight;
  }

  // What somebody has selected stays, so that it can be copied; not without end.
  #isSelected(row) {
    const selection = getSelection();
    return !selection.isCollapsed && this.#last - this.#first < 4 * MAX_ROWS && selection.containsNode(row, true);
  }

  // --- rows ---

  #append(first, last) {
    const added = [];
    for (let number = first; number <= last; number++) added.push(this.#make(number));
    this.#rows.append(...added);
    this.#last = last;
    this.#paint();
  }

  #replace(first, last) {
    this.#clear();
    this.#first = first;
    this.#append(first, last);
    this.#guess();
  }

  #clear() {
    while (this.#rows.lastChild) this.#drop(this.#rows.lastChild);
    this.#first = 1;
    this.#last = 0;
  }

  #make(number) {
    const row = this.#spare.pop() ?? blankRow();
    fillRow(row, this.#kept.get(number), number);
    return row;
  }

  #drop(row) {
    row.remove();
    row.classList.remove("found");
    if (this.#spare.length < MAX_ROWS) this.#spare.push(row);
  }

  #row(number) {
    return number >= this.#first && number <= this.#last ? this.#rows.children[number - this.#first] : undefined;
  }

  #numberAt(y) {
    let low = this.#first, high = this.#last;
    while (low < high) {
      const middle = Math.floor((low + high) / 2), row = this.#row(middle);
      if (this.#top + row.offsetTop + row.offsetHeight <= y) low = middle + 1;
      else high = middle;
    }
    return Math.max(low, 1);
  }

  #paint() {
    this.#rows.querySelector(".found")?.classList.remove("found");
    this.#row(this.#match)?.classList.add("found");
    markText(this.#rows, this.#text);
  }

  // --- places ---

  get #idealPx() {
    return Math.min(this.total * this.#rowPx, MAX_SPACE_PX);
  }

  #ideal(number) {
    return ((number - 1) / Math.max(1, this.total)) * this.#idealPx;
  }

  #guess() {
    const count = this.#last - this.#first + 1;
    if (count > 0) this.#rowPx = Math.min(200, Math.max(16, this.#rows.offsetHeight / count));
  }

  // The rows are where they are in the space, which has room for what is before and behind them; what is seen at `top` stays in sight.
  #settle(top) {
    const height = this.#rows.offsetHeight;
    let shift = 0;
    if (this.#first <= 1) shift = -this.#top;
    else if (this.#top <= MARGIN_PX) shift = Math.max(this.#ideal(this.#first), 2 * MARGIN_PX) - this.#top;
    if (this.#last >= this.total && top === Infinity && this.#first > 1) shift = Math.max(0, this.#idealPx - height, 2 * MARGIN_PX) - this.#top;
    this.#top += shift;
    const behind = this.total - this.#last;
    const room = behind > 0 ? Math.max(this.#idealPx - this.#top - height, Math.min(behind, STEP) * this.#rowPx) : 0;
    const space = `${this.#top + height + room}px`, place = `${this.#top}px`;
    if (this.#space.style.height !== space) this.#space.style.height = space;
    if (this.#rows.style.top !== place) this.#rows.style.top = place;
    const wanted = top === Infinity ? this.#scroller.scrollHeight : top + shift;
    if (Math.abs(this.#scroller.scrollTop - wanted) >= 1) this.#scroller.scrollTop = wanted;
    this.#scrolled = this.#scroller.scrollTop;
  }

  #isAtEnd() {
    const { scrollTop, clientHeight } = this.#scroller;
    return this.#last >= this.total && scrollTop + clientHeight >= this.#top + this.#rows.offsetHeight - END_PX;
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

  #keep(lines, first, around = first) {
    lines.forEach((line, at) => this.#kept.set(first + at, line));
    if (this.#kept.size <= MAX_KEPT) return;
    // The farthest go.
    const near = this.isFollowing ? this.total : around;
    const numbers = [...this.#kept.keys()].sort((one, other) => Math.abs(one - near) - Math.abs(other - near));
    for (const number of numbers.slice(MAX_KEPT / 2)) this.#kept.delete(number);
  }

  #missing(first, last) {
    for (let number = first; number <= last; number++) if (!this.#kept.has(number)) return number;
    return 0;
  }

  // One request at a time; where one is when it is answered decides on the next.
  async #ask(number) {
    if (this.#fetching) return;
    const fetching = (this.#fetching = { abort: new AbortController() });
    this.#scroller.setAttribute("aria-busy", "true");
    const part = await this.#fetch(number, PAGE, fetching.abort.signal).catch(() => null);
    if (this.#fetching !== fetching) return;
    if (!part) await new Promise((done) => setTimeout(done, 1000));
    if (this.#fetching !== fetching) return;
    this.#fetching = null;
    this.#scroller.removeAttribute("aria-busy");
    if (part) this.#keep(part.lines, part.first_line, number);
    this.#later();
  }
}
