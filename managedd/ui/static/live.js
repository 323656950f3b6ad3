// The page is kept up to date by server-sent events: each brings the whole content, and only what differs is touched.
import { morph } from "./morph.js";

const LOST_AFTER_MS = 2000;
const SILENT_MS = 40000;
let source, lost, silent, retry;

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
  source = new EventSource(url);
  source.addEventListener("open", heard);
  source.addEventListener("beat", heard);
  source.addEventListener("page", (event) => {
    heard();
    show(event.data);
  });
  source.addEventListener("gone", () => {
    leave();
    location.reload();
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
  document.getElementById("lost").hidden = true;
  silent = setTimeout(isLost, SILENT_MS);
}

function isLost() {
  document.getElementById("lost").hidden = false;
  document.dispatchEvent(new CustomEvent("page:lost"));
}

function show(html) {
  const made = new DOMParser().parseFromString(html, "text/html");
  const focused = document.activeElement;
  document.title = made.title;
  morph(document.getElementById("main"), made.getElementById("main"));
  // What was moved to another place has lost it.
  if (focused !== document.activeElement && focused?.isConnected) focused.focus({ preventScroll: true });
  document.dispatchEvent(new CustomEvent("page:changed"));
}
