// The station's page: what the state says, shown. Nothing is decided here.

import { agentNow, byId, follow, make, say, shape, span } from "./common.js";

const OLD_VERDICT_SECONDS = 60;
let state = null;
let chosen = "last"; // or "reject"
let mapShown = true;
let loading = null; // the id whose picture is being fetched
let drawn = null; // the part whose picture is shown

function show(next) {
  state = next;
  document.title = `${next.headline.word} – ${next.station.station}`;
  say("station", next.station.station);
  say("product", `${next.station.product} · ${next.station.device}`);
  byId("to-challenge").hidden = !next.may_change;
  banners(next.banners);
  verdict();
  numbers(next);
  lines(next.lines);
  history(next.history);
  picture();
}

function banners(said) {
  const parts = said.map(({ kind, text }) => make("p", { class: kind }, text));
  byId("banners").replaceChildren(...parts);
}

function verdict() {
  const { headline, last } = state;
  const box = byId("verdict");
  const isVerdict = ["ok", "ng", "inconclusive", "error", "collect"].includes(headline.kind);
  const old = isVerdict && last !== null && agentNow() - last.at > OLD_VERDICT_SECONDS;
  box.className = headline.kind + (headline.hollow ? " hollow" : "") + (old ? " old" : "");
  if (byId("shape").dataset.kind !== headline.kind) {
    byId("shape").dataset.kind = headline.kind;
    byId("shape").replaceChildren(shape(headline.kind));
  }
  say("word", headline.word);
  byId("word").className = headline.word.length <= 2 ? "short" : headline.word.length <= 8 ? "medium" : "long";
  say("note", headline.note);
  say("part", last ? last.part : "–");
  byId("part").className = last && last.part.length > 16 ? "small" : "";
  say("lot", (last && last.lot) || "–");
  say("why", isVerdict && last ? last.why : "");
  age();
}

function age() {
  if (state === null) return;
  say("age", state.last ? `${span(agentNow() - state.last.at)} ago` : "–");
}

const whole = new Intl.NumberFormat("en");
const percent = (share) => (share === null ? "–" : `${(share * 100).toFixed(share > 0.9995 && share < 1 ? 2 : 1)} %`);

function numbers({ today, start }) {
  for (const [id, counts] of Object.entries({ today, start })) {
    const cells = byId(id).querySelectorAll("td");
    const values = ["ok", "ng", "inconclusive", "error", "missed"].map((name) => whole.format(counts[name]));
    [...values, percent(counts.yield)].forEach((value, i) => {
      if (cells[i].textContent !== value) cells[i].textContent = value;
    });
  }
  const since = today.since.slice(11, 16); // later than midnight when nothing was counted before
  byId("today").querySelector("th").textContent = since === "00:00" ? "Today" : `Since ${since}`;
}

const marks = { good: "✓", plain: "•", warn: "!", bad: "✕" };

function lines(all) {
  const chips = all.map(({ name, level, short, text }) => {
    const whole = name === "Ledger"; // one line, in full
    const chip = make("li", { class: level + (whole ? " whole" : "") });
    chip.append(make("i", {}, marks[level]), make("b", {}, name), make("span", {}, whole ? text : short));
    return chip;
  });
  byId("lines").replaceChildren(...chips);
  const full = all.flatMap(({ name, level, text }) => [make("dt", { class: level }, `${marks[level]} ${name}`), make("dd", {}, text)]);
  byId("details-list").replaceChildren(...partInFull(), ...full);
}

function partInFull() {
  if (state.last === null) return [];
  const { part, lot, decision, why } = state.last;
  const words = `${part}${lot ? `, lot ${lot}` : ""}: ${decision}${why ? `, ${why}` : ""}`;
  return [make("dt", {}, "• Last part"), make("dd", {}, words)];
}

function history(parts) {
  const marksOf = parts.map(({ decision, part }) => {
    const item = make("li", { class: decision.toLowerCase(), title: `${part}: ${decision}` });
    item.append(shape(decision));
    return item;
  });
  byId("history").replaceChildren(...marksOf);
}

// The picture that is chosen. The next one is fetched only when this one is there, so a slow line skips some.
function picture() {
  const sight = state[chosen];
  byId("show-last").setAttribute("aria-pressed", chosen === "last");
  byId("show-reject").setAttribute("aria-pressed", chosen === "reject");
  byId("show-reject").hidden = state.reject === null;
  byId("heat").toggleAttribute("hidden", !mapShown);
  byId("boxes").toggleAttribute("hidden", !mapShown);
  byId("show-map").setAttribute("aria-pressed", mapShown);
  if (sight === null || !sight.width) return noPicture(sight);
  caption();
  if (loading !== null || (drawn !== null && sight.id === drawn.id)) return;
  loading = sight.id;
  const source = `/picture/${encodeURIComponent(sight.id)}.jpg`;
  const fetched = new Image();
  fetched.addEventListener("load", () => ready(sight, source));
  fetched.addEventListener("error", () => {
    loading = null; // another part has come since; its state is on its way
    setTimeout(again, 1000);
  });
  fetched.src = source;
}

function again() {
  if (state !== null && loading === null) picture();
}

function noPicture(sight) {
  drawn = null;
  byId("view").toggleAttribute("hidden", true);
  byId("no-picture").hidden = false;
  say("no-picture", sight === null ? "no picture yet" : "this part has no picture");
  caption();
}

function ready(sight, source) {
  loading = null;
  drawn = sight;
  byId("view").toggleAttribute("hidden", false);
  byId("no-picture").hidden = true;
  byId("view").setAttribute("viewBox", `0 0 ${sight.width} ${sight.height}`);
  const photo = byId("photo");
  photo.setAttribute("href", source);
  photo.setAttribute("width", sight.width);
  photo.setAttribute("height", sight.height);
  layMap(sight);
  byId("boxes").replaceChildren(...sight.boxes.flatMap((box) => boxOf(box, sight)));
  caption();
  again();
}

function layMap(sight) {
  const heat = byId("heat");
  if (sight.map === null) return heat.removeAttribute("href");
  const [x, y, width, height] = sight.map;
  for (const [key, value] of Object.entries({ x, y, width, height })) heat.setAttribute(key, value);
  heat.setAttribute("href", `/map/${encodeURIComponent(sight.id)}.png`);
}

function boxOf(box, sight) {
  const size = Math.max(sight.width, sight.height) / 22;
  const { x, y, width, height } = box;
  const label = make("text", { x, y: y > 1.3 * size ? y - 0.3 * size : y + height + size, "font-size": size }, box.label);
  if (x > sight.width * 0.7) {
    label.setAttribute("x", x + width);
    label.setAttribute("text-anchor", "end");
  }
  return [make("rect", { x, y, width, height }), label];
}

// Says whose picture it is, when it is not the last part's.
function caption() {
  const other = drawn !== null && state.last !== null && drawn.id !== state.last.id;
  say("caption", other ? `${drawn.part}: ${drawn.decision}` : "");
}

function toggleMap() {
  mapShown = !mapShown;
  again();
  byId("heat").toggleAttribute("hidden", !mapShown);
  byId("boxes").toggleAttribute("hidden", !mapShown);
  byId("show-map").setAttribute("aria-pressed", mapShown);
}

function choose(which) {
  chosen = which;
  again();
}

byId("show-last").addEventListener("click", () => choose("last"));
byId("show-reject").addEventListener("click", () => choose("reject"));
byId("show-map").addEventListener("click", toggleMap);
byId("view").addEventListener("click", toggleMap);
byId("lines").addEventListener("click", () => byId("details").showModal());
byId("close-details").addEventListener("click", () => byId("details").close());
byId("details").addEventListener("click", (event) => { if (event.target === byId("details")) byId("details").close(); });
setInterval(() => {
  say("clock", new Date().toLocaleTimeString("en-GB"));
  if (state !== null) verdict();
}, 1000);
follow(show);
