/* The map: looking at single images by pointer and by keyboard, zoom, colours by another fact, groups
   by themselves. Everything else on the page works without this. */
"use strict";
const get = (id) => document.getElementById(id);
const map = JSON.parse(get("map-data").textContent);
const plane = get("map-plane"), look = get("map-look"), ring = get("map-ring");
const marks = [...get("map-marks").children];
const legends = [...document.querySelectorAll(".legend")];
const drawing = plane.querySelector("svg"), zoom = get("map-zoom");
const SVG = drawing.namespaceURI;
const WHOLE = 1000, CLOSEST = 60, REACH = 40, RING = 18;
let view = { x: 0, y: 0, size: WHOLE };
let by = legends[0].dataset.by;
let chosen = new Set();
let current = -1;

const group = (point) => map.groupings[by].of[point];
const shown = (point) => chosen.size === 0 || chosen.has(group(point));

function element(name, attributes, text) {
  const made = name === "svg" || name === "use" ? document.createElementNS(SVG, name) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  if (text !== undefined) made.textContent = text;
  return made;
}

function words(point) {
  return Object.entries(map.groupings).map(([name, grouping]) => {
    const value = grouping.groups[grouping.of[point]];
    return `${name} ${value[1] < 0 ? "–" : value[0]}`;
  });
}

function picture(point) {
  const stored = get(`p${map.shots[point]}`);
  if (!stored) return [];
  const [width, height] = [stored.getAttribute("width"), stored.getAttribute("height")];
  const made = element("svg", { class: "picture", viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
  made.append(element("use", { href: `#p${map.shots[point]}` }));
  return [made];
}

function show(point, tell) {
  current = point;
  look.hidden = point < 0;
  ring.setAttribute("cx", point < 0 ? -99 : map.x[point]);
  ring.setAttribute("cy", point < 0 ? -99 : map.y[point]);
  if (point < 0) return;
  const lines = words(point).map((line) => element("span", {}, line));
  look.replaceChildren(...picture(point), ...lines, element("span", { class: "path" }, map.paths[point]));
  place(point);
  if (tell) get("map-told").textContent = `${words(point).join(", ")}, ${map.paths[point]}`;
}

function inView(point) {
  const [x, y] = [map.x[point] - view.x, map.y[point] - view.y];
  return x > 0 && y > 0 && x < view.size && y < view.size;
}

/* Beside its point, on the side where there is more room. */
function place(point) {
  const dx = (100 * (map.x[point] - view.x)) / view.size, dy = (100 * (map.y[point] - view.y)) / view.size;
  look.style.left = dx > 50 ? "auto" : `calc(${dx}% + 16px)`;
  look.style.right = dx > 50 ? `calc(${100 - dx}% + 16px)` : "auto";
  look.style.top = dy > 50 ? "auto" : `${dy}%`;
  look.style.bottom = dy > 50 ? `${100 - dy}%` : "auto";
}

/* Shows a square of the map; marks keep their size. */
function see(x, y, size) {
  size = Math.min(WHOLE, Math.max(CLOSEST, size));
  const within = (low) => Math.min(WHOLE - size, Math.max(0, low - size / 2));
  view = { x: within(x), y: within(y), size };
  drawing.setAttribute("viewBox", `${view.x} ${view.y} ${size} ${size}`);
  get("map-marks").style.setProperty("--zoom", size / WHOLE);
  ring.setAttribute("r", (RING * size) / WHOLE);
  plane.style.touchAction = size < WHOLE ? "none" : "";
  const [closer, wider, whole] = zoom.children;
  closer.disabled = size <= CLOSEST;
  wider.disabled = whole.disabled = size >= WHOLE;
  if (current < 0) return;
  look.hidden = !inView(current);
  place(current);
}

/* In: 1, out: -1, all: 0; around the image that is looked at, or the middle. */
function step(direction) {
  const [x, y] = current < 0 ? [view.x + view.size / 2, view.y + view.size / 2] : [map.x[current], map.y[current]];
  see(x, y, direction === 0 ? WHOLE : view.size * 0.6 ** direction);
}

/* The best of all shown points, by a cost; Infinity is none. */
function best(cost) {
  let found = -1, least = Infinity;
  for (let point = 0; point < map.x.length; point++) {
    const value = shown(point) ? cost(point) : Infinity;
    if (value < least) [found, least] = [point, value];
  }
  return found;
}

plane.addEventListener("pointermove", (event) => {
  const box = drawing.getBoundingClientRect();
  if (event.buttons && view.size < WHOLE) {
    const scale = view.size / box.width;
    see(view.x + view.size / 2 - event.movementX * scale, view.y + view.size / 2 - event.movementY * scale, view.size);
    return;
  }
  const x = view.x + ((event.clientX - box.left) / box.width) * view.size;
  const y = view.y + ((event.clientY - box.top) / box.height) * view.size;
  const near = best((point) => {
    const far = Math.hypot(map.x[point] - x, map.y[point] - y);
    return far < (REACH * view.size) / WHOLE ? far : Infinity;
  });
  if (near !== current) show(near, false);
});
plane.addEventListener("pointerleave", () => { if (document.activeElement !== plane) show(-1); });
plane.addEventListener("blur", () => show(-1));
zoom.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button) step(Number(button.value));
});

/* Shows an image by keyboard, and moves the map where it would be outside. */
function visit(point) {
  if (!inView(point)) see(map.x[point], map.y[point], view.size);
  show(point, true);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
plane.addEventListener("keydown", (event) => {
  if (event.altKey || event.ctrlKey || event.metaKey) return;
  const arrow = ARROWS[event.key];
  if (event.key === "Escape") show(-1);
  else if (event.key === "+" || event.key === "=") step(1);
  else if (event.key === "-") step(-1);
  else if (event.key === "0") step(0);
  else if (event.key === "Enter" && current >= 0) {
    const count = map.x.length, own = group(current);
    for (let step = 1; step <= count; step++) {
      const next = (current + step) % count;
      if (group(next) === own) { visit(next); break; }
    }
  } else if (arrow) {
    const [x, y] = current < 0 ? [view.x + view.size / 2, view.y + view.size / 2] : [map.x[current], map.y[current]];
    const next = best((point) => {
      if (point === current) return Infinity;
      const dx = map.x[point] - x, dy = map.y[point] - y;
      if (current < 0) return Math.hypot(dx, dy);
      const ahead = dx * arrow[0] + dy * arrow[1], aside = Math.abs(dx * arrow[1]) + Math.abs(dy * arrow[0]);
      return ahead > 0 && aside <= ahead ? ahead + 2 * aside : Infinity;
    });
    if (next >= 0) visit(next);
  } else return;
  event.preventDefault();
});

function paint() {
  const { of, groups } = map.groupings[by];
  marks.forEach((mark, point) => {
    const [, colour, shape] = groups[of[point]];
    mark.setAttribute("class", `${colour < 0 ? "none" : `k${colour}`}${shown(point) ? "" : " off"}`);
    mark.setAttribute("href", `#m${shape < 0 ? "none" : shape}`);
  });
  get("map-all").disabled = chosen.size === 0;
}

get("map-by").addEventListener("change", (event) => {
  by = event.target.value;
  for (const legend of legends) legend.hidden = legend.dataset.by !== by;
  get("map-find").value = "";
  choose(new Set());
  find("");
});

function choose(groups) {
  chosen = groups;
  for (const legend of legends)
    for (const button of legend.querySelectorAll("button"))
      button.setAttribute("aria-pressed", String(legend.dataset.by === by && chosen.has(Number(button.value))));
  show(-1);
  paint();
}

for (const legend of legends)
  legend.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    const groups = new Set(chosen), value = Number(button.value);
    if (!groups.delete(value)) groups.add(value);
    choose(groups);
  });
get("map-all").addEventListener("click", () => choose(new Set()));

function find(text) {
  for (const legend of legends)
    for (const item of legend.children)
      item.hidden = !item.querySelector(".name").textContent.toLowerCase().includes(text.toLowerCase());
}
get("map-find").addEventListener("input", (event) => find(event.target.value.trim()));

/* On paper, what is folded is open. */
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => { one.open = true; }));
