// The search page: takes a picture, asks the API of this server, shows what it answers. A new picture, another
// part of it or another filter searches again at once; an answer that is no longer asked for is dropped.

import { Part } from "./search_box.js";
import { element, plural, showAnswer, showMatches } from "./search_view.js";

const $ = (selector) => document.querySelector(selector);
const PATIENCE = 400; // milliseconds after the last change of a filter
const NARROW = matchMedia("(max-width: 860px)"); // what is found stands below what is asked
const RETRIES = 5; // where the server says that it has too much to do

let about = null, picture = null, running = null, timer = null;
const chosen = new Set(); // individuals to search among
const part = new Part(() => search());

// -- asking ----------------------------------------------------------------------------------------

async function ask(path, how = {}) {
  let answer;
  try {
    answer = await fetch(path, how);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Error("The server does not answer. Is 'gracl serve' still running in its terminal?");
  }
  if (answer.ok) return answer.json();
  const words = await answer.json().then((found) => found.error, () => `the server answered ${answer.status}`);
  throw Object.assign(new Error(words), { status: answer.status, wait: answer.headers.get("Retry-After") });
}

function asked() {
  const form = new FormData();
  form.append("picture", picture);
  form.append("k", $("#k").value || "12");
  if (part.text) form.append("box", part.text);
  for (const name of ["camera", "site"]) {
    for (const box of document.querySelectorAll(`input[name=${name}]:checked`)) form.append(name, box.value);
  }
  for (const name of chosen) form.append("identity", name);
  for (const name of ["since", "until"]) if ($(`#${name}`).value.trim()) form.append(name, $(`#${name}`).value.trim());
  return form;
}

async function search() {
  if (!picture) return;
  running?.abort();
  const mine = running = new AbortController();
  clearTimeout(timer);
  $("#found").setAttribute("aria-busy", "true");
  $("#status").textContent = "Searching";
  try {
    const answer = await patiently(() => ask("/api/search", { method: "POST", body: asked(), signal: mine.signal }), mine);
    if (running !== mine) return;
    fail(null);
    show(answer);
  } catch (error) {
    if (running !== mine || error.name === "AbortError") return;
    $("#result").hidden = true;
    fail(error.message);
  }
  $("#found").setAttribute("aria-busy", "false");
}

async function patiently(action, mine) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await action();
    } catch (error) {
      if (error.status !== 503 || attempt === RETRIES || running !== mine) throw error;
      await new Promise((done) => setTimeout(done, 1000 * (Number(error.wait) || 1)));
    }
  }
}

// -- showing ---------------------------------------------------------------------------------------

function show(answer) {
  const none = answer.matches.length === 0;
  $("#hello").hidden = !none;
  $("#result").hidden = none;
  if (none) {
    hello(about?.images === 0 ? empty() : [element("p", {}, "No image of the gallery meets these filters.")]);
    $("#status").textContent = $("#hello").textContent;
    return;
  }
  showAnswer(answer, about);
  showMatches(answer, choose);
  if (NARROW.matches) $("#found").scrollIntoView({ block: "start" });
  $("#status").textContent = `${$("#answer").textContent}. ${plural(answer.matches.length, "match", "matches")}.`;
}

function fail(words) {
  $("#error").hidden = words === null;
  $("#error").textContent = words === null ? "" : `${words[0].toUpperCase()}${words.slice(1)}${/[.?!]$/.test(words) ? "" : "."}`;
  if (words !== null) { $("#status").textContent = ""; $("#hello").hidden = true; }
}

function hello(children) {
  $("#hello").hidden = false;
  $("#hello").replaceChildren(element("div", {}, ...children));
}

function empty() {
  return [element("h2", {}, "This gallery is empty"), element("p", {}, "Add images with 'gracl gallery add', then search again.")];
}

function welcome() {
  const keys = [["O", "choose a picture"], ["Ctrl V", "paste one"], ["W", "the whole picture"], ["/", "individuals"], ["S", "search"]];
  return [
    element("p", {}, "Who is it? Give a picture, and the nearest images of the gallery come up here."),
    element("p", {}, "The picture stays in this machine's memory and is kept nowhere."),
    element("ul", { className: "keys" }, ...keys.map(([key, what]) => element("li", {}, element("kbd", {}, key), ` ${what}`))),
  ];
}

async function start() {
  hello(welcome());
  try {
    about = await ask("/api/about");
  } catch (error) {
    fail(error.message);
    return;
  }
  const counts = [plural(about.images, "image"), `${plural(about.identities, "individual")} by name`];
  $("#about").textContent = counts.join(", ");
  $("#types").textContent = `${about.limits.types.join(", ")}; up to ${Math.floor(about.limits.bytes / 2 ** 20)} MB`;
  chips("#cameras", "camera", about.cameras);
  chips("#sites", "site", about.sites);
  $("#individuals").hidden = about.identities === 0;
  if (about.images === 0) hello(empty());
}

function chips(place, name, values) {
  $(place).hidden = values.length === 0;
  $(`${place} .chips`).replaceChildren(...values.map((value) => element("label", { className: "chip" },
    element("input", { type: "checkbox", name, value: value.name, onchange: later }),
    element("span", {}, value.name), element("span", { className: "soft" }, value.images.toLocaleString("en")))));
}

// -- the picture -----------------------------------------------------------------------------------

function take(file) {
  if (!file) return;
  if (about && file.size > about.limits.bytes) {
    fail(`The picture has ${(file.size / 2 ** 20).toFixed(1)} MB; up to ${Math.floor(about.limits.bytes / 2 ** 20)} MB are taken`);
    return;
  }
  picture = file;
  const preview = $("#preview");
  URL.revokeObjectURL(preview.src);
  const shown = (size) => {
    part.open(size);
    $("#unshown").hidden = size !== null;
  };
  preview.onload = () => shown([preview.naturalWidth, preview.naturalHeight]);
  preview.onerror = () => shown(null);
  preview.src = URL.createObjectURL(file);
  part.open(null);
  $("#drop").classList.add("visually-hidden");
  $("#seen").hidden = false;
  $("#go").disabled = false;
  search();
}

$("#file").addEventListener("change", (event) => {
  take(event.target.files[0]);
  event.target.value = ""; // so that the same file may be chosen again
});
$("#another").addEventListener("click", () => $("#file").click());
addEventListener("paste", (event) => {
  const file = [...(event.clipboardData?.files ?? [])][0];
  if (file) { event.preventDefault(); take(file); }
});
for (const kind of ["dragenter", "dragover"]) {
  addEventListener(kind, (event) => { event.preventDefault(); document.body.classList.add("dragging"); });
}
addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dragging"); });
addEventListener("drop", (event) => {
  event.preventDefault();
  document.body.classList.remove("dragging");
  take(event.dataTransfer.files[0]);
});

// -- filters ---------------------------------------------------------------------------------------

function later() {
  const set = chosen.size || document.querySelector(".filters input:checked") || $("#since").value || $("#until").value;
  $("#clear").hidden = !set;
  clearTimeout(timer);
  timer = setTimeout(search, PATIENCE);
}

function choose(name) {
  chosen.add(name);
  $("#filters").open = true;
  showChosen();
}

function showChosen() {
  $("#chosen").replaceChildren(...[...chosen].map((name) => element("button", {
    type: "button", className: "chip", onclick: () => { chosen.delete(name); showChosen(); $("#individual").focus(); },
    "aria-label": `Not only ${name}`,
  }, name, element("span", { "aria-hidden": "true" }, "×"))));
  later();
}

async function suggest() {
  const words = $("#individual").value.trim();
  const how = words ? `?limit=20&contains=${encodeURIComponent(words)}` : "?limit=20";
  const found = await ask(`/api/identities${how}`).catch(() => ({ identities: [] }));
  $("#names").replaceChildren(...found.identities.map((one) => element("option", { value: one.name })));
  return found.identities.map((one) => one.name);
}

async function enter() {
  const name = $("#individual").value.trim();
  if (!name) return;
  const known = (await suggest()).find((one) => one.toLowerCase() === name.toLowerCase());
  if (known === undefined) { fail(`Nobody is called '${name}' here`); return; }
  fail(null);
  $("#individual").value = "";
  choose(known);
}

$("#individual").addEventListener("input", suggest);
$("#individual").addEventListener("focus", suggest);
$("#individual").addEventListener("change", enter);
for (const id of ["#since", "#until", "#k"]) $(id).addEventListener("change", later);
$("#clear").addEventListener("click", () => {
  for (const box of document.querySelectorAll(".filters input:checked")) box.checked = false;
  for (const id of ["#since", "#until"]) $(id).value = "";
  chosen.clear();
  showChosen();
});
$("#search").addEventListener("submit", (event) => { event.preventDefault(); search(); });

// -- keys ------------------------------------------------------------------------------------------

const KEYS = {
  o: () => $("#file").click(),
  w: () => { if (!$("#whole").disabled) part.set(null); },
  s: () => search(),
  "/": () => { $("#filters").open = true; $("#individual").focus(); },
};
addEventListener("keydown", (event) => {
  const typing = event.target.matches?.("input:not([type=checkbox]):not([type=file]), textarea, select");
  if (typing && event.key === "Enter" && event.target.id === "individual") { event.preventDefault(); enter(); return; }
  if (typing && event.key === "Escape") event.target.blur();
  if (typing || event.ctrlKey || event.metaKey || event.altKey || !(event.key in KEYS)) return;
  event.preventDefault();
  KEYS[event.key]();
});

$("#filters").open = !NARROW.matches;
start();
