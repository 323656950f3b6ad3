// A log line's text as elements: colours of terminals become classes, and nothing else of a line commands anything. Never markup.

const MAX_PIECES = 200; // of one line; what follows is plain
const CSI = /\[([0-9;:]{0,64})[0-?]*[ -/]*([@-~])/y;
const STRING = /[\]PX^_][^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)/y;
const SHORT = /[ -/]{0,4}[0-~]/y;
// What changes how other text looks, or is not seen: shown by its name. A tab and the end of a line are what they are.
const HIDDEN = /[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]+/g;

// [{ text, classes }]: the pieces of `text`, with the classes of each; control sequences are left out.
export function pieces(text) {
  const found = [];
  const style = {};
  let from = 0, plain = "";
  const end = (classes) => {
    if (plain) found.push({ text: plain, classes });
    plain = "";
  };
  for (let at = text.indexOf("\x1b"); at >= 0; at = text.indexOf("\x1b", from)) {
    plain += text.slice(from, at);
    const rest = at + 1;
    const csi = match(CSI, text, rest);
    const other = csi ?? match(STRING, text, rest) ?? (text[rest] === "[" || text[rest] === "]" ? null : match(SHORT, text, rest));
    from = other ? rest + other[0].length : rest;
    if (csi?.[2] === "m" && found.length < MAX_PIECES) {
      end(classesOf(style));
      paint(style, csi[1]);
    }
  }
  plain += text.slice(from);
  end(classesOf(style));
  return found;
}

// `element` has the text and nothing else, in spans where it has a style.
export function write(element, text) {
  const found = [];
  for (const piece of pieces(text.replaceAll("\r\n", "\n"))) {
    let from = 0;
    for (const hidden of piece.text.matchAll(HIDDEN)) {
      if (found.length > 2 * MAX_PIECES) break;
      found.push({ text: piece.text.slice(from, hidden.index), classes: piece.classes }, { text: named(hidden[0]), classes: "hidden-char" });
      from = hidden.index + hidden[0].length;
    }
    found.push({ text: piece.text.slice(from).replace(HIDDEN, named), classes: piece.classes });
  }
  const only = element.childNodes.length === 1 && element.firstChild;
  if (found.length === 1 && !found[0].classes && only?.nodeType === Node.TEXT_NODE) only.data = found[0].text;
  else element.replaceChildren(...found.filter((each) => each.text).map(({ text, classes }) => (classes ? span(text, classes) : text)));
}

function span(text, classes) {
  const made = document.createElement("span");
  made.className = classes;
  made.textContent = text;
  return made;
}

function named(characters) {
  return [...characters].map((each) => {
    const code = each.codePointAt(0);
    if (code < 0x20) return String.fromCodePoint(0x2400 + code);
    return code === 0x7f ? "\u2421" : `‹U+${code.toString(16).toUpperCase().padStart(4, "0")}›`;
  }).join("");
}

function match(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

// --- SGR: select graphic rendition (ECMA-48) ---

const FLAGS = { 1: "bold", 2: "dim", 3: "italic", 4: "underline", 7: "inverse", 9: "strike" };
const OFF = { 22: ["bold", "dim"], 23: ["italic"], 24: ["underline"], 27: ["inverse"], 29: ["strike"] };

function paint(style, parameters) {
  const codes = parameters.split(/[;:]/, 32).map(Number);
  for (let at = 0; at < codes.length; at++) {
    const code = codes[at];
    if (code === 0) for (const each of Object.keys(style)) delete style[each];
    else if (FLAGS[code]) style[FLAGS[code]] = true;
    else if (OFF[code]) for (const each of OFF[code]) delete style[each];
    else if (code >= 30 && code <= 37) style.fore = code - 30;
    else if (code >= 40 && code <= 47) style.back = code - 40;
    else if (code >= 90 && code <= 97) style.fore = code - 82;
    else if (code >= 100 && code <= 107) style.back = code - 92;
    else if (code === 39) delete style.fore;
    else if (code === 49) delete style.back;
    else if (code === 38 || code === 48) at += chosen(style, code === 38 ? "fore" : "back", codes.slice(at + 1));
  }
}

// `5;n` of 256 colours, or `2;r;g;b`: the nearest of the sixteen that can be read on light and dark. How many codes it took.
function chosen(style, which, [kind, first, second, third]) {
  if (kind === 5) {
    if (first >= 0 && first < 256) style[which] = first < 16 ? first : first >= 232 ? nearest(...Array(3).fill((first - 232) * 10 + 8)) : nearest(...[36, 6, 1].map((size) => (Math.floor((first - 16) / size) % 6) * 51));
    return 2;
  }
  if (kind !== 2) return 0;
  if ([first, second, third].every((each) => each >= 0 && each < 256)) style[which] = nearest(first, second, third);
  return 4;
}

function nearest(red, green, blue) {
  const most = Math.max(red, green, blue), least = Math.min(red, green, blue);
  if (most - least < 48) return most < 64 ? 0 : most < 160 ? 8 : most < 224 ? 7 : 15;
  const half = (most + least) / 2;
  return (red > half ? 1 : 0) + (green > half ? 2 : 0) + (blue > half ? 4 : 0) + (most > 208 ? 8 : 0);
}

function classesOf({ fore, back, ...flags }) {
  const classes = Object.keys(flags).map((each) => `a-${each}`);
  // On a background of a colour stands the text's own: not every pair could be read.
  if (back !== undefined) classes.push(`b${back % 8}`);
  else if (fore !== undefined) classes.push(`f${fore}`);
  return classes.join(" ");
}
