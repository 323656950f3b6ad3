// A form that is kept belongs to the person, but what there is to choose from does not: it is the server's, unless somebody is in the form.
const LISTS = "select, datalist";

// The lists of choices in `old` are those of `made`; what was chosen stays chosen while it is there.
export function refreshChoices(old, made) {
  if (old.contains(document.activeElement)) return;
  const news = new Map([...made.querySelectorAll(LISTS)].map((list) => [nameOf(list), list]));
  for (const list of old.querySelectorAll(LISTS)) {
    const next = news.get(nameOf(list));
    if (next && !isOfScript(list) && !sameOptions(list, next)) refresh(list, next);
  }
}

// Elements of our own fill their lists themselves.
function isOfScript(list) {
  for (let above = list.parentElement; above; above = above.parentElement) if (above.localName.includes("-")) return true;
  return false;
}

function refresh(list, next) {
  const chosen = list.localName === "select" ? touched(list) : [];
  list.replaceChildren(...[...next.childNodes].map((node) => document.importNode(node, true)));
  if (!chosen.length) return;
  const there = [...list.options].filter((option) => chosen.includes(option.value));
  if (there.length) for (const option of list.options) option.selected = there.includes(option);
}

// What somebody has chosen instead of what the server had; none: nobody has.
export function touched(select) {
  const options = [...select.options];
  const wanted = options.filter((option) => option.defaultSelected);
  const first = wanted.length || select.multiple ? wanted : options.slice(0, 1);
  const chosen = [...select.selectedOptions];
  return chosen.length === first.length && chosen.every((option) => first.includes(option)) ? [] : chosen.map((option) => option.value);
}

function sameOptions(list, next) {
  const texts = (each) => [...each.querySelectorAll("option")].map((option) => `${option.value}\n${option.textContent}\n${option.defaultSelected}`);
  const [one, other] = [texts(list), texts(next)];
  return one.length === other.length && one.every((text, at) => text === other[at]);
}

function nameOf(list) {
  return list.id || list.name || list.dataset.at;
}
