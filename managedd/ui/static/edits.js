// A form with `data-marks` changes what is there: it sends only what differs from what it was made with, and says of each such member what was
// shown (`If-Match`), so that nobody undoes what somebody else has changed meanwhile.
//   data-marks     the marks of the members that it shows
//   data-merged    the one member whose own members are sent and marked one by one
//   data-together  members of which all are sent where one is
import { collect, showMoments } from "./forms.js";

const made = new WeakMap();

// What a browser has put back into fields, after a look at another page, is not what the server had.
export function rememberMade(root) {
  for (const form of root.querySelectorAll("form[data-marks]")) {
    if (made.has(form)) continue;
    const copy = form.cloneNode(true);
    copy.reset();
    showMoments(copy);
    try {
      made.set(form, collect(copy));
    } catch {
      made.set(form, {});
    }
  }
}

// What of `body` is to be sent, and under which condition.
export function edits(form, body) {
  const before = made.get(form);
  if (!before) return { body, headers: {} };
  const { marks, merged, together = "" } = form.dataset;
  const sent = differing(body, before, together.split(" "));
  let names = Object.keys(sent);
  if (merged && Object.hasOwn(sent, merged)) {
    sent[merged] = differing(sent[merged], before[merged] ?? {});
    names = Object.keys(sent[merged]);
  }
  const known = JSON.parse(marks);
  const tags = names.map((name) => `${encodeURIComponent(name)}=${Object.hasOwn(known, name) ? known[name] : ""}`);
  return { body: sent, headers: tags.length ? { "If-Match": `"${tags.join(",")}"` } : {} };
}

// Whether somebody is in the form, or has been.
export function isEdited(form) {
  if (form.contains(document.activeElement) || !made.has(form)) return true;
  try {
    return !isSame(collect(form), made.get(form));
  } catch {
    return true;
  }
}

function differing(values, before, together = []) {
  const names = Object.keys(values).filter((name) => !Object.hasOwn(before, name) || !isSame(values[name], before[name]));
  const more = names.some((name) => together.includes(name)) ? together : [];
  return Object.fromEntries(Object.entries(values).filter(([name]) => names.includes(name) || more.includes(name)));
}

function isSame(one, other) {
  return JSON.stringify(one) === JSON.stringify(other);
}
