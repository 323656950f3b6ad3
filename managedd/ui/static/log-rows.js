// The rows of a log that are in the document: of one line after the other, without a gap. Where they are in the space is their window's business.
import { blankRow, fillRow } from "./log-row.js";
import { markText } from "./log-marks.js";

export const MAX_ROWS = 400;

export class LogRows {
  element = document.createElement("div");
  first = 1; // the numbers of the lines that have a row
  last = 0;
  #lineAt;
  #spare = []; // rows that nobody sees
  #text = "";
  #match = null;

  constructor(lineAt) {
    this.#lineAt = lineAt;
    this.element.className = "log-rows";
  }

  get isEmpty() {
    return this.first > this.last;
  }

  get count() {
    return this.last - this.first + 1;
  }

  get height() {
    return this.element.offsetHeight;
  }

  row(number) {
    return number >= this.first && number <= this.last ? this.element.children[number - this.first] : undefined;
  }

  // The number of the row at that place, from the first row's top on; of the nearest one where there is none.
  numberAt(y) {
    let low = this.first, high = this.last;
    while (low < high) {
      const middle = Math.floor((low + high) / 2), row = this.row(middle);
      if (row.offsetTop + row.offsetHeight <= y) low = middle + 1;
      else high = middle;
    }
    return Math.max(low, 1);
  }

  append(last) {
    this.element.append(...this.#made(this.last + 1, last));
    this.last = last;
    this.paint();
  }

  prepend(first) {
    this.element.prepend(...this.#made(first, this.first - 1));
    this.first = first;
  }

  replace(first, last) {
    this.clear();
    this.first = first;
    this.last = first - 1;
    this.append(last);
  }

  clear() {
    while (this.element.lastChild) this.#drop(this.element.lastChild);
    this.first = 1;
    this.last = 0;
  }

  trimTop(most) {
    while (this.count > most && !this.#isSelected(this.element.firstChild)) {
      this.#drop(this.element.firstChild);
      this.first++;
    }
  }

  trimBottom(most) {
    while (this.count > most && !this.#isSelected(this.element.lastChild)) {
      this.#drop(this.element.lastChild);
      this.last--;
    }
  }

  // Where the text stands, and which line was found.
  mark(text, number) {
    this.#text = text ?? "";
    this.#match = number;
    this.paint();
  }

  paint() {
    this.element.querySelector(".found")?.classList.remove("found");
    this.row(this.#match)?.classList.add("found");
    markText(this.element, this.#text);
  }

  forget() {
    this.clear();
    this.#match = null;
  }

  #made(first, last) {
    const made = [];
    for (let number = first; number <= last; number++) {
      const row = this.#spare.pop() ?? blankRow();
      fillRow(row, this.#lineAt(number), number);
      made.push(row);
    }
    return made;
  }

  #drop(row) {
    row.remove();
    row.classList.remove("found");
    if (this.#spare.length < MAX_ROWS) this.#spare.push(row);
  }

  // What somebody has selected stays, so that it can be copied; not without end.
  #isSelected(row) {
    const selection = getSelection();
    return !selection.isCollapsed && this.count <= 4 * MAX_ROWS && selection.containsNode(row, true);
  }
}
