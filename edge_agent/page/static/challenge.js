// The challenge: asks for a plan, leads through it, says in large words what came of it. The agent counts, not this page.

import { byId, follow, make, say, shape } from "./common.js";

const MOST = 25;
let state = null;
let pin = null; // kept while this page is open, nowhere else
let dismissed = null; // the result that "New challenge" put away
let touched = false; // the person changed the plan's switch
let shown = null; // which of the three views is shown
const parts = Array.from({ length: 5 }, () => ({ expected: "NG", name: "" }));

function show(next) {
  state = next;
  say("station", next.station.station);
  const { running, trial } = next.challenge;
  const key = trial && JSON.stringify([trial.outcome, trial.result]);
  const result = !running && trial !== null && dismissed !== key;
  byId("read-only").hidden = next.may_change;
  byId("guide").hidden = !running;
  byId("result").hidden = !result;
  byId("steps").hidden = !(running || result);
  byId("plan").hidden = running || result || !next.may_change;
  byId("again").hidden = !next.may_change;
  const view = running ? "guide" : result ? "result" : "plan";
  if (shown !== view) window.scrollTo(0, 0);
  shown = view;
  if (!touched) byId("confirm").checked = next.challenge.by_hand;
  if (running) guide(next.challenge);
  if (result) concluded(trial, key);
  if (trial !== null) steps(trial.steps, running ? next.challenge.position : -1);
}

function guide(challenge) {
  const { trial, position, armed, confirm, seconds_left: left } = challenge;
  const step = trial.steps[position];
  say("step", challenge.step.charAt(0).toUpperCase() + challenge.step.slice(1));
  say("about", challenge.about);
  const said = step.decision === "ERROR" ? `The last picture could not be judged: ${step.reason}. It does not count.` : "";
  const wait = armed ? (confirm ? "Looking at the part…" : "The next part counts.") : "Lay it there, then press:";
  say("hint", `${said} ${wait}`.trim());
  byId("there").hidden = !confirm || armed;
  byId("cancel").hidden = !state.may_change;
  say("left", `ends by itself in ${Math.ceil(left / 60)} min`);
}

function concluded(trial) {
  byId("result").className = trial.outcome;
  say("conclusion", trial.conclusion);
  say("summary", trial.result);
  say("when", `${trial.age} ago`);
}

const words = { caught: "caught", missed: "MISSED", passed: "passed", rejected: "rejected" };

function steps(all, current) {
  const rows = all.map((step, i) => {
    const row = make("li", { class: (step.result || "open") + (i === current ? " current" : "") });
    if (step.decision) row.append(shape(step.decision));
    const name = step.name ? `${step.name}, ` : "";
    row.append(make("span", {}, `${name}expected ${step.expected}`));
    row.append(make("b", {}, step.result ? `${step.decision}: ${words[step.result]}` : i === current ? "now" : ""));
    return row;
  });
  byId("steps").replaceChildren(...rows);
}

function planned() {
  say("bad", String(parts.filter((part) => part.expected === "NG").length));
  say("good", String(parts.filter((part) => part.expected === "OK").length));
  const rows = parts.map((part, i) => {
    const row = make("li");
    const turn = make("button", { type: "button", class: part.expected.toLowerCase() }, `expected ${part.expected}`);
    turn.addEventListener("click", () => { part.expected = part.expected === "NG" ? "OK" : "NG"; planned(); });
    const name = make("input", { maxlength: "80", placeholder: "name, if it has one", "aria-label": `name of part ${i + 1}` });
    name.value = part.name;
    name.addEventListener("input", () => { part.name = name.value; });
    row.append(turn, name);
    return row;
  });
  byId("parts").replaceChildren(...rows);
}

function change(kind, by) {
  const index = parts.map((part) => part.expected).lastIndexOf(kind);
  const bad = parts.filter((part) => part.expected === "NG").length;
  if (by > 0 && parts.length < MOST) parts.splice(kind === "NG" ? bad : parts.length, 0, { expected: kind, name: "" });
  if (by < 0 && index >= 0 && !(kind === "NG" && bad === 1)) parts.splice(index, 1);
  planned();
}

// Asks for the PIN when it is not known, sends, and says what the agent answered.
async function send(method, path, body) {
  say("said", "");
  if (pin === null) pin = await askPin();
  if (pin === null) return;
  const headers = { "Content-Type": "application/json", "X-Escapement-Pin": pin };
  try {
    const answer = await fetch(path, { method, headers, body: body && JSON.stringify(body) });
    if (answer.ok) { dismissed = null; return; }
    if ([401, 403, 429].includes(answer.status)) pin = null;
    say("said", (await answer.json()).error);
  } catch (error) {
    pin = null;
    say("said", `The agent did not take it: ${error.message}`);
  }
}

function askPin() {
  const dialog = byId("keypad");
  byId("typed").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok" ? byId("typed").value : null), { once: true });
  });
}

function keys() {
  const press = (key) => () => {
    const typed = byId("typed");
    typed.value = key === "⌫" ? typed.value.slice(0, -1) : typed.value + key;
  };
  for (const key of ["1", "2", "3", "4", "5", "6", "7", "8", "9", "", "0", "⌫"]) {
    const button = make("button", { type: "button", ...(key ? {} : { disabled: "" }) }, key);
    button.addEventListener("click", press(key));
    byId("keys").append(button);
  }
}

byId("keypad").querySelector("form").addEventListener("submit", (event) => { event.preventDefault(); byId("keypad").close("ok"); });
byId("no-pin").addEventListener("click", () => byId("keypad").close("no"));
byId("plan").addEventListener("submit", (event) => {
  event.preventDefault();
  const known = parts.map(({ expected, name }) => ({ expected, name: name.trim() }));
  send("POST", "/challenge", { parts: known, confirm: byId("confirm").checked });
});
byId("plan").addEventListener("click", (event) => {
  const { kind, by } = event.target.dataset;
  if (kind) change(kind, Number(by));
});
byId("confirm").addEventListener("change", () => { touched = true; });
byId("there").addEventListener("click", () => send("POST", "/challenge/show"));
byId("cancel").addEventListener("click", () => send("DELETE", "/challenge"));
byId("again").addEventListener("click", () => {
  const { trial } = state.challenge;
  dismissed = JSON.stringify([trial.outcome, trial.result]);
  show(state);
});
keys();
planned();
follow(show);
