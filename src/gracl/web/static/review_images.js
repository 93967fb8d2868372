// The pane of images: those of a cluster, of none, or those that a search found. Images are selected here.

import { $, fileOf, make, many, percent, picture, ratio } from "./review_dom.js";
import { NONE } from "./review_store.js";
import { Virtual } from "./review_virtual.js";

const HEIGHTS = [96, 136, 184, 256]; // pixels of a picture
const UNSURE = 0.5; // doubt from which an image is pointed out
const AROUND = 16; // padding and gap of a cell

export class Images {
  constructor(store, { onSelect, look }) {
    Object.assign(this, { store, onSelect, size: 1, view: null, doubtful: false, facts: false });
    this.selected = new Set(); // rows
    this.anchor = 0;
    this.places = []; // what stands where, as places in the view
    this.box = $("#images");
    this.virtual = new Virtual(this.box, {
      key: (index) => this.row(index),
      draw: (element, index, isNew) => this.draw(element, index, isNew),
    });
    this.box.addEventListener("click", (event) => {
      const index = this.virtual.at(event);
      if (index == null) return;
      this.virtual.activate(index);
      if (event.target.closest(".look")) look();
      else if (event.shiftKey) this.range(this.anchor, index);
      else this.toggle(index);
    });
    this.box.addEventListener("dblclick", (event) => {
      if (this.virtual.at(event) == null || event.target.closest(".look")) return;
      look();
    });
    this.measure();
  }

  row(index) {
    return this.view?.rows[this.places[index]];
  }

  get activeRow() {
    return this.places.length ? this.row(this.virtual.active) : null;
  }

  /** What is known of the image at an index. */
  at(index) {
    const place = this.places[index];
    const { rows, files, clusters, cameras, dates, doubts, similarities } = this.view;
    return {
      row: rows[place], path: files[place], cluster: clusters[place], camera: cameras?.[place], date: dates?.[place],
      doubt: doubts?.[place] ?? 0, similarity: similarities?.[place],
    };
  }

  /** Shows a view. Of the selection what is still there stays, where it is the same view. */
  open(view, { same = false } = {}) {
    const before = same ? this.virtual.active : 0;
    this.view = view;
    const there = new Set(view.rows);
    this.selected = new Set(same ? [...this.selected].filter((row) => there.has(row)) : []);
    this.anchor = 0;
    this.arrange();
    if (!same) this.box.scrollTop = 0;
    this.virtual.active = before;
    this.virtual.set(this.places.length);
    this.measure();
    this.onSelect();
  }

  arrange() {
    this.places = this.view.rows.map((_, place) => place);
    const { doubts } = this.view;
    if (this.doubtful && doubts) this.places.sort((a, b) => doubts[b] - doubts[a] || a - b);
  }

  reorder() {
    this.doubtful = !this.doubtful;
    if (this.view) this.open(this.view, { same: true });
    this.virtual.activate(0);
    return this.doubtful;
  }

  toggleFacts() {
    this.facts = !this.facts;
    this.measure();
    this.virtual.refresh();
    return this.facts;
  }

  resize(step) {
    this.size = Math.max(0, Math.min(HEIGHTS.length - 1, this.size + step));
    this.measure();
    this.virtual.activate(this.virtual.active);
  }

  measure() {
    const height = HEIGHTS[this.size];
    const lines = (this.view?.similarities ? 2 : 0) + (this.facts ? 3 : 0);
    this.box.dataset.size = this.size;
    this.virtual.measure(height + AROUND + 18 * lines, Math.round(height / ratio) + AROUND);
  }

  draw(element, index, isNew) {
    const image = this.at(index);
    const isSelected = this.selected.has(image.row);
    const isUnsure = image.doubt >= UNSURE;
    if (isNew) {
      element.append(
        make(
          "span", { class: "frame" }, picture(image.row),
          make("span", { class: "check", "aria-hidden": "true" }, "✓"),
          make("span", { class: "look", "aria-hidden": "true", title: "Look closer" }, "⤢"),
          make("span", { class: "unsure", "aria-hidden": "true" }, "?"),
        ),
        make("span", { class: "caption" }),
      );
    }
    $(".unsure", element).hidden = !isUnsure;
    $(".unsure", element).title = `doubt ${percent(image.doubt)}`;
    element.className = `cell${isSelected ? " selected" : ""}${index === this.virtual.active ? " active" : ""}`;
    element.setAttribute("aria-selected", isSelected);
    const where = [image.camera, image.date].filter(Boolean);
    const words = [fileOf(image.path), ...where];
    if (isUnsure) words.push(`doubt ${percent(image.doubt)}`);
    const caption = [];
    if (image.similarity != null) {
      caption.push(make("strong", {}, this.store.title(image.cluster)), `${image.similarity.toFixed(2)} similar`);
      words.push(...caption.map((one) => one.textContent ?? one));
    }
    if (this.facts) caption.push(fileOf(image.path), image.camera ?? "", image.date ?? "");
    $(".caption", element).replaceChildren(...caption.filter((one) => one !== "").map((one) => make("span", {}, one)));
    element.setAttribute("aria-label", words.join(", "));
  }

  // -- selecting -------------------------------------------------------------------------------------

  change(rows, isOn) {
    for (const row of rows) {
      if (isOn) this.selected.add(row);
      else this.selected.delete(row);
    }
    this.virtual.refresh();
    this.onSelect();
  }

  toggle(index) {
    this.anchor = index;
    this.change([this.row(index)], !this.selected.has(this.row(index)));
  }

  range(from, to) {
    const [first, last] = [Math.min(from, to), Math.max(from, to)];
    this.change(this.places.slice(first, last + 1).map((place) => this.view.rows[place]), true);
  }

  all() {
    if (this.view) this.change(this.view.rows, true);
  }

  clear() {
    this.change([...this.selected], false);
  }

  /** The selected images, or else the active one where that is meant. */
  chosen() {
    return [...this.selected];
  }

  /** Arrow keys, with shift selecting on the way; true if the key was one. */
  handle(event) {
    const target = this.virtual.target(event.key);
    if (target == null || !this.places.length) return false;
    if (event.shiftKey) this.range(this.virtual.active, target);
    else this.anchor = target;
    this.virtual.activate(target);
    this.virtual.refresh();
    return true;
  }

  /** What the selection is called: "3 images". */
  get words() {
    return many(this.selected.size, "image");
  }

  get isNone() {
    return this.view?.number === NONE;
  }
}
