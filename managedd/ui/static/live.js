// The page is kept up to date by server-sent events: each brings the whole content, and only what differs is touched.
import { morph } from "./morph.js";

const LOST_AFTER_MS = 2000;
const SILENT_MS = 40000;

export function watch() {
  const url = new URL(location.href);
  url.hash = "";
  const source = new EventSource(url);
  const banner = document.getElementById("lost");
  let lost, silent;

  const heard = () => {
    clearTimeout(lost);
    clearTimeout(silent);
    lost = undefined;
    banner.hidden = true;
    silent = setTimeout(isLost, SILENT_MS);
  };
  const isLost = () => {
    banner.hidden = false;
    document.dispatchEvent(new CustomEvent("page:lost"));
  };

  source.addEventListener("open", heard);
  source.addEventListener("beat", heard);
  source.addEventListener("page", (event) => {
    heard();
    show(event.data);
  });
  source.addEventListener("gone", () => {
    source.close();
    location.reload();
  });
  source.addEventListener("error", () => {
    lost ??= setTimeout(isLost, LOST_AFTER_MS);
    // A refusal closes it for good; it may be a restart, so we go on.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => again(source), LOST_AFTER_MS);
  });
  addEventListener("pagehide", () => source.close());
  addEventListener("pageshow", (event) => event.persisted && location.reload());
}

function again(source) {
  source.close();
  watch();
}

function show(html) {
  const made = new DOMParser().parseFromString(html, "text/html");
  document.title = made.title;
  morph(document.getElementById("main"), made.getElementById("main"));
  document.dispatchEvent(new CustomEvent("page:changed"));
}
