// A list or a grid of which only what is in sight exists, so that 100,000 items scroll like ten.
// Focus stays on the box; which item is active is told by aria-activedescendant.

const AHEAD = 3; // lines beyond either edge

export class Virtual {
  /**
   * @param box the element that scrolls; has an id and a tabindex
   * @param key index -> what tells an item from others, wherever it stands
   * @param draw (element, index, isNew) fills or updates an item's element
   * @param onActive called with the index after the active item changed
   */
  constructor(box, { key, draw, onActive = () => {} }) {
    Object.assign(this, { box, key, draw, onActive, count: 0, active: 0, columns: 1, isStale: false });
    this.shown = new Map();
    this.space = box.appendChild(document.createElement("div"));
    this.space.className = "space";
    this.space.setAttribute("role", "presentation");
    box.addEventListener("scroll", () => this.render(), { passive: true });
    new ResizeObserver(() => this.layout()).observe(box);
  }

  /** Height of an item and, for a grid, its least width, in pixels with the gap. */
  measure(height, width = 0) {
    Object.assign(this, { height, width });
    this.layout();
  }

  /** How many items there are now; all in sight are drawn again. */
  set(count) {
    this.count = count;
    this.active = Math.max(0, Math.min(this.active, count - 1));
    this.layout();
    this.refresh();
  }

  layout() {
    if (!this.height) return;
    const wide = this.space.clientWidth;
    this.columns = this.width ? Math.max(1, Math.floor(wide / this.width)) : 1;
    this.wide = wide / this.columns;
    this.space.style.height = `${Math.ceil(this.count / this.columns) * this.height}px`;
    this.render();
  }

  /** Draws what is in sight again. */
  refresh() {
    this.render(true);
  }

  render(again = false) {
    this.isStale ||= again;
    if (!this.height || !this.box.clientHeight) return; // hidden: drawn again when it is shown
    again = this.isStale;
    this.isStale = false;
    const line = Math.floor(this.box.scrollTop / this.height) - AHEAD;
    const lines = Math.ceil(this.box.clientHeight / this.height) + 2 * AHEAD;
    const first = Math.max(0, line * this.columns);
    const last = Math.min(this.count, (line + lines + 1) * this.columns);
    const wanted = new Set();
    let before = null; // in the document they stand in their order too
    for (let index = first; index < last; index++) {
      const key = this.key(index);
      let element = this.shown.get(key);
      wanted.add(key);
      if (!element) {
        element = document.createElement("div");
        element.setAttribute("role", "option");
        element.id = `${this.box.id}-${key}`;
        this.shown.set(key, element);
        this.draw(element, index, true);
      } else if (again || element.index !== index) this.draw(element, index, false);
      this.place(element, index);
      if (before ? before.nextSibling !== element : this.space.firstChild !== element) {
        if (before) before.after(element);
        else this.space.prepend(element);
      }
      before = element;
    }
    for (const [key, element] of this.shown) {
      if (!wanted.has(key)) {
        element.remove();
        this.shown.delete(key);
      }
    }
    const active = this.count ? this.shown.get(this.key(this.active)) : null;
    if (active) this.box.setAttribute("aria-activedescendant", active.id);
    else this.box.removeAttribute("aria-activedescendant");
  }

  place(element, index) {
    element.index = index;
    element.classList.toggle("active", index === this.active);
    element.setAttribute("aria-setsize", this.count);
    element.setAttribute("aria-posinset", index + 1);
    const x = (index % this.columns) * this.wide;
    const y = Math.floor(index / this.columns) * this.height;
    element.style.transform = `translate(${x}px, ${y}px)`;
    element.style.width = `${this.wide}px`;
    element.style.height = `${this.height}px`;
  }

  /** Makes an item the active one and brings it into sight. */
  activate(index, { quiet = false } = {}) {
    if (!this.count) return;
    this.active = Math.max(0, Math.min(index, this.count - 1));
    const top = Math.floor(this.active / this.columns) * this.height;
    const { scrollTop, clientHeight } = this.box;
    const beyond = this.width ? 0 : this.height; // of a list one sees what comes next
    if (top - beyond < scrollTop) this.box.scrollTop = top - beyond;
    else if (top + this.height + beyond > scrollTop + clientHeight) {
      this.box.scrollTop = top + this.height + beyond - clientHeight;
    }
    this.render();
    if (!quiet) this.onActive(this.active);
  }

  /** Where an arrow key leads, or null for other keys. */
  target(key) {
    const page = Math.max(1, Math.floor(this.box.clientHeight / this.height)) * this.columns;
    const steps = {
      ArrowDown: this.columns, ArrowUp: -this.columns, PageDown: page, PageUp: -page,
      Home: -this.count, End: this.count,
      ...(this.width ? { ArrowRight: 1, ArrowLeft: -1 } : {}),
    };
    if (!(key in steps)) return null;
    return Math.max(0, Math.min(this.count - 1, this.active + steps[key]));
  }

  /** The index of the item that an event happened in, or null. */
  at(event) {
    const element = event.target.closest('[role="option"]');
    return element && this.space.contains(element) ? element.index : null;
  }
}
