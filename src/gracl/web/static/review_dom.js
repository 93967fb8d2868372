// Small things that every part of the review's page needs: elements, pictures, words, messages.

export const app = document.getElementById("app");

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

let hiding = 0;

/** Tells what was done, for a while, with a button that undoes it. */
export function say(words, { undo = false } = {}) {
  const place = $("#said");
  clearTimeout(hiding);
  place.hidden = false;
  $("span", place).textContent = words;
  $("button", place).hidden = !undo;
  hiding = setTimeout(() => {
    if (place.contains(document.activeElement)) $("#images").focus();
    place.hidden = true;
  }, 8000);
}

/** Tells what is wrong, until it is dismissed or something else succeeds; "" takes it away. */
export function trouble(words) {
  const place = $("#trouble");
  if (!words && place.contains(document.activeElement)) $("#images").focus();
  place.hidden = !words;
  $("span", place).textContent = words;
}

/** Tells what is wrong inside a dialog, which hides all that lies behind it. */
export function troubleIn(dialog, words) {
  const place = $(".error", dialog);
  place.hidden = !words;
  place.textContent = words;
}
