// Dialogs over the page: two clusters side by side, where to move images, a name, one image at large.
// Each gets its work done by a function that it is given, and stays open where that was refused.

import { $, fileOf, imageOf, make, many, percent, picture, ratio, troubleIn } from "./review_dom.js";
import { get } from "./review_api.js";
import { drawCluster } from "./review_list.js";
import { titleOf } from "./review_store.js";
import { Virtual } from "./review_virtual.js";

/** Pixels of a picture's height where clusters of so many images are compared. */
const heightFor = (n) => (n <= 8 ? 208 : n <= 24 ? 152 : 104);

/** Opens a dialog without an old complaint in it. */
function open(dialog) {
  const complaint = $(".error", dialog);
  if (complaint) troubleIn(dialog, "");
  if (!dialog.open) dialog.showModal();
}

/** Closes dialogs by a click beside them. */
export function closeByClickBeside(dialog) {
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}

export class Compare {
  /** act(kind, numbers, rows) does "merge", "apart" or "go" with two clusters and an image of each. */
  constructor(store, act) {
    Object.assign(this, { store, act, dialog: $("#compare"), rows: [[], []], pair: [] });
    closeByClickBeside(this.dialog);
    this.sides = [...this.dialog.querySelectorAll(".sides section")].map((section, side) => {
      const box = $(".virtual", section);
      box.id = `compare-${side}`;
      const virtual = new Virtual(box, {
        key: (index) => this.rows[side][index],
        draw: (element, index, isNew) => {
          element.className = "cell";
          if (isNew) element.append(make("span", { class: "frame" }, picture(this.rows[side][index])));
          element.setAttribute("aria-label", fileOf(this.files[side][index]));
        },
      });
      box.addEventListener("keydown", (event) => {
        const target = virtual.target(event.key);
        if (target == null) return;
        event.preventDefault();
        virtual.activate(target);
      });
      return { title: $("h3", section), virtual, box };
    });
    const kinds = { m: "merge", d: "apart", g: "go" };
    this.dialog.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey || !(event.key in kinds)) return;
      event.preventDefault();
      event.stopPropagation();
      this.do(kinds[event.key]);
    });
    $(".answers", this.dialog).addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) this.do(button.value);
    });
  }

  async open(first, second) {
    this.pair = [first, second];
    const found = await Promise.all(this.pair.map((number) => get(`/api/clusters/${number}`)));
    this.files = found.map((one) => one.files);
    this.rows = found.map((one) => one.rows);
    open(this.dialog);
    const height = heightFor(Math.max(...this.rows.map((rows) => rows.length)));
    this.sides.forEach(({ title, virtual, box }, side) => {
      const cluster = this.store.clusters.get(this.pair[side]);
      title.replaceChildren(titleOf(cluster), make("small", {}, ` ${many(cluster.size, "image")}`));
      box.scrollTop = 0;
      virtual.active = 0;
      virtual.set(this.rows[side].length);
      virtual.measure(height + 8, Math.round(height / ratio) + 8);
    });
    $('[value="merge"]', this.dialog).focus();
  }

  do(kind) {
    troubleIn(this.dialog, "");
    this.act(kind, this.pair, this.rows.map((rows) => rows[0]));
  }
}

export class Move {
  /** act(number) moves the selected images there. */
  constructor(store, act) {
    Object.assign(this, { store, act, dialog: $("#move"), numbers: [], near: [] });
    closeByClickBeside(this.dialog);
    this.input = $("input", this.dialog);
    const box = $("#move-list");
    this.virtual = new Virtual(box, {
      key: (index) => this.numbers[index],
      draw: (element, index) => {
        const number = this.numbers[index];
        drawCluster(element, store.clusters.get(number), { similarity: this.near.get(number) });
        element.setAttribute("aria-selected", index === this.virtual.active);
      },
    });
    this.virtual.measure(68);
    this.input.addEventListener("input", () => this.list());
    this.input.addEventListener("keydown", (event) => {
      const target = ["Home", "End"].includes(event.key) ? null : this.virtual.target(event.key);
      if (event.key === "Enter") this.do(this.virtual.active);
      else if (target != null) this.virtual.activate(target);
      else return;
      event.preventDefault();
      this.point();
    });
    box.addEventListener("click", (event) => {
      const index = this.virtual.at(event);
      if (index != null) this.do(index);
    });
  }

  /** Offers all clusters but one, the nearest to it first. */
  open(words, without, near) {
    this.without = without;
    this.near = new Map(near);
    $("h2", this.dialog).textContent = `Move ${words} to which cluster?`;
    this.input.value = "";
    open(this.dialog);
    this.list();
    this.input.focus();
  }

  list() {
    const text = this.input.value.trim();
    const matching = (number) => number !== this.without
      && (!text || this.store.isCalled(this.store.clusters.get(number), text));
    const near = [...this.near.keys()].filter(matching);
    const others = [...this.store.clusters.keys()].filter((number) => !this.near.has(number) && matching(number));
    this.numbers = [...near, ...others];
    this.virtual.box.scrollTop = 0;
    this.virtual.active = 0;
    this.virtual.set(this.numbers.length);
    this.point();
  }

  point() {
    this.virtual.refresh();
    const active = this.virtual.box.getAttribute("aria-activedescendant");
    if (active) this.input.setAttribute("aria-activedescendant", active);
    else this.input.removeAttribute("aria-activedescendant");
  }

  do(index) {
    troubleIn(this.dialog, "");
    if (index < this.numbers.length) this.act(this.numbers[index]);
  }
}

export class Naming {
  /** act(number, name) names it. */
  constructor(store, act) {
    Object.assign(this, { store, dialog: $("#naming") });
    closeByClickBeside(this.dialog);
    this.input = $("input", this.dialog);
    this.input.addEventListener("input", () => this.hint());
    $("form", this.dialog).addEventListener("submit", (event) => {
      if (event.submitter?.value === "cancel") return;
      event.preventDefault();
      troubleIn(this.dialog, "");
      act(this.number, this.input.value.trim());
    });
  }

  open(number) {
    this.number = number;
    const cluster = this.store.clusters.get(number);
    const names = [...new Set([...this.store.clusters.values()].map((one) => one.name).filter(Boolean))].sort();
    $("#names").replaceChildren(...names.slice(0, 1000).map((name) => make("option", { value: name })));
    $("h2", this.dialog).textContent = `Name of ${titleOf(cluster)}`;
    this.input.value = cluster.name ?? "";
    open(this.dialog);
    this.hint();
    this.input.select();
  }

  /** A name that another cluster has already joins the two. */
  hint() {
    const name = this.input.value.trim();
    const other = [...this.store.clusters.values()].find((one) => name && one.name === name && one.number !== this.number);
    $("#naming-hint").textContent = other
      ? `Cluster ${other.number} with ${many(other.size, "image")} is called so already: the two become one.`
      : "A name confirms the cluster. An empty one takes the name away.";
  }
}

export class Large {
  /** One image at large, and with arrow keys the others of the view. */
  constructor(images, { similar, go }) {
    Object.assign(this, { images, dialog: $("#large") });
    closeByClickBeside(this.dialog);
    const acts = {
      previous: () => this.step(-1), next: () => this.step(1),
      select: () => { images.toggle(images.virtual.active); this.draw(); },
      similar: () => { this.dialog.close(); similar(); },
      go: () => { this.dialog.close(); go(); },
    };
    const keys = { ArrowLeft: "previous", ArrowRight: "next", " ": "select", w: "similar", g: "go", z: "close", Enter: "close" };
    this.dialog.addEventListener("keydown", (event) => {
      const isButton = event.target.closest("button") && [" ", "Enter"].includes(event.key);
      if (isButton || event.ctrlKey || event.metaKey || event.altKey || !(event.key in keys)) return;
      event.preventDefault();
      event.stopPropagation();
      if (keys[event.key] === "close") this.dialog.close();
      else acts[keys[event.key]]();
    });
    $(".answers", this.dialog).addEventListener("click", (event) => acts[event.target.closest("button")?.value]?.());
  }

  open() {
    if (this.images.activeRow == null) return;
    open(this.dialog);
    this.draw();
    this.dialog.focus();
  }

  step(by) {
    this.images.virtual.activate(this.images.virtual.active + by);
    this.images.virtual.refresh();
    this.draw();
  }

  draw() {
    const index = this.images.virtual.active;
    const image = this.images.at(index);
    const title = fileOf(image.path);
    $("h2", this.dialog).textContent = title;
    const large = $("img", this.dialog);
    large.src = imageOf(image.row);
    large.alt = title;
    const doubt = image.doubt ? `doubt ${percent(image.doubt)}` : null;
    const place = `${index + 1} of ${this.images.places.length}`;
    $("#large-facts").textContent = [
      this.images.store.title(image.cluster), image.camera, image.date, doubt, image.path, place,
    ].filter(Boolean).join(" · ");
    const isSelected = this.images.selected.has(image.row);
    const button = $('[value="select"]', this.dialog);
    button.setAttribute("aria-pressed", isSelected);
    button.firstChild.textContent = isSelected ? "Selected ✓ " : "Select ";
  }
}
