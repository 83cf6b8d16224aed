"use strict";
// Votes are kept by the server before the next pair is shown; what it has already is not counted again.
const WAIT_MILLISECONDS = 15000; // after the last pair, until it is asked whether a candidate has joined
const LEAST_MILLISECONDS = 400; // for which a pair is to be seen: the second click of a double click is on the next
const KEYS = { 1: "left", 2: "right", 0: "tie", x: "skip" };
const token = new URLSearchParams(location.hash.slice(1)).get("token");
const element = (id) => document.getElementById(id);
const buttons = [...document.querySelectorAll("[data-choice]")];
let pair = null, busy = false, shownAt = 0, blobs = [], waiting = 0;

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
  clearTimeout(waiting);
  element("pair").hidden = element("who").hidden = element("bar").hidden = true;
  element("enter").hidden = false;
  element("name").value = stored.name;
  element("name").focus();
}

function paragraph(text) {
  const shown = document.createElement("p");
  shown.textContent = text;
  return shown;
}

function fetched(name, show, shown) {
  ask(`/api/image/${encodeURIComponent(name)}`).then((url) => {
    blobs.push(url);
    show(url);
  }, (error) => shown.replaceWith(paragraph(`This can't be shown: ${error.message}`)));
  return shown;
}

function picture(name, alt) {
  const link = document.createElement("a"), image = document.createElement("img");
  image.alt = alt;
  link.target = "_blank";
  link.append(image);
  return fetched(name, (url) => { image.src = link.href = url; }, link);
}

function strip(part, title) {
  const frames = document.createElement("div");
  frames.className = "strip";
  frames.tabIndex = 0;
  frames.setAttribute("role", "group");
  frames.setAttribute("aria-label", `${title}: ${part.frames.length} frames, in their order`);
  frames.append(...part.frames.map((name, i) => picture(name, `${title}, frame ${i + 1}`)));
  return frames;
}

function video(part, title) {
  if (!part.plays) return strip(part, title);
  const video = document.createElement("video");
  Object.assign(video, { controls: true, playsInline: true });
  video.setAttribute("aria-label", title);
  video.addEventListener("error", () => video.isConnected && video.replaceWith(strip(part, title))); // a codec it lacks
  return fetched(part.value, (url) => { video.src = url; }, video);
}

function parts(all) {
  const counts = { image: 0, video: 0 };
  return all.map((part) => {
    if (part.type === "text") return paragraph(part.value);
    const number = ++counts[part.type];
    return part.type === "video" ? video(part, `Video ${number}`) : picture(part.value, `Picture ${number} of the question`);
  });
}

function show(state) {
  pair = state.pair;
  element("enter").hidden = true;
  element("who").hidden = element("bar").hidden = false;
  Object.assign(element("bar"), { max: state.pairs || 1, value: state.done });
  element("progress").textContent = `${state.voter}: ${state.done} of ${state.pairs} pairs`;
  element("pair").hidden = !pair;
  element("question").replaceChildren(...(pair ? parts(pair.parts) : []));
  blobs.splice(0).forEach((url) => URL.revokeObjectURL(url));
  clearTimeout(waiting);
  if (!pair) {
    waiting = setTimeout(next, WAIT_MILLISECONDS);
    return say("You have seen every pair. Thank you.");
  }
  say("");
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
