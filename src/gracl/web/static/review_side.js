// The pane beside: clusters near the one that is looked at, and what was decided so far.

import { $, make } from "./review_dom.js";
import { get } from "./review_api.js";
import { drawCluster } from "./review_list.js";

const NEAR = 6; // each has a digit as its key
const DECISIONS = 60;

export class Side {
  constructor(store, { compare }) {
    Object.assign(this, { store, near: [], asked: 0 });
    $("#near").addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (button) compare(Number(button.value));
    });
  }

  /** Clusters that may be the same as this one; of none there is none. */
  async showNear(number) {
    const asked = ++this.asked;
    const { near } = number >= 0 ? await get(`/api/clusters/${number}/near?k=${NEAR}`) : { near: [] };
    if (asked !== this.asked) return;
    this.near = near.filter(([other]) => this.store.clusters.has(other));
    $("#near-none").hidden = this.near.length > 0;
    const focused = $("#near").contains(document.activeElement) ? document.activeElement.value : null;
    $("#near").replaceChildren(...this.near.map(([other, similarity], place) => {
      const label = `Compare with ${this.store.title(other)}, similarity ${similarity.toFixed(2)}`;
      const button = make("button", { value: other, "aria-label": label });
      drawCluster(button, this.store.clusters.get(other), { similarity });
      button.append(make("kbd", {}, String(place + 1)));
      return make("li", {}, button);
    }));
    if (focused != null) ($(`#near button[value="${focused}"]`) ?? $("#near button") ?? $("#images")).focus();
  }

  async showHistory() {
    const { decisions, since } = await get(`/api/history?limit=${DECISIONS}`);
    $("#since").hidden = since === null;
    $("#since").textContent = since === null ? "" : `Since the review before: ${since}.`;
    const last = decisions.find((one) => !one.undone && !one.carried);
    $('.tools [data-do="undo"]').title = last ? `Undo: ${last.text}` : "There is nothing to undo";
    $("#history-none").hidden = decisions.length > 0;
    $("#history").replaceChildren(...decisions.map((one) => make(
      "li", { class: one.undone ? "undone" : false },
      make("span", {}, one.text),
      make("small", {}, [one.by, when(one.time), one.undone ? "undone" : "", one.carried ? "in the review before" : ""].filter(Boolean).join(" · ")),
    )));
  }
}

/** A moment in the reader's own time; as it is, if it is no moment. */
function when(text) {
  const moment = new Date(/^\d+(\.\d+)?$/.test(text) ? 1000 * Number(text) : text);
  if (Number.isNaN(moment.getTime())) return text;
  const isToday = moment.toDateString() === new Date().toDateString();
  const time = moment.toLocaleTimeString([], { hour: "2-digit", minute: "2-digit" });
  return isToday ? time : `${moment.toLocaleDateString()} ${time}`;
}
