// <schedule-form url="…/managed/schedules/times">: of the kinds of schedules the chosen one's fields, and its next times while somebody types.
import { call } from "./calls.js";
import { collect, clearErrors, markErrors } from "./forms.js";

const PATIENCE_MS = 300;

class ScheduleForm extends HTMLElement {
  #waiting;
  #asked = 0;

  connectedCallback() {
    const zones = this.querySelector("datalist");
    for (const zone of Intl.supportedValuesOf?.("timeZone") ?? []) zones.append(Object.assign(document.createElement("option"), { value: zone }));
    this.addEventListener("input", (event) => {
      if (event.target.name === "kind") this.#choose(event.target.value);
      clearTimeout(this.#waiting);
      this.#waiting = setTimeout(() => this.#foretell(), PATIENCE_MS);
    });
    this.#foretell();
  }

  disconnectedCallback() {
    clearTimeout(this.#waiting);
    this.#asked++;
  }

  #choose(kind) {
    for (const part of this.querySelectorAll("[data-kind]")) part.hidden = part.disabled = part.dataset.kind !== kind;
  }

  // Only what was asked for last is shown, whatever is answered first.
  async #foretell() {
    const asked = ++this.#asked;
    clearErrors(this);
    const fields = [...this.querySelectorAll("[data-at]:enabled")];
    if (fields.some((field) => field.required && !field.value.trim())) return this.#show();
    try {
      const answer = await call("POST", this.getAttribute("url"), collect(this));
      if (asked === this.#asked) this.#show(answer);
    } catch (problem) {
      if (asked !== this.#asked) return;
      const { others } = markErrors(this, { message: problem.message, errors: problem.errors ?? [] });
      this.#show(undefined, others.join("\n") || "They stand here as soon as the schedule is one.");
    }
  }

  #show(answer, told = "They stand here as soon as the schedule is one.") {
    const place = this.querySelector(".next-times");
    if (!answer) return place.replaceChildren(said(told));
    if (!answer.times.length) return place.replaceChildren(said(answer.problem ?? "It does not come again."));
    const list = document.createElement("ol");
    list.className = "times";
    const words = inZone(answer.timezone);
    for (const moment of answer.times) {
      const time = document.createElement("time");
      time.dateTime = moment;
      time.textContent = words(new Date(moment));
      const item = document.createElement("li");
      item.append(time);
      list.append(item);
    }
    place.replaceChildren(list, ...(answer.problem ? [said(answer.problem)] : []));
  }
}

function said(text) {
  return Object.assign(document.createElement("p"), { className: "quiet", textContent: text });
}

// `Mon 23 Nov 2026, 09:00 CET`, as the deployment's page has it; in UTC where the browser does not know the zone.
function inZone(zone) {
  const wanted = { weekday: "short", day: "numeric", month: "short", year: "numeric", hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23", timeZoneName: "short" };
  let format;
  try {
    format = new Intl.DateTimeFormat("en-GB", { ...wanted, timeZone: zone });
  } catch {
    format = new Intl.DateTimeFormat("en-GB", { ...wanted, timeZone: "UTC" });
  }
  return (moment) => {
    const part = Object.fromEntries(format.formatToParts(moment).map(({ type, value }) => [type, value]));
    const seconds = part.second === "00" ? "" : `:${part.second}`;
    return `${part.weekday} ${part.day} ${part.month} ${part.year}, ${part.hour}:${part.minute}${seconds} ${part.timeZoneName}`;
  };
}

customElements.define("schedule-form", ScheduleForm);
