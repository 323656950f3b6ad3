// Times that go on by themselves: `data-ago` says how long ago or in how long, `data-since` counts what is under way.
const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60], ["second", 1]];
const words = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

export function tick() {
  if (document.hidden) return;
  const now = Date.now();
  for (const each of document.querySelectorAll("time[data-ago]")) set(each, ago(now, Date.parse(each.dateTime)));
  for (const each of document.querySelectorAll("time[data-since]")) set(each, long((now - Date.parse(each.dateTime)) / 1000));
}

function set(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

function ago(now, then) {
  const seconds = Math.round((then - now) / 1000);
  const [unit, size] = UNITS.find(([, size]) => Math.abs(seconds) >= size) ?? UNITS.at(-1);
  return words.format(Math.trunc(seconds / size), unit);
}

export function long(seconds) {
  seconds = Math.max(0, Math.floor(seconds));
  const parts = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]].flatMap(([size, unit]) => {
    const count = Math.floor(seconds / size);
    seconds -= count * size;
    return count ? [`${count} ${unit}`] : [];
  });
  return parts.slice(0, 2).join(" ") || "0 s";
}
