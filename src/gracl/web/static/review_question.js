// The mode of questions: two images, a few more of the cluster of each, and one key an answer.

import { $, fileOf, imageOf, make, many, percent, picture } from "./review_dom.js";
import { get, post, version } from "./review_api.js";

const BESIDE = 5; // further images of each side

export class Question {
  constructor(store) {
    Object.assign(this, { store, asked: null, answered: 0 });
    this.pane = $(".pane.question");
  }

  /** The first question of a large run takes a while: each cluster is looked at once. */
  async ask() {
    const waiting = setTimeout(() => {
      $("#question-title").textContent = "Looking for the question that helps most ...";
    }, 300);
    try {
      this.show((await get("/api/question")).question);
    } finally {
      clearTimeout(waiting);
    }
  }

  /** Counts an answer that was taken back, or given again. */
  revised(kind, step) {
    if (["same", "different"].includes(kind)) this.answered = Math.max(0, this.answered + step);
  }

  async skip() {
    const [first, second] = this.pair;
    this.show((await post("/api/skip", { first, second, version: version() })).question);
  }

  get pair() {
    return this.asked?.sides.map((side) => side.rows[0]) ?? [];
  }

  show(asked) {
    this.asked = asked;
    const done = this.answered ? ` · ${many(this.answered, "answer")} so far` : "";
    $("#question-title").textContent = asked ? "Are these the same?" : "There is nothing left to ask";
    const now = asked?.together ? "They are in one cluster now" : "They are in two clusters now";
    $("#question-facts").textContent = asked
      ? `${now}. Likely the same: ${percent(asked.likely)}${done}`
      : `What is left is best looked at cluster by cluster${done}`;
    $(".sides", this.pane).hidden = !asked;
    $(".answers", this.pane).hidden = !asked;
    if (!asked) return;
    asked.sides.forEach((side, place) => this.draw($(place ? "#question-second" : "#question-first"), side));
  }

  draw(figure, side) {
    const where = [fileOf(side.files[0]), side.cameras?.[0], side.dates?.[0]].filter(Boolean).join(" · ");
    const large = make("img", { src: imageOf(side.rows[0]), alt: where, draggable: "false" });
    const title = this.asked.together ? `Part of ${this.store.title(side.number)}` : this.store.title(side.number);
    const others = side.rows.slice(1, 1 + BESIDE).map((row, place) => picture(row, fileOf(side.files[place + 1])));
    figure.replaceChildren(
      make("div", { class: "picture" }, large),
      make("figcaption", {}, make("strong", {}, `${title}, ${many(side.size, "image")}`), make("small", {}, where)),
      make("div", { class: "others" }, ...others),
    );
  }
}
