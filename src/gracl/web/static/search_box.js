// The part of a picture that is searched for: drawn with the mouse, a finger or a pen, or typed as four
// numbers. Both show the same; the numbers are in pixels of the upright picture.

const TALLEST = 320; // pixels on the screen
const CLICK = 4; // a shorter stroke is a click, and means the whole picture

export class Part {
  constructor(changed) {
    this.frame = document.querySelector("#frame");
    this.shown = document.querySelector("#part");
    this.whole = document.querySelector("#whole");
    this.fields = [...document.querySelectorAll("#box input")]; // x, y, width, height
    this.changed = changed;
    this.size = null; // [width, height] of the picture, where the browser can show it
    this.box = null; // [x, y, width, height]; null is the whole picture
    this.start = null;
    this.frame.addEventListener("pointerdown", (event) => this.#begin(event));
    this.frame.addEventListener("pointermove", (event) => this.#draw(event));
    this.frame.addEventListener("pointerup", (event) => this.#end(event));
    this.frame.addEventListener("pointercancel", () => { this.start = null; });
    for (const field of this.fields) field.addEventListener("change", () => this.#typed());
    this.whole.addEventListener("click", () => this.set(null));
  }

  // A new picture, of [width, height]; null where the browser cannot show it.
  open(size) {
    this.size = size;
    this.frame.hidden = size === null;
    if (size) {
      this.frame.style.aspectRatio = `${size[0]} / ${size[1]}`;
      this.frame.style.width = `min(100%, ${Math.round((TALLEST * size[0]) / size[1])}px)`;
    }
    this.fields.forEach((field, at) => {
      if (size) field.max = size[at % 2]; else field.removeAttribute("max");
    });
    this.#take(null);
  }

  set(box) {
    this.#take(box);
    this.changed();
  }

  // As the API takes it.
  get text() { return this.box && this.box.join(","); }

  #take(box) {
    this.box = box;
    this.fields.forEach((field, at) => { field.value = box ? box[at] : ""; });
    this.whole.disabled = !box;
    this.#show(box);
  }

  #show(box) {
    this.shown.hidden = !(box && this.size);
    if (this.shown.hidden) return;
    const [width, height] = this.size;
    const share = [box[0] / width, box[1] / height, box[2] / width, box[3] / height];
    ["left", "top", "width", "height"].forEach((name, at) => {
      this.shown.style[name] = `${100 * share[at]}%`;
    });
  }

  #typed() {
    const values = this.fields.map((field) => (field.value === "" ? null : Math.round(+field.value)));
    if (values.every((value) => value === null)) { this.set(null); return; }
    const [x, y, width, height] = values;
    const sound = values.every(Number.isFinite) && x >= 0 && y >= 0 && width > 0 && height > 0;
    if (values.includes(null) || !sound) return; // not yet all there
    this.set(values);
  }

  #at(event) {
    const seen = this.frame.getBoundingClientRect();
    const share = [(event.clientX - seen.left) / seen.width, (event.clientY - seen.top) / seen.height];
    return share.map((value, at) => Math.min(1, Math.max(0, value)) * this.size[at]);
  }

  #begin(event) {
    if (!this.size || event.button !== 0) return;
    event.preventDefault();
    this.frame.setPointerCapture(event.pointerId);
    this.start = { at: this.#at(event), x: event.clientX, y: event.clientY };
  }

  #between(event) {
    const [ax, ay] = this.start.at;
    const [bx, by] = this.#at(event);
    const left = Math.floor(Math.min(ax, bx)), top = Math.floor(Math.min(ay, by));
    return [left, top, Math.ceil(Math.max(ax, bx)) - left, Math.ceil(Math.max(ay, by)) - top];
  }

  #draw(event) {
    if (this.start) this.#show(this.#between(event));
  }

  #end(event) {
    if (!this.start) return;
    const long = Math.hypot(event.clientX - this.start.x, event.clientY - this.start.y) >= CLICK;
    const box = this.#between(event);
    this.start = null;
    if (long && box[2] > 0 && box[3] > 0) this.set(box);
    else this.#show(this.box); // as it was
  }
}
