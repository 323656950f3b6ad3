// Where a text stands in the rows of a log: painted by the browser over what is there, without an element more.
const MOST = 2000;

export function markText(rows, text) {
  if (!globalThis.Highlight) return;
  const ranges = [], wanted = text.toLowerCase();
  const texts = wanted && document.createTreeWalker(rows, NodeFilter.SHOW_TEXT);
  while (texts && texts.nextNode() && ranges.length < MOST) {
    const node = texts.currentNode, said = node.data.toLowerCase();
    // A letter whose small form is longer would move all that follows.
    if (said.length !== node.data.length || !node.parentElement.closest(".log-message")) continue;
    for (let at = said.indexOf(wanted); at >= 0 && ranges.length < MOST; at = said.indexOf(wanted, at + wanted.length)) {
      ranges.push(new StaticRange({ startContainer: node, startOffset: at, endContainer: node, endOffset: at + wanted.length }));
    }
  }
  CSS.highlights.set("log-search", new Highlight(...ranges));
}
