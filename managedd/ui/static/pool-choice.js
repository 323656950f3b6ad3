// <pool-choice refills="ID ID …">: a choice of a work pool. What the page has for another pool takes the place of what is there; what somebody
// has typed stays where that pool has the same field.
import { tell } from "./calls.js";
import { showMoments } from "./forms.js";

class PoolChoice extends HTMLElement {
  #asked = 0;

  connectedCallback() {
    this.addEventListener("change", () => this.#choose(this.querySelector("select")));
  }

  async #choose(select) {
    const asked = ++this.#asked;
    const button = select.form.querySelector("[type=submit]");
    button.disabled = true;
    try {
      const made = await page(JSON.parse(select.value) ?? "");
      if (asked !== this.#asked) return;
      for (const id of this.getAttribute("refills").split(" ")) refill(document.getElementById(id), made.getElementById(id));
      document.getElementById("told").textContent = `Job variables and queues are those of ${select.selectedOptions[0].textContent} now.`;
      button.disabled = false;
    } catch (problem) {
      if (asked === this.#asked) tell(`The fields of that work pool did not come: ${problem.message}. Choose it again.`, true);
    }
  }
}

async function page(pool) {
  const url = new URL(location.href);
  url.search = new URLSearchParams({ pool });
  const response = await fetch(url, { headers: { Accept: "text/html" } });
  if (response.status === 401 || response.redirected) location.reload();
  if (!response.ok) throw new Error(`${response.status} ${response.statusText}`);
  return new DOMParser().parseFromString(await response.text(), "text/html");
}

function refill(place, made) {
  const typed = new Map([...place.querySelectorAll("[data-at]")].filter(isTouched).map((field) => [field.dataset.at, field]));
  place.replaceChildren(...[...made.childNodes].map((node) => document.importNode(node, true)));
  showMoments(place);
  for (const field of place.querySelectorAll("[data-at]")) {
    const before = typed.get(field.dataset.at);
    if (!before || before.dataset.type !== field.dataset.type || before.tagName !== field.tagName) continue;
    if (field.type === "checkbox") field.checked = before.checked;
    else field.value = before.value;
  }
}

function isTouched(field) {
  if (field.type === "hidden") return false;
  if (field.type === "checkbox") return field.checked !== field.defaultChecked;
  if (field.tagName === "SELECT") return [...field.options].some((option) => option.selected !== option.defaultSelected) && field.value !== "";
  if (field.dataset.moment !== undefined) return field.value !== (field.dataset.shown ?? "");
  return field.value !== field.defaultValue;
}

customElements.define("pool-choice", PoolChoice);
