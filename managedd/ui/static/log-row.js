// One line of a log as a row: when, how grave, from where, what.
import { write } from "./log-text.js";

const LEVELS = [[50, "CRITICAL"], [40, "ERROR"], [30, "WARNING"], [20, "INFO"], [10, "DEBUG"]];
const STREAMS = ["stdout", "stderr"];
const ENGINE = "managedd";
const days = new Intl.DateTimeFormat("en", { month: "short", day: "numeric" });
const full = new Intl.DateTimeFormat("en", { dateStyle: "full", timeStyle: "long" });

// An empty row. Rows are used again: thousands of lines a second would leave as many behind for the browser to collect.
export function blankRow() {
  const row = document.createElement("div");
  row.className = "log-line";
  const from = part("span", "log-from"), message = part("span", "log-message");
  from.dir = message.dir = "ltr";
  row.append(part("time"), " ", part("span", "log-level"), " ", from, " ", message);
  return row;
}

// The row is of the line, which has that number.
export function fillRow(row, line, number) {
  const [time, level, from, message] = row.children;
  row.cursor = line.id;
  row.querySelector(".log-more")?.remove();
  const [least, name] = LEVELS.find(([each]) => line.level >= each) ?? [0, ""];
  set(row, "data-grave", least >= 40 ? "error" : least === 30 ? "warning" : null);
  const when = new Date(line.timestamp);
  say(time, clock(when));
  time.dateTime = line.timestamp;
  time.removeAttribute("title");
  say(level, least === line.level ? name : String(line.level));
  write(from, named(line));
  set(from, "data-from", kind(line));
  set(from, "title", line.task_run_id ? `${line.name}, task run ${line.task_run_id}` : null);
  write(message, line.message);
  if (line.chars) row.append(more(line, number));
}

function part(tag, name) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  return made;
}

function say(element, text) {
  if (element.firstChild) element.firstChild.data = text;
  else element.textContent = text;
}

function set(element, name, value) {
  if (value === null) element.removeAttribute(name);
  else if (element.getAttribute(name) !== value) element.setAttribute(name, value);
}

// The day and the zone, when somebody points at the time.
export function explain(time) {
  time.title ||= full.format(new Date(time.dateTime));
}

function clock(when) {
  const two = (value) => String(value).padStart(2, "0");
  const time = `${two(when.getHours())}:${two(when.getMinutes())}:${two(when.getSeconds())}.${String(when.getMilliseconds()).padStart(3, "0")}`;
  return when.toDateString() === new Date().toDateString() ? time : `${days.format(when)} ${time}`;
}

function kind(line) {
  if (line.name === ENGINE) return "engine";
  if (STREAMS.includes(line.name)) return line.name;
  return line.task_run_id ? "task" : "logger";
}

function named(line) {
  return line.task_run_id && kind(line) === "task" ? `task ${line.task_run_id.slice(-8)}` : line.name.slice(0, 60);
}

function more(line, number) {
  const button = part("button", "plain log-more");
  button.textContent = `Show all ${line.chars.toLocaleString("en")} characters`;
  button.type = "button";
  button.dataset.line = number;
  return button;
}

// The row has the whole message.
export function widen(row, line) {
  const message = row.querySelector(".log-message");
  write(message, line.message);
  if (line.chars) message.append(` … (${line.chars.toLocaleString("en")} characters in all: download the log to have them)`);
  row.querySelector(".log-more")?.remove();
}
