// From fields to JSON and back: each field has `data-at`, the JSON pointer of its value, and `data-type`, how it is read.
//   text (default) · number · integer · boolean · json · lines (a list) · pairs (name=value in lines) · moment (a local time)
//   local (a date and time of no zone)
//   scalar (a text, or what of `data-scalars` it reads like; in quotation marks it is always a text)
//   any (a text, or whatever JSON it is) · null (a checkbox: null when it is checked)
//   span (seconds, written "90 s", "1 h 30 min" or without a unit)
// An empty field is left out, unless `data-empty` says "null", "text", "list" or "object".

export function collect(form) {
  const body = {};
  const errors = [];
  for (const field of form.querySelectorAll("[data-at]:enabled")) {
    if (field.type === "radio" && !field.checked) continue;
    try {
      const value = read(field);
      if (value !== undefined) place(body, field.dataset.at, value);
    } catch (problem) {
      errors.push({ loc: ["body", ...steps(field.dataset.at)], msg: problem.message });
    }
  }
  if (errors.length) throw Object.assign(new Error("Some fields can't be read."), { errors });
  // Some operations take a list: such a form sends one thing of it.
  return form.dataset.list === undefined ? body : [body];
}

function read(field) {
  const type = field.dataset.type ?? "text";
  if (type === "boolean") return field.type === "checkbox" ? field.checked : ({ true: true, false: false })[field.value];
  if (type === "null") return field.checked ? null : undefined;
  const text = field.value;
  if (text.trim() === "") return { null: null, text: "", list: [], object: {} }[field.dataset.empty];
  if (type === "number" || type === "integer") {
    const number = Number(text);
    if (!Number.isFinite(number) || (type === "integer" && !Number.isInteger(number))) throw new Error(type === "integer" ? "A whole number is needed." : "A number is needed.");
    return exactly(number, text.trim());
  }
  if (type === "json") return json(text);
  if (type === "any") return any(text);
  if (type === "scalar") return scalar(text, (field.dataset.scalars ?? "").split(" "));
  if (type === "lines") return text.split("\n").map((line) => line.trim()).filter(Boolean);
  if (type === "pairs") return pairs(text);
  if (type === "span") return span(text.trim());
  if (type === "local") return text === field.dataset.shown ? field.dataset.moment : text;
  if (type === "moment") return text === field.dataset.shown ? field.dataset.moment : new Date(text).toISOString();
  return text;
}

function json(text) {
  try {
    return JSON.parse(text, (_, value, context) => (typeof value === "number" ? exactly(value, context?.source) : value));
  } catch (problem) {
    throw new Error(`This is no JSON: ${problem.message}`);
  }
}

// A whole number that a script can't hold goes on as it is written.
function exactly(number, source) {
  if (!Number.isInteger(number) || Number.isSafeInteger(number) || !/^-?\d+$/.test(source ?? "")) return number;
  if (!JSON.rawJSON) throw new Error("This browser can't send a whole number of that size exactly.");
  return JSON.rawJSON(source.replace(/^(-?)0+(?=\d)/, "$1"));
}

function any(text) {
  try {
    return json(text);
  } catch {
    return text;
  }
}

function scalar(text, kinds) {
  let value;
  try {
    value = json(text);
  } catch {
    return text;
  }
  if (typeof value === "string") return value;
  const isNumber = typeof value === "number" || JSON.isRawJSON?.(value);
  if (typeof value === "boolean" && kinds.includes("boolean")) return value;
  if (isNumber && (kinds.includes("number") || (kinds.includes("integer") && !/[.eE]/.test(text)))) return value;
  return text;
}

const SPANS = { w: 604800, d: 86400, h: 3600, m: 60, s: 1 };

function span(text) {
  const parts = [...text.matchAll(/\s*(\d+(?:\.\d+)?)\s*(weeks?|days?|hours?|minutes?|min|seconds?|[wdhms])(?![a-z])\s*/gy)];
  const length = parts.reduce((sum, [part]) => sum + part.length, 0);
  const seconds = length < text.length ? Number(text) : parts.reduce((sum, [, count, unit]) => sum + Number(count) * SPANS[unit[0]], 0);
  if (!(seconds > 0 && Number.isFinite(seconds))) throw new Error("A time is needed, such as 90 s, 15 min, 2 h 30 min or 1 d.");
  return seconds;
}

// A moment stands in its field as the time of whoever looks, whose zone is named beside it.
export function showMoments(root) {
  for (const each of root.querySelectorAll("[data-own-zone]")) each.textContent = ` (${Intl.DateTimeFormat().resolvedOptions().timeZone})`;
  for (const field of root.querySelectorAll("input[data-moment]")) {
    if (field.dataset.type === "local") {
      field.value = field.dataset.moment;
      field.dataset.shown = field.value;
      continue;
    }
    const moment = new Date(field.dataset.moment || NaN);
    if (Number.isNaN(moment.getTime())) continue;
    moment.setMinutes(moment.getMinutes() - moment.getTimezoneOffset());
    field.value = moment.toISOString().slice(0, -1);
    field.dataset.shown = field.value;
  }
}

// A group that need not be given has its fields only while it is.
export function give(box) {
  const group = box.closest("fieldset");
  const members = group.querySelector(":scope > fieldset");
  members.hidden = members.disabled = !box.checked;
  const nothing = group.querySelector(":scope > input[type=hidden]");
  if (nothing) nothing.disabled = box.checked;
}

function pairs(text) {
  const lines = text.split("\n").filter((line) => line.trim());
  return Object.fromEntries(lines.map((line) => {
    const at = line.indexOf("=");
    if (line.slice(0, at).trim() === "") throw new Error(`Each line is NAME=VALUE; this one is not: ${line.slice(0, 60)}`);
    return [line.slice(0, at).trim(), line.slice(at + 1)];
  }));
}

function steps(pointer) {
  return pointer.split("/").slice(1).map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"));
}

// Names come from schemas of others: `__proto__` is one like any other.
function place(body, pointer, value) {
  const path = steps(pointer);
  if (path.length === 1 && path[0] === "") {
    if (!isObject(value)) throw new Error("An object is needed.");
    return add(body, value);
  }
  const last = path.pop();
  let at = body;
  for (const step of path) at = isObject(own(at, step)) ? own(at, step) : put(at, step, {});
  if (isObject(value) && isObject(own(at, last))) add(own(at, last), value);
  else put(at, last, value);
}

function add(object, values) {
  for (const name of Object.keys(values)) put(object, name, values[name]);
}

function own(object, name) {
  return Object.hasOwn(object, name) ? object[name] : undefined;
}

function put(object, name, value) {
  Object.defineProperty(object, name, { value, writable: true, enumerable: true, configurable: true });
  return value;
}

function isObject(value) {
  return value !== null && typeof value === "object" && !Array.isArray(value) && !JSON.isRawJSON?.(value);
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

export function showErrors(form, problem) {
  let { first, others } = markErrors(form, problem);
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

// Each message stands at its field; what is about none is `others`.
export function markErrors(form, { message, errors }) {
  const others = [];
  let first;
  for (const error of errors) {
    const field = fieldOf(form, (error.loc ?? []).filter((step, at) => !(at === 0 && step === "body")));
    if (!field) {
      others.push([(error.loc ?? []).join(" › "), error.msg].filter(Boolean).join(": "));
      continue;
    }
    first ??= field;
    mark(field, error.msg);
  }
  // A message that names a field in quotes, or as `variables.memory`, is about that one.
  if (!errors.length) {
    first = meant(form, message);
    if (first) mark(first, message);
    else others.push(message);
  }
  return { first, others };
}

// The field that the message names first; of those that it names there, the one with the longest name.
function meant(form, message) {
  let found, best = { at: Infinity, length: 0 };
  for (const field of form.querySelectorAll("[data-at]:enabled")) {
    const path = steps(field.dataset.at);
    for (const name of new Set([field.dataset.name || path.at(-1), path.join(".")])) {
      if (!name) continue;
      for (const [before, after] of [["'", "'"], ['"', '"'], ["'", "."], ["'", "["], [".", ":"], [".", "."], [".", "["], ["", ":"]]) {
        const at = message.indexOf(before + name + after) + before.length;
        if (at < before.length || (before === "" && /\w/.test(message[at - 1] ?? ""))) continue;
        if (at < best.at || (at === best.at && name.length > best.length)) [found, best] = [field, { at, length: name.length }];
      }
    }
  }
  return found;
}

function fieldOf(form, loc) {
  if (typeof loc[0] === "number") loc = loc.slice(1);
  const fields = [...form.querySelectorAll("[data-at]:enabled")];
  for (let length = loc.length; length > 0; length--) {
    const pointer = "/" + loc.slice(0, length).map((step) => String(step).replaceAll("~", "~0").replaceAll("/", "~1")).join("/");
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
  document.getElementById(told.id)?.remove();
  field.dataset.described ??= field.getAttribute("aria-describedby") ?? "";
  field.setAttribute("aria-invalid", "true");
  field.setAttribute("aria-describedby", `${field.dataset.described} ${told.id}`.trim());
  (field.closest(".field") ?? field).append(told);
}
