// <choose-from kind="flows | deployments | work_pools" name="…">: any of them, however many there are. What is typed is looked for, and what is
// taken stands as a box that can be unticked; the form sends the boxes.
import { call } from "./calls.js";

const SHOWN = 20;
const PAUSE_MS = 150;
const PIECE = 200;
const MOST = 2000;

class ChooseFrom extends HTMLElement {
  #known = new Map();
  #timer;
  #asked = 0;

  connectedCallback() {
    this.input = this.querySelector("input[list]");
    this.input.addEventListener("focus", () => this.#look(), { once: true });
    this.input.addEventListener("input", (event) => this.#typed(event));
    this.input.addEventListener("change", () => this.#take(this.input.value.trim()));
    this.input.form.addEventListener("submit", (event) => this.#before(event));
  }

  #typed(event) {
    this.input.setCustomValidity("");
    // One that is offered was chosen; a name that is typed may be the beginning of another one.
    if (event.inputType === undefined || event.inputType === "insertReplacementText") {
      if (this.#take(this.input.value.trim())) return;
    }
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#look(), PAUSE_MS);
  }

  async #look() {
    const asked = ++this.#asked;
    try {
      const found = await FIND[this.getAttribute("kind")](this.input.value.trim());
      for (const { id, name } of found) this.#known.set(name, id);
      if (asked !== this.#asked) return found;
      this.querySelector("datalist").replaceChildren(...found.map(({ name }) => new Option("", name)));
      return found;
    } catch (problem) {
      this.input.setCustomValidity(problem.message);
      return [];
    }
  }

  #take(name) {
    const id = this.#known.get(name);
    if (id === undefined) return false;
    clearTimeout(this.#timer);
    const boxes = this.querySelector(".chosen");
    const there = [...boxes.querySelectorAll("input")].find((box) => box.value === id);
    if (there) there.checked = true;
    else boxes.append(box(this.getAttribute("name"), id, name));
    this.input.value = "";
    document.getElementById("told").textContent = `${name} is chosen.`;
    return true;
  }

  async #before(event) {
    const text = this.input.value.trim();
    if (text === "" || this.#take(text)) return;
    event.preventDefault();
    const form = this.input.form;
    const found = await this.#look();
    if (this.#take(text) || (found.length === 1 && this.#take(found[0].name))) return form.requestSubmit();
    this.input.setCustomValidity(found.length ? "Several have that in their name: choose one of them." : "None has that in its name.");
    this.input.reportValidity();
  }
}

function box(name, id, label) {
  const made = document.createElement("label");
  made.className = "chip";
  const input = Object.assign(document.createElement("input"), { type: "checkbox", name, value: id, checked: true });
  made.append(input, label);
  return made;
}

const FIND = {
  flows: (text) => read("flows", { flows: { name: { like_: text } }, sort: "NAME_ASC" }),
  async deployments(text) {
    // A whole name is the flow's and the deployment's.
    const [flow, name] = text.includes("/") ? [text.slice(0, text.indexOf("/")), text.slice(text.indexOf("/") + 1)] : [];
    const filters = flow === undefined ? { deployments: { flow_or_deployment_name: { like_: text } } } : { deployments: { name: { like_: name } }, flows: { name: { like_: flow } } };
    const found = await read("deployments", { ...filters, sort: "NAME_ASC" });
    const flows = await read("flows", { flows: { id: { any_: [...new Set(found.map((each) => each.flow_id))] } } });
    const names = new Map(flows.map((each) => [each.id, each.name]));
    return found.map((each) => ({ id: each.id, name: `${names.get(each.flow_id) ?? ""}/${each.name}` }));
  },
  // The API finds no part of a pool's name.
  async work_pools(text) {
    const all = [];
    while (all.length < MOST) {
      const piece = await read("work_pools", { limit: PIECE, offset: all.length });
      all.push(...piece);
      if (piece.length < PIECE) break;
    }
    const part = text.toLowerCase();
    return all.filter((each) => each.name.toLowerCase().includes(part)).map((each) => ({ id: each.name, name: each.name }));
  },
};

function read(kind, body) {
  return call("POST", `${document.body.dataset.api}${kind}/filter`, { limit: SHOWN, ...body });
}

customElements.define("choose-from", ChooseFrom);
