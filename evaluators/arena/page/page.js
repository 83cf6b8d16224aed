"use strict";
// Votes are kept by the server before the next pair is shown; what it has already is not counted again.
const LEAST_MILLISECONDS = 400; // for which a pair is to be seen: the second click of a double click is on the next
const KEYS = { 1: "left", 2: "right", 0: "tie", x: "skip" };
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const element = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll("[data-choice]")];
let pair = null, busy = false, shownAt = 0, pictures = [];

const stored = {
  get name() { try { return localStorage.getItem("arena-name") || ""; } catch { return this.kept || ""; } },
  set name(value) { this.kept = value; try { localStorage.setItem("arena-name", value); } catch { /* for this page alone */ } },
};

async function ask(path, body) {
  const headers = { Authorization: `Bearer ${token}` };
  if (body) headers["Content-Type"] = "application/json";
  const reply = await fetch(path, { method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body) });
  if (path.startsWith("/api/image/") && reply.ok) return URL.createObjectURL(await reply.blob());
  const value = await reply.json();
  if (!reply.ok) throw new Error(value.error);
  return value;
}

function say(text, isBad = false) {
  element("message").textContent = text;
  element("message").className = isBad ? "bad" : "";
}

function showName() {
  pair = null;
  element("pair").hidden = element("who").hidden = true;
  element("enter").hidden = false;
  element("name").value = stored.name;
  element("name").focus();
}

function paragraph(text) {
  const shown = document.createElement("p");
  shown.textContent = text;
  return shown;
}

function picture(name, number) {
  const link = document.createElement("a"), image = document.createElement("img");
  image.alt = `Picture ${number} of the question`;
  link.target = "_blank";
  link.append(image);
  ask(`/api/image/${encodeURIComponent(name)}`).then((url) => {
    pictures.push(url);
    image.src = link.href = url;
  }, (error) => link.replaceWith(paragraph(`This picture can't be shown: ${error.message}`)));
  return link;
}

function show(state) {
  pair = state.pair;
  element("enter").hidden = true;
  element("who").hidden = false;
  element("progress").textContent = `${state.voter}: ${state.done} of ${state.pairs} pairs`;
  element("pair").hidden = !pair;
  pictures.splice(0).forEach((url) => URL.revokeObjectURL(url));
  if (!pair) return say("You have seen every pair. Thank you.");
  say("");
  let number = 0;
  const parts = pair.parts.map((part) => (part.type === "image" ? picture(part.value, ++number) : paragraph(part.value)));
  element("question").replaceChildren(...parts);
  for (const side of ["left", "right"]) {
    const text = pair[side].text.trim();
    element(side).textContent = text || "no answer";
    element(side).className = text ? "text" : "text none";
  }
  scrollTo(0, 0);
  element("question").focus({ preventScroll: true });
  shownAt = performance.now();
}

async function during(work) {
  if (busy) return;
  busy = true;
  buttons.forEach((button) => { button.disabled = true; });
  try {
    show(await work());
  } catch (error) {
    const reason = error instanceof TypeError ? "the arena does not answer" : error.message;
    say(pair ? `Not kept: ${reason}. Vote again.` : `${reason}.`, true);
  } finally {
    busy = false;
    buttons.forEach((button) => { button.disabled = false; });
  }
}

function next() {
  return during(() => ask(`/api/next?voter=${encodeURIComponent(stored.name)}`));
}

function vote(choice) {
  if (!pair || busy || performance.now() - shownAt < LEAST_MILLISECONDS) return;
  const { question, left, right } = pair;
  during(() => ask("/api/vote", { voter: stored.name, question, left: left.key, right: right.key, choice }));
}

buttons.forEach((button) => button.addEventListener("click", () => vote(button.dataset.choice)));
document.addEventListener("keydown", (event) => {
  const isTyping = event.target instanceof HTMLInputElement;
  const choice = KEYS[event.key.toLowerCase()];
  if (!choice || isTyping || event.repeat || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  vote(choice);
});
element("enter").addEventListener("submit", (event) => {
  event.preventDefault();
  stored.name = element("name").value.trim().replace(/\s+/g, " ");
  if (stored.name) next();
});
element("leave").addEventListener("click", showName);

if (!token) say("Open the whole link: it ends in #token=...", true);
else if (stored.name) next();
else showName();
