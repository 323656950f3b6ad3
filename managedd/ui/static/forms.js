// From fields to JSON and back: each field has `data-at`, the JSON pointer of its value, and `data-type`, how it is read.
//   text (default) · number · integer · boolean · json · lines (a list) · pairs (name=value in lines) · moment (a local time)
// An empty field is left out, unless `data-empty` says "null" or "text".

export function collect(form) {
  const body = {};
  const errors = [];
  for (const field of form.querySelectorAll("[data-at]")) {
    if (field.disabled || (field.type === "radio" && !field.checked)) continue;
    try {
      const value = read(field);
      if (value !== undefined) place(body, field.dataset.at, value);
    } catch (problem) {
      errors.push({ loc: ["body", ...steps(field.dataset.at)], msg: problem.message });
    }
  }
  if (errors.length) throw Object.assign(new Error("Some fields can't be read."), { errors });
  return body;
}

function read(field) {
  const type = field.dataset.type ?? "text";
  if (type === "boolean") return field.type === "checkbox" ? field.checked : ({ true: true, false: false })[field.value];
  const text = field.value;
  if (text.trim() === "") return ({ null: null, text: "" , list: []})[field.dataset.empty];
  if (type === "number" || type === "integer") {
    const number = Number(text);
    if (!Number.isFinite(number) || (type === "integer" && !Number.isInteger(number))) throw new Error(type === "integer" ? "A whole number is needed." : "A number is needed.");
    return number;
  }
  if (type === "json") {
    try {
      return JSON.parse(text);
    } catch (problem) {
      throw new Error(`This is no JSON: ${problem.message}`);
    }
  }
  if (type === "lines") return text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (type === "pairs") return pairs(text);
  if (type === "moment") return new Date(text).toISOString();
  return text;
}

function pairs(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  return Object.fromEntries(lines.map((line) => {
    const at = line.indexOf("=");
    if (at < 1) throw new Error(`Each line is NAME=VALUE; this one is not: ${line.slice(0, 60)}`);
    return [line.slice(0, at).trim(), line.slice(at + 1)];
  }));
}

function steps(pointer) {
  return pointer.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

function place(body, pointer, value) {
  const path = steps(pointer);
  const last = path.pop();
  let at = body;
  for (const step of path) at = at[step] ??= {};
  if (last === "" && path.length === 0) Object.assign(body, value);
  else at[last] = value;
}

export function clearErrors(form) {
  for (const told of form.querySelectorAll(".problem")) told.remove();
  for (const field of form.querySelectorAll("[aria-invalid]")) {
    field.removeAttribute("aria-invalid");
    const described = field.dataset.described;
    if (described) field.setAttribute("aria-describedby", described);
    else field.removeAttribute("aria-describedby");
  }
}

export function showErrors(form, { message, errors }) {
  const others = [];
  let first;
  for (const error of errors) {
    const field = fieldOf(form, (error.loc ?? []).filter((step, at) => !(at === 0 && step === "body")));
    if (!field) {
      others.push(`${(error.loc ?? []).join(" › ")}: ${error.msg}`);
      continue;
    }
    first ??= field;
    mark(field, error.msg);
  }
  // A message that names a field in quotes, or as `variables.memory`, is about that one.
  if (!errors.length) {
    const named = [...form.querySelectorAll("[data-at]")].find((field) => names(message, steps(field.dataset.at).at(-1)));
    if (named) {
      mark(named, message);
      first = named;
    } else others.push(message);
  }
  if (others.length) {
    const alert = document.createElement("p");
    alert.className = "problem";
    alert.setAttribute("role", "alert");
    alert.tabIndex = -1;
    alert.textContent = others.join("\n");
    form.prepend(alert);
    first ??= alert;
  }
  first?.closest("details:not([open])")?.setAttribute("open", "");
  first?.focus();
}

function names(message, step) {
  return Boolean(step) && [`'${step}'`, `"${step}"`, `.${step}:`, `${step}:`].some((form) => message.includes(form));
}

function fieldOf(form, loc) {
  const fields = [...form.querySelectorAll("[data-at]")];
  for (let length = loc.length; length > 0; length--) {
    const pointer = "/" + loc.slice(0, length).join("/");
    const found = fields.find((field) => field.dataset.at === pointer);
    if (found) return found;
  }
  return undefined;
}

function mark(field, message) {
  const told = document.createElement("p");
  told.className = "problem";
  told.id = `${field.id || field.dataset.at.replaceAll(/\W/g, "-")}-problem`;
  told.textContent = message;
  field.dataset.described ??= field.getAttribute("aria-describedby") ?? "";
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", `${field.dataset.described} ${told.id}`.trim());
  (field.closest(".field") ?? field).append(told);
}
