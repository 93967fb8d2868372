// What happens when something is decided: the server is asked, and all panes follow its answer.

import { $, app, many, percent, say, sentence, trouble, troubleIn } from "./review_dom.js";
import { decide, get, show, version } from "./review_api.js";
import { NONE, titleOf } from "./review_store.js";

const channel = new BroadcastChannel("gracl-review"); // tells other tabs that something was decided

export class Work {
  constructor({ store, list, images, side, question }) {
    Object.assign(this, { store, list, images, side, question, chosen: null, asked: 0, again: null });
    this.queue = Promise.resolve();
    channel.addEventListener("message", () => this.queued(() => this.catchUp()));
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.queued(() => this.catchUp());
    });
  }

  /** One thing after the other, so that each key acts on what the one before it did. */
  queued(action) {
    this.queue = this.queue.then(action).catch((error) => trouble(error.message)).finally(() => this.keepFocus());
    return this.queue;
  }

  // -- opening -----------------------------------------------------------------------------------------

  /** All from the server; what is looked at and selected stays as far as it is still there. */
  async open() {
    const answer = await get("/api/clusters");
    show(answer.version);
    this.store.open(answer);
    this.list.refresh();
    this.tellProgress();
    await Promise.all([this.refreshView(null), this.side.showHistory()]);
  }

  async catchUp() {
    const answer = await get("/api/version");
    if (answer.version === version()) return;
    await this.open();
    if (this.isAsking) await this.question.ask();
  }

  get isAsking() {
    return app.dataset.view === "question";
  }

  /** Looks at a cluster, or at the images of none. */
  async choose(number, { same = false } = {}) {
    this.chosen = number;
    this.again = () => this.choose(this.chosen, { same: true });
    this.list.point(number);
    const asked = ++this.asked;
    const view = await get(`/api/clusters/${number}`);
    if (asked !== this.asked) return;
    this.images.open(view, { same });
    this.tellView();
    history.replaceState(null, "", `#${number === NONE ? "none" : number}`);
    await this.side.showNear(number);
  }

  /** Shows images that a search found; `again` asks for them once more. */
  showFound(view, title, again) {
    this.asked++;
    this.chosen = null;
    this.again = async () => { this.images.open(await again(), { same: true }); this.tellView(title); };
    this.list.point(null);
    this.images.open(view);
    this.tellView(title);
    this.side.showNear(NONE);
    this.pane("images");
    this.list.refresh();
    $("#images").focus();
  }

  // -- deciding ----------------------------------------------------------------------------------------

  /**
   * Decides, and does `then` with the server's answer. Where it is refused the person is told why, in the
   * dialog it came from, and may overrule what stands against it; what was selected or typed stays.
   */
  async decide(kind, body = {}, { dialog = null, then = () => {} } = {}) {
    const before = this.store.order.indexOf(this.chosen);
    this.refused = null;
    try {
      const answer = await decide(kind, body);
      dialog?.close();
      await this.take(answer, kind, before);
      await then(answer);
    } catch (error) {
      if (error.isStale) await this.open();
      if (error.mayOverrule) this.refused = () => this.decide(kind, { ...body, overrule: true }, { dialog, then });
      if (dialog?.open && !error.isStale) troubleIn(dialog, error.message, error.mayOverrule);
      else {
        dialog?.close();
        trouble(error.message, error.mayOverrule);
      }
    }
  }

  /** Decides once more what was refused, against what was said before. */
  async overrule() {
    await this.refused?.();
  }

  async take(answer, kind, before) {
    show(answer.version);
    trouble("");
    if (!answer.decision) {
      say(`There is nothing to ${kind}.`);
      return;
    }
    this.store.take(answer, this.chosen);
    const words = answer.decision.text;
    const said = { undo: `Undone: ${words}`, redo: `Done again: ${words}` }[kind] ?? sentence(words);
    say(said, { undo: kind !== "undo" });
    channel.postMessage(answer.version);
    this.list.refresh();
    this.tellProgress();
    await Promise.all([this.isAsking ? null : this.refreshView(answer, before), this.side.showHistory()]);
  }

  /** What is looked at, as it is now; where it is gone, what it became or what stands in its place. */
  async refreshView(answer, before = 0) {
    const { order, clusters } = this.store;
    if (this.chosen != null && this.chosen !== NONE && !clusters.has(this.chosen)) {
      const merged = answer?.decision.kind === "merge" || answer?.decision.kind === "same";
      const heir = merged ? answer.clusters[0]?.[0] : order[Math.min(Math.max(0, before), order.length - 1)];
      await this.choose(heir ?? order[0] ?? NONE);
    } else await this.again?.();
  }

  // -- telling -----------------------------------------------------------------------------------------

  tellProgress() {
    const { progress } = this.store.standing;
    const share = progress.images ? progress.confirmed / progress.images : 0;
    const bar = $(".progress .bar");
    bar.setAttribute("aria-valuenow", Math.round(100 * share));
    bar.firstElementChild.style.width = `${100 * share}%`;
    $("#progress-words").textContent = `${percent(share)} of ${many(progress.images, "image")} confirmed`;
  }

  tellView(title = null) {
    const cluster = this.store.clusters.get(this.chosen);
    const isNone = this.chosen === NONE;
    const { rows } = this.images.view;
    const words = title ?? (isNone ? "Images of no cluster" : cluster ? titleOf(cluster) : "");
    const facts = [many(rows.length, "image")];
    if (cluster) facts.push(`doubt ${percent(cluster.doubt)}`);
    if (cluster?.name != null) facts.push(`cluster ${cluster.number}`);
    if (cluster?.confirmed) facts.push("confirmed ✓");
    if (title) facts.push("the most similar first");
    $("#images-title").textContent = words;
    $("#images-facts").textContent = facts.join(" · ");
    $("#cluster-actions").hidden = !cluster;
    $('[data-do="order"]').hidden = !cluster;
    $('[data-do="mark"]').setAttribute("aria-pressed", this.store.marked.has(this.chosen));
    $("#outliers").setAttribute("aria-pressed", isNone);
    document.title = `${words} · gracl review`;
  }

  /** Which pane a narrow screen shows. */
  pane(name) {
    app.dataset.pane = name;
    for (const part of ["list", "images", "side"]) {
      $(`.tabs [data-do="pane-${part}"]`).setAttribute("aria-current", part === name);
    }
  }

  /** Focus that fell to nothing, because its place is hidden now, goes where the work goes on. */
  keepFocus() {
    const focused = document.activeElement;
    const isLost = !focused || focused === document.body || !focused.checkVisibility();
    if (!isLost || $("dialog[open]")) return;
    const places = this.isAsking ? [".pane.question"] : ["#images", "#clusters", "#main"];
    $(places.find((place) => $(place).checkVisibility())).focus();
  }
}
