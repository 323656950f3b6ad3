// `old` becomes like `made` with as few touches as can be, so that focus, selection, scrolling, open menus and what somebody types stay.
import { refreshChoices } from "./choices.js";
import { isEdited } from "./edits.js";

// What belongs to the person or to a script, not to the server.
const KEPT = { DETAILS: ["open"], DIALOG: ["open"], TIME: ["title"], BUTTON: ["aria-busy"] };
// Of an element with `data-keep`, whose script also shows and hides it.
const KEPT_WITH_CHILDREN = ["hidden", "data-marks"];

export function morph(old, made) {
  if (old.isEqualNode(made)) return;
  // Of a form in which nobody is, the fields are the server's.
  if (old.dataset?.marks !== undefined && old.dataset.marks !== made.dataset.marks && !isEdited(old)) return old.replaceWith(document.importNode(made, true));
  attributes(old, made);
  if (old.dataset?.keep !== undefined) return refreshChoices(old, made);
  if (old.localName?.includes("-")) return;
  children(old, made);
}

function attributes(old, made) {
  const kept = old.dataset?.keep === undefined ? (KEPT[old.tagName] ?? []) : KEPT_WITH_CHILDREN;
  for (const { name } of [...old.attributes]) {
    if (!made.hasAttribute(name) && !kept.includes(name)) old.removeAttribute(name);
  }
  for (const { name, value } of made.attributes) {
    if (old.getAttribute(name) !== value && !kept.includes(name)) old.setAttribute(name, value);
  }
}

function children(old, made) {
  const keyed = new Map();
  const stay = new Set([...made.children].map(key));
  // Gone first, so that what comes after stays where it is: what is moved loses the focus, and a place in the order of it.
  for (const child of [...old.children]) {
    if (!key(child)) continue;
    if (stay.has(key(child))) keyed.set(key(child), child);
    else child.remove();
  }
  let at = old.firstChild;
  for (const next of [...made.childNodes]) {
    const same = keyed.get(key(next)) ?? (at && fits(at, next) ? at : null);
    if (same) {
      if (same !== at) old.insertBefore(same, at);
      else at = at.nextSibling;
      keyed.delete(key(next));
      if (same.nodeType === Node.ELEMENT_NODE) morph(same, next);
      else if (same.data !== next.data) same.data = next.data;
    } else {
      old.insertBefore(document.importNode(next, true), at);
    }
  }
  while (at) {
    const gone = at;
    at = at.nextSibling;
    gone.remove();
  }
}

function fits(node, next) {
  return node.nodeType === next.nodeType && node.nodeName === next.nodeName && !key(node) && !key(next);
}

// An element never becomes one of another kind, whatever its name is.
function key(node) {
  const name = node.id || node.dataset?.key;
  return name ? `${node.localName} ${name}` : undefined;
}
