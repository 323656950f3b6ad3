// What stands around the lines of a log: search, level, errors, follow, wrap, download, and what is said of it.

const LEVELS = [["", "All levels"], ["20", "Info and above"], ["30", "Warnings and above"], ["40", "Errors"]];
let count = 0;

export function controls(source) {
  const parts = {};
  const id = `log-${++count}`;
  parts.search = made("input", { type: "search", id: `${id}-search`, placeholder: "Search the whole log", maxLength: 1000, autocomplete: "off", spellcheck: false });
  parts.search.setAttribute("aria-label", "Search the whole log");
  parts.next = made("button", { type: "submit", textContent: "Next" });
  parts.previous = made("button", { type: "button", textContent: "Previous" });
  parts.found = made("output", { className: "log-found quiet" });
  parts.found.setAttribute("for", parts.search.id);
  parts.form = made("form", { className: "log-search" }, parts.search, parts.next, parts.previous);
  parts.form.setAttribute("role", "search");
  parts.level = made("select", {}, ...LEVELS.map(([value, text]) => made("option", { value, textContent: text })));
  parts.level.setAttribute("aria-label", "Level");
  parts.firstError = made("button", { type: "button", textContent: "First error" });
  parts.nextError = made("button", { type: "button", textContent: "Next error" });
  parts.follow = toggle("Follow", true);
  parts.wrap = toggle("Wrap", true);
  const links = [["text", "As text"], ["jsonl", "As JSON lines"]].map(([format, text]) =>
    made("li", {}, made("a", { href: source.download(format), download: "", textContent: text })));
  const download = made("details", { className: "menu" }, made("summary", { className: "button", textContent: "Download" }), made("ul", {}, ...links));
  const tools = made("div", { className: "log-tools" }, parts.form, parts.level, parts.firstError, parts.nextError, parts.follow, parts.wrap, download);

  parts.scroller = made("div", { className: "log-scroll wraps", tabIndex: 0 });
  // What comes is told by number, not line by line.
  for (const [name, value] of [["role", "log"], ["aria-live", "off"], ["aria-label", "Log"]]) parts.scroller.setAttribute(name, value);
  parts.news = made("button", { type: "button", className: "log-news primary", hidden: true });
  parts.place = made("span", { className: "log-place" });
  parts.state = made("span", { className: "log-state", textContent: "Connecting" });
  const foot = made("p", { className: "log-foot" }, parts.place, parts.found, parts.state);
  parts.told = made("div", { className: "visually-hidden" });
  parts.told.setAttribute("role", "status");
  parts.elements = [tools, made("div", { className: "log-box" }, parts.scroller, parts.news), foot, parts.told];
  return parts;
}

function toggle(text, isOn) {
  const button = made("button", { type: "button", textContent: text, className: "log-toggle" });
  button.setAttribute("aria-pressed", isOn);
  return button;
}

function made(tag, properties, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}
