// What both pages share: the stream of states, and the cover that hides everything as soon as it is not fresh.
// Text from the agent is only ever set as text.

const SILENT_MS = 6000; // three beats: without a word for so long the connection is gone
const OLD_SECONDS = 6; // the agent answers, but its state is older than this

export const byId = (id) => document.getElementById(id);

export function say(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

export function make(name, attributes = {}, text = "") {
  const svg = ["rect", "text", "path", "svg"].includes(name);
  const element = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}

// A shape of its own for every kind, so that nobody needs to tell green from red. Lines on a square of 100.
const SHAPES = {
  ok: ["M50 6a44 44 0 1 0 .1 0z", "M27 52l16 17 31-37"],
  ng: ["M32 6h36l26 26v36l-26 26H32L6 68V32z", "M33 33l34 34M67 33L33 67"],
  inconclusive: ["M50 5l45 45-45 45L5 50z", "M38 41c0-8 5-13 12-13s12 5 12 11c0 9-12 10-12 20M50 71v.1"],
  error: ["M50 8l45 80H5z", "M50 37v24M50 74v.1"],
  hold: ["M14 8h72q6 0 6 6v72q0 6-6 6H14q-6 0-6-6V14q0-6 6-6z", "M38 30v40M62 30v40"],
  camera: ["M10 30h18l7-11h30l7 11h18v48H10zM50 40a13 13 0 1 0 .1 0z", "M8 92L92 8"],
  stalled: ["M50 6a44 44 0 1 0 .1 0z", "M35 35h30v30H35z"],
  wait: ["M50 6a44 44 0 1 0 .1 0z", "M29 50v.1M50 50v.1M71 50v.1"],
  challenge: ["M50 6a44 44 0 1 0 .1 0z", "M50 26a24 24 0 1 0 .1 0zM50 50v.1"],
  collect: ["M12 55v33h76V55", "M50 10v50M32 45l18 19 18-19"],
};

export function shape(kind) {
  const drawn = make("svg", { viewBox: "0 0 100 100", "aria-hidden": "true" });
  for (const line of SHAPES[kind.toLowerCase()] || SHAPES.wait) drawn.append(make("path", { d: line }));
  return drawn;
}

export function span(seconds) {
  if (seconds < 60) return `${Math.floor(Math.max(0, seconds))} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86400)} days`;
}

// The agent's monotonic clock, as far as it is known here.
let offset = 0;
export const agentNow = () => performance.now() / 1000 + offset;

function cover(word, note) {
  const lost = byId("lost");
  lost.hidden = word === null;
  document.body.classList.toggle("covered", word !== null);
  if (word === null) return;
  say("lost-word", word);
  say("lost-note", note);
}

// Calls `show` with each new state. While none is fresh, everything is covered.
export function follow(show) {
  let heardAt = performance.now();
  let made = null;
  let known = false;
  let assets = null;
  let stream = null;

  function open() {
    stream = new EventSource("/events");
    stream.addEventListener("message", (event) => take(JSON.parse(event.data)));
    stream.addEventListener("beat", (event) => take(JSON.parse(event.data)));
    stream.addEventListener("error", () => {
      if (stream.readyState !== EventSource.CLOSED) return; // it tries again by itself
      stream.close();
      setTimeout(open, 2000);
    });
  }

  function take(message) {
    heardAt = performance.now();
    offset = message.clock - heardAt / 1000;
    made = message.made;
    if (message.state) {
      if (assets !== null && assets !== message.state.assets) location.reload(); // the agent was updated
      assets = message.state.assets;
      known = true;
      show(message.state);
    }
    look();
  }

  function look() {
    const silent = performance.now() - heardAt;
    if (silent > SILENT_MS) {
      cover("NO CONNECTION", `The agent has not been heard for ${span(silent / 1000)}. Nothing is known about the parts.`);
    } else if (!known) {
      cover("CONNECTING", "to the agent…");
    } else if (made === null || agentNow() - made > OLD_SECONDS) {
      cover("NO ANSWER", `The agent runs, but has not said for ${span(agentNow() - made)} how it is. Call for help.`);
    } else {
      cover(null);
    }
  }

  setInterval(look, 500);
  open();
}
