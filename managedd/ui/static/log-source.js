// One run's log on the server: parts of it by number or by search, and what comes, from a cursor on.
const MAX_CHARS = 4000;
const PATIENCE_MS = [500, 1000, 2000, 4000, 8000];
const REFUSED = 1008; // "policy violation": the run is gone, or nobody may read it any more; asking again helps nobody

export class LogSource extends EventTarget {
  // Events: `lines` { lines }, `open`, `lost`, `refused` { message }, `ended` { state }.
  #api;
  #run;
  #socket;
  #again;
  #losses = 0;

  constructor(api, run) {
    super();
    this.#api = api;
    this.#run = run;
  }

  // Lines and where they are, as `…/logs/page` answers. Throws { status, message }; status 0: no answer.
  async part(query, signal) {
    const asked = new URLSearchParams({ chars: MAX_CHARS });
    for (const [name, value] of Object.entries(query)) if (value !== undefined && value !== null && value !== "") asked.set(name, value);
    const url = `${this.#path("logs/page")}?${asked}`;
    const response = await fetch(url, { signal }).catch((problem) => {
      if (problem.name === "AbortError") throw problem;
      throw { status: 0, message: "managedd does not answer." };
    });
    const answer = await response.json().catch(() => null);
    if (response.ok && answer) return answer;
    throw { status: response.status, message: answer?.detail ?? answer?.exception_message ?? `${response.status} ${response.statusText}` };
  }

  download(format) {
    return `${this.#path("logs/download")}?format=${format}`;
  }

  // What comes behind the cursor is told; whoever is cut off is told that it is lost, and asked to begin again by `resume`.
  follow(cursor, resume) {
    this.stop();
    const url = new URL(this.#path("logs/tail"), location.href);
    url.protocol = url.protocol.replace("http", "ws");
    if (cursor) url.searchParams.set("after", cursor);
    const socket = new WebSocket(url);
    this.#socket = socket;
    socket.addEventListener("message", (event) => this.#socket === socket && this.#take(event.data));
    socket.addEventListener("close", ({ code, reason }) => {
      if (this.#socket !== socket) return;
      this.#socket = undefined;
      if (code === REFUSED) this.#tell("refused", { message: reason });
      else this.lost(resume);
    });
  }

  lost(resume) {
    this.#tell("lost");
    const wait = PATIENCE_MS[Math.min(this.#losses++, PATIENCE_MS.length - 1)];
    clearTimeout(this.#again);
    this.#again = setTimeout(resume, wait * (0.75 + Math.random() / 2));
  }

  stop() {
    clearTimeout(this.#again);
    const socket = this.#socket;
    this.#socket = undefined;
    socket?.close();
  }

  #take(text) {
    const lines = [];
    for (const one of text.split("\n")) {
      const told = JSON.parse(one);
      if (told.type === "log") lines.push(cut(told.log));
      else if (told.type === "start") {
        this.#losses = 0;
        this.#tell("open");
      } else if (told.type === "state") {
        if (lines.length) this.#tell("lines", { lines: lines.splice(0) });
        this.stop();
        this.#tell("ended", { state: told.state });
      }
    }
    if (lines.length) this.#tell("lines", { lines });
  }

  #path(rest) {
    return `${this.#api}managed/flow_runs/${encodeURIComponent(this.#run)}/${rest}`;
  }

  #tell(name, detail) {
    this.dispatchEvent(new CustomEvent(name, { detail }));
  }
}

function cut(line) {
  line.chars = null;
  if (line.message.length > MAX_CHARS) {
    line.chars = line.message.length;
    // A part of a string holds the whole one; a copy does not.
    line.message = JSON.parse(JSON.stringify(line.message.slice(0, MAX_CHARS)));
  }
  return line;
}
