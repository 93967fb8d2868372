// The page of `gracl review`: its parts are put together here, and keys and buttons given their actions.

import { $, app, fileOf, make, say, trouble } from "./review_dom.js";
import { get, upload } from "./review_api.js";
import { Compare, Large, Move, Naming, closeByClickBeside } from "./review_dialogs.js";
import { Images } from "./review_images.js";
import { KEYS, QUESTION_KEYS, actionOf, helpTables, isTyping } from "./review_keys.js";
import { List } from "./review_list.js";
import { Question } from "./review_question.js";
import { Search } from "./review_search.js";
import { Side } from "./review_side.js";
import { NONE, Store } from "./review_store.js";
import { Work } from "./review_work.js";

const store = new Store();
const question = new Question(store);
const images = new Images(store, { onSelect: tellSelection, look: () => large.open() });
const list = new List(store, {
  choose: (number) => work.queued(() => work.choose(number)),
  mark,
  enter: () => { if (isNarrow()) work.pane("images"); },
});
const side = new Side(store, { compare: (number) => work.queued(() => compare.open(work.chosen, number)) });
const work = new Work({ store, list, images, side, question });
const isNarrow = () => matchMedia("(max-width: 760px)").matches;

const compare = new Compare(store, (kind, numbers, [first, second]) => work.queued(() => {
  const { dialog } = compare;
  if (kind === "merge") return work.decide("merge", { numbers }, { dialog, then: () => joined(numbers) });
  if (kind === "apart") return work.decide("different", { first, second }, { dialog });
  dialog.close();
  return work.choose(numbers[1]);
}));
const mover = new Move(store, (number) => work.queued(() => work.decide(
  "move", { rows: images.chosen(), number }, { dialog: mover.dialog, then: () => images.clear() },
)));
const naming = new Naming(store, (number, name) => work.queued(() => work.decide(
  "name", { number, name: name || null }, { dialog: naming.dialog },
)));
const large = new Large(images, { similar: () => run("similar"), go: () => run("go") });
const search = new Search((view, file) => work.showFound(view, `Similar to ${file.name || "the pasted picture"}`, () => upload(file)));

// -- actions -----------------------------------------------------------------------------------------

const actions = {
  next: () => step(1),
  previous: () => step(-1),
  filter: () => { work.pane("list"); $("#filter").select(); },
  outliers: () => { work.pane("images"); return work.choose(NONE); },
  back: () => { work.pane("list"); $("#clusters").focus(); },
  "pane-list": () => work.pane("list"),
  "pane-images": () => work.pane("images"),
  "pane-side": () => work.pane("side"),

  mark: () => (isCluster() ? mark(work.chosen) : say("Choose a cluster to mark it.")),
  unmark: () => { store.marked.clear(); tellMarks(); },
  merge,
  name: () => (isCluster() ? naming.open(work.chosen) : say("Choose a cluster to name it.")),
  confirm: async () => {
    if (!isCluster()) return say("Choose a cluster to confirm it.");
    const number = work.chosen;
    const next = store.beside(number, 1);
    return work.decide("confirm", { number }, { then: () => next != null && work.choose(next) });
  },

  split: () => decideOnRows("split"),
  eject: () => decideOnRows("eject"),
  move: () => requireSelection() && mover.open(images.words, work.chosen, side.near),
  similar: async () => {
    const row = images.selected.size === 1 ? images.chosen()[0] : images.activeRow;
    if (row == null) return say("Choose an image to search by.");
    const again = () => get(`/api/similar/${row}`);
    const view = await again();
    return work.showFound(view, `Similar to ${fileOf(images.at(images.places.findIndex((_, index) => images.row(index) === row)).path)}`, again);
  },
  go: async () => {
    if (images.activeRow == null) return;
    const { cluster, row } = images.at(images.virtual.active);
    if (cluster === work.chosen) return say("This is its cluster.");
    await work.choose(cluster);
    images.virtual.activate(images.places.findIndex((_, index) => images.row(index) === row));
    images.virtual.refresh();
  },
  all: () => images.all(),
  unselect: () => images.clear(),
  look: () => large.open(),
  facts: () => pressed("facts", images.toggleFacts()),
  order: () => pressed("order", images.reorder()),
  larger: () => images.resize(1),
  smaller: () => images.resize(-1),

  undo: () => revise("undo"),
  redo: () => revise("redo"),
  questions: async () => {
    app.dataset.view = "question";
    question.pane.hidden = false;
    question.pane.focus();
    say("");
    await question.ask();
  },
  leave: async () => {
    app.dataset.view = "clusters";
    question.pane.hidden = true;
    $("#images").focus();
    await work.refreshView(null);
  },
  same: () => answer("same"),
  different: () => answer("different"),
  skip: () => question.asked && question.skip(),

  search: () => search.open(),
  help: () => $("#help").showModal(),
  overrule: () => work.overrule(),
  dismiss: () => trouble(""),
  escape: () => {
    trouble("");
    if (images.selected.size) images.clear();
    else { work.pane("list"); $("#clusters").focus(); }
  },
};

// These decide nothing and ask nobody, so they need not wait for what does.
const AT_ONCE = new Set([
  "filter", "back", "pane-list", "pane-images", "pane-side", "unselect", "facts", "order", "larger", "smaller", "search",
  "help", "dismiss", "escape",
]);

function run(name) {
  if (!AT_ONCE.has(name)) return work.queued(actions[name]);
  actions[name]();
  return work.keepFocus();
}

/** As `run`; what is typed while a dialog is on its way is meant for the dialog. */
function runByKey(name) {
  if (AT_ONCE.has(name)) run(name);
  else work.queued(() => ($("dialog[open]") ? undefined : actions[name]()));
}

const isCluster = () => store.clusters.has(work.chosen);

async function step(by) {
  const number = store.beside(work.chosen, by);
  if (number == null) say(by > 0 ? "This is the last one in the list." : "This is the first one in the list.");
  else await work.choose(number);
}

function mark(number) {
  if (!store.marked.delete(number)) store.marked.add(number);
  tellMarks();
}

function tellMarks() {
  list.refresh();
  $('[data-do="mark"]').setAttribute("aria-pressed", store.marked.has(work.chosen));
}

/** Two are compared first; more that were marked one by one are merged at once. */
function merge() {
  const numbers = [...store.marked];
  if (numbers.length < 2 && isCluster() && !store.marked.has(work.chosen)) numbers.unshift(work.chosen);
  if (numbers.length < 2 && numbers[0] === work.chosen && side.near.length) numbers.push(side.near[0][0]);
  if (numbers.length < 2) return say("Mark the clusters that are the same, then merge.");
  if (numbers.length === 2) return compare.open(...numbers);
  return work.decide("merge", { numbers }, { then: () => joined(numbers) });
}

/** What became one is looked at, and marked no more. */
function joined(numbers) {
  for (const number of numbers) store.marked.delete(number);
  tellMarks();
  return work.choose(numbers[0]);
}

function requireSelection() {
  if (!images.selected.size) say("Select images first: click them, or press Space.");
  return images.selected.size > 0;
}

const decideOnRows = (kind) => requireSelection()
  && work.decide(kind, { rows: images.chosen() }, { then: () => images.clear() });

const revise = (kind) => work.decide(kind, {}, {
  then: ({ decision }) => {
    if (!decision || !work.isAsking) return undefined;
    question.revised(decision.kind, kind === "undo" ? -1 : 1);
    return question.ask();
  },
});

function answer(kind) {
  if (!question.asked) return undefined;
  const [first, second] = question.pair;
  return work.decide(kind, { first, second }, { then: () => {
    question.answered += 1;
    return question.ask();
  } });
}

function pressed(name, isOn) {
  $(`[data-do="${name}"]`).setAttribute("aria-pressed", isOn);
}

function tellSelection() {
  if ($("#selection").hidden && images.selected.size) {
    // The bar takes room from the images; the one at work stays in sight.
    requestAnimationFrame(() => images.virtual.activate(images.virtual.active));
  }
  $("#selection").hidden = !images.selected.size;
  $("#selection strong").textContent = `${images.selected.size} selected`;
}

// -- keys and buttons --------------------------------------------------------------------------------

document.addEventListener("click", (event) => {
  const name = event.target.closest("[data-do]")?.dataset.do;
  if (name) run(name);
});

document.addEventListener("keydown", (event) => {
  if (isTyping(event) || $("dialog[open]")) return;
  if (work.isAsking) {
    const isButton = event.target.closest("button") && event.key === " ";
    const name = isButton ? undefined : actionOf(event, QUESTION_KEYS);
    if (name) {
      event.preventDefault();
      runByKey(name);
    }
    return;
  }
  const name = actionOf(event, KEYS);
  if (name) runByKey(name);
  else if (/^[1-9]$/.test(event.key) && !event.ctrlKey && !event.metaKey && !event.altKey) {
    const near = side.near[event.key - 1];
    if (near) work.queued(() => compare.open(work.chosen, near[0]));
  } else return;
  event.preventDefault();
});

$("#images").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === " " && images.places.length) images.toggle(images.virtual.active);
  else if (event.key === "Enter") large.open();
  else if (!images.handle(event)) return;
  event.preventDefault();
});

$("#clusters").addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  const target = list.virtual.target(event.key);
  if (target != null) list.virtual.activate(target);
  else if (["Enter", "ArrowRight", " "].includes(event.key)) {
    if (isNarrow()) work.pane("images");
    $("#images").focus();
    if (event.key === " " && images.places.length) images.toggle(images.virtual.active);
  } else return;
  event.preventDefault();
});

// -- begin -------------------------------------------------------------------------------------------

$("#help .keys").append(...helpTables(make));
closeByClickBeside($("#help"));
work.pane("list");
work.queued(async () => {
  await work.open();
  const wanted = location.hash === "#none" ? NONE : Number(location.hash.slice(1) || NaN);
  const first = store.clusters.has(wanted) || wanted === NONE ? wanted : store.order[0] ?? NONE;
  await work.choose(first);
  if (!isNarrow()) $("#images").focus();
  say(matchMedia("(pointer: coarse)").matches ? "Tap images to select them." : "Arrow keys move, Space selects, ? shows all keys.");
  app.dataset.ready = "yes";
});
