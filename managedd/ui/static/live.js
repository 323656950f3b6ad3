// The page is kept up to date by server-sent events: each brings the whole content, and only what differs is touched.
import { touched } from "./choices.js";
import { morph } from "./morph.js";

const LOST = "The connection to managedd is lost. What you see may be out of date; this page keeps trying.";
const NEWER = "managedd is another version now. This page stands still; what you have typed is still here. Load it again when you are done.";
const LOST_AFTER_MS = 2000;
const SILENT_MS = 40000;
const FULL_MS = 30000;
let source, lost, silent, retry;
let seen = document.body.dataset.live; // the mark of what is shown

export function watch() {
  // A browser has six connections to a host, for all its tabs: one that nobody looks at needs none.
  document.addEventListener("visibilitychange", () => (document.hidden ? leave() : open()));
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  if (!document.hidden) open();
}

function open() {
  leave();
  const url = new URL(location.href);
  url.hash = "";
  url.searchParams.set("seen", seen);
  source = new EventSource(url);
  source.addEventListener("version", (event) => (event.data === version() ? heard() : renewed(event.data)));
  source.addEventListener("beat", heard);
  source.addEventListener("page", (event) => {
    heard();
    seen = event.lastEventId;
    show(event.data);
  });
  source.addEventListener("gone", () => {
    leave();
    // Who has just deleted what it shows is on the way to another page.
    if (!document.querySelector("[aria-busy=true][data-next], [data-leaving]")) location.reload();
  });
  source.addEventListener("full", (event) => {
    leave();
    say(`${event.data} This page is not kept up to date; it tries again every half a minute.`);
    retry = setTimeout(open, FULL_MS);
  });
  source.addEventListener("error", (event) => {
    lost ??= setTimeout(isLost, LOST_AFTER_MS);
    // A refusal closes it for good; it may be a restart, so we go on.
    if (event.target.readyState === EventSource.CLOSED) retry = setTimeout(open, LOST_AFTER_MS);
  });
}

// What was lost before stays so until something is heard.
function leave() {
  source?.close();
  clearTimeout(silent);
  clearTimeout(retry);
}

function heard() {
  clearTimeout(lost);
  clearTimeout(silent);
  lost = undefined;
  if (!document.getElementById("lost").hidden) document.dispatchEvent(new CustomEvent("page:back"));
  say("");
  silent = setTimeout(isLost, SILENT_MS);
}

function isLost() {
  say(LOST);
}

function say(text) {
  const place = document.getElementById("lost");
  if (place.textContent !== text) place.textContent = text;
  place.hidden = !text;
}

// Of the scripts that this page runs: their address has it.
function version() {
  return import.meta.url.split("/").at(-2);
}

// Scripts of one version may not understand the pages of another. Once is enough: whatever stands between may keep old pages.
function renewed(now) {
  leave();
  clearTimeout(lost);
  if (!isTypedIn() && sessionStorage.getItem("loaded for") !== now) {
    sessionStorage.setItem("loaded for", now);
    return location.reload();
  }
  say(NEWER);
  const again = document.createElement("button");
  again.type = "button";
  again.textContent = "Load again";
  again.addEventListener("click", () => location.reload());
  document.getElementById("lost").append(" ", again);
}

function isTypedIn() {
  if (document.querySelector("dialog[open]")) return true;
  return [...document.querySelectorAll("main :is(input, textarea, select)")].some(isTouched);
}

function isTouched(field) {
  if (field.localName === "select") return touched(field).length > 0;
  if (field.type === "checkbox" || field.type === "radio") return field.checked !== field.defaultChecked;
  return field.value !== (field.dataset.shown ?? field.defaultValue);
}

function show(html) {
  const made = new DOMParser().parseFromString(html, "text/html");
  const focused = document.activeElement;
  const main = document.getElementById("main");
  morph(main, made.getElementById("main"));
  document.title = main.dataset.title;
  // What was moved to another place has lost it.
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  document.dispatchEvent(new CustomEvent("page:changed"));
}
