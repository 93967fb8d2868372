// Small things that every part of the review's page needs: elements, pictures, words, messages.

export const app = document.getElementById("app");

/** Height over width of most pictures of the run, within reason. */
export const ratio = Math.max(0.5, Math.min(2.5, Number(app.dataset.ratio)));

// As many faces of a cluster as 100 pixels hold, whole.
const face = 64 / ratio;
app.style.setProperty("--faces", `${Math.max(1, Math.min(3, Math.floor(102 / (face + 2)))) * (face + 2) - 2}px`);

export const $ = (selector, within = document) => within.querySelector(selector);

/** An element with attributes (false leaves one out) and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== false && value != null) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children);
  return element;
}

export const thumbnailOf = (row) => `/thumbnails/${app.dataset.key}/${row}.jpg`;
export const imageOf = (row) => `/images/${app.dataset.key}/${row}.jpg`;

/** A small picture; one that cannot be read says so in its place. */
export function picture(row, alt = "") {
  const image = make("img", { src: thumbnailOf(row), alt, draggable: "false", decoding: "async" });
  image.addEventListener("error", () => {
    image.replaceWith(make("span", { class: "unreadable" }, "cannot be read"));
  }, { once: true });
  return image;
}

export const many = (n, one, more = `${one}s`) => `${n.toLocaleString("en")} ${n === 1 ? one : more}`;
export const percent = (share) => `${Math.round(100 * share)} %`;
export const fileOf = (path) => path.slice(path.lastIndexOf("/") + 1);

/** Tells what was done, with a button that undoes it. */
export function say(words, { undo = false } = {}) {
  const place = $("#said");
  const button = $("button", place);
  if (!undo && document.activeElement === button) $("#images").focus();
  $("span", place).textContent = words;
  button.hidden = !undo;
}

/** Tells what is wrong, until it is dismissed or something else succeeds; "" takes it away. */
export function trouble(words, mayOverrule = false) {
  const place = $("#trouble");
  if (!words && place.contains(document.activeElement)) $("#images").focus();
  fill(place, words, mayOverrule);
}

/** Tells what is wrong inside a dialog, which hides all that lies behind it. */
export function troubleIn(dialog, words, mayOverrule = false) {
  fill($(".error", dialog), words, mayOverrule);
}

/** With a capital, unless it begins with the name of a file. */
export const sentence = (words) => words.replace(/^[a-z]+(?= )/, (word) => word[0].toUpperCase() + word.slice(1));

function fill(place, words, mayOverrule) {
  place.hidden = !words;
  $("span", place).textContent = sentence(words);
  const button = $('[data-do="overrule"]', place);
  if (button) button.hidden = !mayOverrule;
}
