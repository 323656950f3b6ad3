// Buttons and forms call the API. What it refuses stands at the field that it is about, or else above the form.
import { edits, rememberMade } from "./edits.js";
import { collect, showErrors, clearErrors, give, showMoments } from "./forms.js";

const CHANGED = "Somebody has changed this since you opened it. Nothing was saved, and what you have typed is still here. Open it anew in another tab, and compare. Changed: ";

export function prepareCalls(root) {
  showMoments(root);
  rememberMade(root);
  root.addEventListener("page:changed", () => rememberMade(root));
  // What a browser has kept of a form that was saved says no more what is there.
  addEventListener("pageshow", (event) => event.persisted && root.querySelector("form[data-saved]") && location.reload());
  root.addEventListener("click", async (event) => {
    const button = event.target.closest("button[data-call]");
    if (!button) return;
    // While the question stands there the page may change, and the button become another one.
    const asked = { ...button.dataset };
    if (asked.confirm && !(await confirmed(asked.confirm, button))) return;
    const body = asked.body === undefined ? undefined : JSON.parse(asked.body);
    await during(button, () => perform(asked, body, (problem) => tell(problem.message, true)));
  });
  root.addEventListener("change", (event) => event.target.dataset.gives !== undefined && give(event.target));
  root.addEventListener("keydown", dismiss);
  root.addEventListener("submit", async (event) => {
    const form = event.target.closest("form[data-call]");
    if (!form) return;
    event.preventDefault();
    clearErrors(form);
    let body, headers;
    try {
      ({ body, headers } = edits(form, collect(form)));
    } catch (problem) {
      showErrors(form, { message: problem.message, errors: problem.errors ?? [] });
      return;
    }
    await during(form.querySelector("[type=submit]"), () => perform(form.dataset, body, (problem) => showErrors(form, problem), form, headers));
  });
}

export async function call(method, url, body, headers = {}) {
  const response = await fetch(url, {
    method,
    headers: body === undefined ? headers : { ...headers, "Content-Type": "application/json" },
    body: body === undefined ? undefined : JSON.stringify(body),
  }).catch(() => undefined);
  if (response === undefined) throw { message: "managedd does not answer. Nothing was changed, as far as this page knows.", errors: [] };
  // What stands between may answer with a page of its own.
  const answer = await response.json().catch(() => null);
  if (response.ok) return answer;
  const detail = answer?.exception_detail;
  if (response.status === 412) {
    const message = CHANGED + said(detail?.changed);
    throw { status: 412, message, errors: [{ loc: [], msg: message }] };
  }
  throw {
    status: response.status,
    message: answer?.detail ?? answer?.exception_message ?? `${response.status} ${response.statusText}`,
    errors: Array.isArray(detail) ? detail : [],
  };
}

// Members as people read them.
function said(names = []) {
  return `${names.join(", ").replaceAll("_", " ")}.`;
}

async function perform({ call: method, url, next, told }, body, refused, form, headers) {
  let answer;
  try {
    answer = await call(method, url, body, headers);
  } catch (problem) {
    if (problem.status === 401) return location.reload();
    return refused(problem);
  }
  const against = refusal(answer, body);
  if (against) return refused({ message: against, errors: [] });
  if (form) form.dataset.saved = "";
  if (told) tell(told);
  document.dispatchEvent(new CustomEvent("call:done", { detail: { method, url, answer, form } }));
  // `{name}` in the way is a member of the answer, or else of what was sent.
  if (!next) return;
  document.body.dataset.leaving = "";
  location.assign(next.replaceAll(/\{(\w+)\}/g, (_, name) => encodeURIComponent(answer?.[name] ?? body?.[name] ?? "")));
}

// The rules of states answer 200 also when they say no; a run without a container is cancelled at once, which is what was wanted.
function refusal(answer, body) {
  if (!["ABORT", "REJECT", "WAIT"].includes(answer?.status) || !answer.details) return undefined;
  if (body?.state?.type === "CANCELLING" && answer.state?.type === "CANCELLED") return undefined;
  return answer.details.reason ?? "The rules of states do not allow that now.";
}

async function during(button, work) {
  if (button?.getAttribute("aria-busy") === "true") return;
  button?.setAttribute("aria-busy", "true");
  try {
    await work();
  } finally {
    button?.removeAttribute("aria-busy");
  }
}

export function tell(message, isProblem = false) {
  document.getElementById("told").textContent = message;
  document.querySelector(".toast")?.remove();
  const before = document.activeElement;
  const toast = document.createElement("p");
  toast.className = isProblem ? "toast problem" : "toast";
  toast.textContent = message;
  const close = document.createElement("button");
  close.type = "button";
  close.className = "plain";
  close.textContent = "Close";
  close.addEventListener("click", () => {
    toast.remove();
    focusAgain(before);
  });
  toast.append(" ", close);
  document.body.append(toast);
  if (!isProblem) setTimeout(() => toast.matches(":focus-within") || toast.remove(), 6000);
}

// What is told goes by Escape, but after what stands before it.
function dismiss(event) {
  if (event.key === "Escape" && !document.querySelector("dialog[open]")) document.querySelector(".toast button")?.click();
}

// A button of a menu that has closed can't have the focus; what opens the menu can.
function focusAgain(element) {
  if (![null, document.body].includes(document.activeElement)) return;
  const menu = element.closest("details.menu");
  (menu && !menu.open ? menu.querySelector("summary") : element).focus();
}

function confirmed(question, button) {
  const dialog = document.createElement("dialog");
  const text = document.createElement("p");
  text.id = "question";
  text.textContent = question;
  dialog.setAttribute("aria-labelledby", "question");
  const form = document.createElement("form");
  form.method = "dialog";
  for (const [value, label, kind] of [["no", "Keep it as it is", ""], ["yes", button.textContent.trim(), "danger"]]) {
    const answer = document.createElement("button");
    answer.value = value;
    answer.textContent = label;
    answer.className = kind;
    form.append(answer);
  }
  dialog.append(text, form);
  document.body.append(dialog);
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => {
    resolve(dialog.returnValue === "yes");
    dialog.remove();
    focusAgain(button);
  }));
}
