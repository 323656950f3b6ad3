// What every page loads. Each part looks for its own elements, in the whole page and again in what has changed.
import { watch } from "./live.js";
import { prepareCalls } from "./calls.js";
import { tick } from "./times.js";
import { prepareMenus } from "./menus.js";
import "./reveal.js";
import "./hand-over.js";
import "./filters.js";

const parts = import.meta.url.replace("app.js", "");
// Loaded only where a page has such an element.
const ELEMENTS = { "choose-from": "choose-from.js", "log-view": "log-view.js", "pool-choice": "pool-choice.js", "schedule-form": "schedule-form.js" };

export function loadElements(within) {
  for (const [name, file] of Object.entries(ELEMENTS)) {
    if (!customElements.get(name) && within.querySelector(name)) import(parts + file);
  }
}

prepareCalls(document);
prepareMenus(document);
loadElements(document);
for (const each of document.querySelectorAll("[data-api-url]")) each.textContent = new URL(document.body.dataset.api, location).href.replace(/\/$/, "");
tick();
setInterval(tick, 1000);
document.addEventListener("page:changed", () => {
  loadElements(document);
  tick();
});
if (document.body.dataset.live !== undefined) watch();
document.documentElement.dataset.ready = "";
