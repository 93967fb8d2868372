// The pane of all clusters: filtered, in an order, thousands of them.

import { $, many, make, percent, picture } from "./review_dom.js";
import { get } from "./review_api.js";
import { titleOf } from "./review_store.js";
import { Virtual } from "./review_virtual.js";

const HEIGHT = 76;

const sign = (name, letter, words) => make(
  "span", { class: `state ${name}`, title: words }, letter, make("span", { class: "visually-hidden" }, ` ${words}`),
);

/** A cluster as one line: faces, name, size and doubt, and what else is to be told of it. */
export function drawCluster(element, cluster, { isMarked = false, similarity = null } = {}) {
  const states = [];
  if (isMarked) states.push(make("span", { class: "state marked" }, "marked"));
  if (cluster.confirmed) states.push(sign("confirmed", "✓", "confirmed"));
  if (similarity != null) states.push(make("span", { class: "state", title: "similarity" }, similarity.toFixed(2)));
  else if (cluster.changed && !cluster.confirmed) states.push(sign("changed", "✎", "changed in this review"));
  const doubt = make("span", { class: "doubt" }, make("span"));
  doubt.firstChild.style.width = percent(cluster.doubt).replace(" ", "");
  const words = many(cluster.size, "image") + (similarity == null ? ` · doubt ${percent(cluster.doubt)}` : "");
  const faces = element.querySelector(".faces");
  const same = faces?.dataset.rows === String(cluster.rows);
  element.className = "cluster";
  element.replaceChildren(
    same ? faces : make("span", { class: "faces", "data-rows": String(cluster.rows) }, ...cluster.rows.map((row) => picture(row))),
    make(
      "span", { class: "label" },
      make("span", { class: "line" }, make("strong", {}, titleOf(cluster)), ...states), make("small", {}, words), doubt,
    ),
  );
}

export class List {
  /** Calls choose(number) where one is chosen, and mark(number) where one is marked. */
  constructor(store, { choose, mark, enter }) {
    Object.assign(this, { store, choose, chosen: null });
    this.box = $("#clusters");
    this.virtual = new Virtual(this.box, {
      key: (index) => store.order[index],
      draw: (element, index) => this.draw(element, store.order[index]),
      onActive: (index) => choose(store.order[index]),
    });
    this.virtual.measure(HEIGHT);
    this.box.addEventListener("click", (event) => {
      const index = this.virtual.at(event);
      if (index == null) return;
      if (event.ctrlKey || event.metaKey) mark(store.order[index]);
      else {
        this.virtual.activate(index);
        enter();
      }
    });
    for (const name of ["sort", "show"]) {
      $(`#${name}`).addEventListener("change", (event) => {
        store.filter[name] = event.target.value;
        this.again();
      });
    }
    $("#filter").addEventListener("input", (event) => this.find(event.target.value.trim()));
    $("#filter").addEventListener("keydown", (event) => {
      if (event.key === "Escape") {
        if (event.target.value) this.find((event.target.value = ""));
        else this.box.focus();
      } else if (event.key === "Enter" || event.key === "ArrowDown") {
        this.box.focus();
        if (store.order.length && !store.order.includes(this.chosen)) this.virtual.activate(0);
      } else return;
      event.preventDefault();
    });
  }

  draw(element, number) {
    const isMarked = this.store.marked.has(number);
    drawCluster(element, this.store.clusters.get(number), { isMarked });
    element.classList.toggle("chosen", number === this.chosen);
    element.setAttribute("aria-selected", number === this.chosen);
  }

  /** What is called so at once; what holds such a file or camera a moment later. */
  async find(text) {
    const { filter } = this.store;
    Object.assign(filter, { text, found: new Set() });
    this.again();
    clearTimeout(this.waiting);
    if (!text) return;
    this.waiting = setTimeout(async () => {
      const { numbers } = await get(`/api/find?text=${encodeURIComponent(text.slice(0, 200))}`);
      if (filter.text !== text) return;
      filter.found = new Set(numbers);
      this.again();
    }, 150);
  }

  /** Filters and orders again, and starts at the top. */
  again() {
    this.store.sort();
    this.virtual.active = Math.max(0, this.store.order.indexOf(this.chosen));
    this.box.scrollTop = 0;
    this.refresh();
  }

  /** Shows which cluster is looked at, bringing it into sight. */
  point(number) {
    this.chosen = number;
    const index = this.store.order.indexOf(number);
    if (index >= 0) this.virtual.activate(index, { quiet: true });
    this.virtual.refresh();
  }

  refresh() {
    const { order, clusters, marked, standing } = this.store;
    const index = order.indexOf(this.chosen);
    if (index >= 0) this.virtual.active = index;
    this.virtual.set(order.length);
    $("#listed").textContent = !clusters.size ? "There is no cluster."
      : order.length ? `${order.length.toLocaleString("en")} of ${many(clusters.size, "cluster")}`
      : "No cluster matches. Change the text above, or show all.";
    $("#outliers .count").textContent = standing.outliers.toLocaleString("en");
    $("#outliers").setAttribute("aria-pressed", this.chosen === -1);
    $("#marks").hidden = !marked.size;
    $("#marks strong").textContent = `${marked.size} marked`;
  }
}
