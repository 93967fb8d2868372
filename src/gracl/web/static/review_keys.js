// Which key does what, in the page and in its help.

/** Keys of the page -> names of actions. */
export const KEYS = {
  j: "next", k: "previous", "/": "filter", x: "mark", m: "merge", c: "confirm", n: "name", o: "outliers",
  s: "split", e: "eject", v: "move", w: "similar", i: "facts", r: "order", "+": "larger", "=": "larger", "-": "smaller",
  g: "go", z: "look", u: "undo", U: "redo", "ctrl+z": "undo", "ctrl+Z": "redo", "ctrl+y": "redo", "ctrl+a": "all",
  q: "questions", f: "search", "?": "help", Escape: "escape",
};

/** Keys while questions are asked. */
export const QUESTION_KEYS = {
  y: "same", n: "different", " ": "skip", k: "skip", u: "undo", U: "redo", "ctrl+z": "undo", "ctrl+Z": "redo",
  "ctrl+y": "redo", "?": "help", Escape: "leave", q: "leave",
};

const HELP = [
  ["Clusters", [
    [["j", "k"], "next cluster, the one before"], [["/"], "filter the list"], [["Enter"], "from the list to the images"],
    [["n"], "name the cluster"], [["c"], "confirm it, and go on to the next"], [["x"], "mark it for a merge"],
    [["m"], "compare with the marked or the nearest one, and merge"], [["1 – 6"], "compare with the first to sixth near cluster"],
    [["o"], "images of no cluster"],
  ]],
  ["Images", [
    [["←", "↑", "↓", "→"], "move; with Shift, select on the way"], [["Space"], "select"], [["Ctrl", "A"], "select all"],
    [["Esc"], "clear the selection; then back to the list"], [["s"], "split the selected off as a cluster"],
    [["e"], "eject the selected from their cluster"], [["v"], "move the selected to another cluster"],
    [["w"], "images similar to this one"], [["g"], "go to the cluster of this image"], [["Enter"], "look closer"],
  ]],
  ["Looks", [[["i"], "names, cameras and dates"], [["r"], "doubtful images first"], [["+", "−"], "larger, smaller images"]]],
  ["Decisions", [
    [["u"], "undo"], [["U"], "redo"], [["q"], "questions: two images, are they the same?"],
    [["y", "n", "Space"], "same, different, skip"], [["f"], "search by a picture; or paste one"], [["?"], "this help"],
  ]],
];

/** The name of the action that a key means, or undefined. */
export function actionOf(event, keys) {
  if (event.altKey) return undefined;
  const control = event.ctrlKey || event.metaKey;
  return keys[control ? `ctrl+${event.key}` : event.key];
}

/** Whether a key belongs to what is typed in. */
export const isTyping = (event) => event.target.matches("input, select, textarea");

/** The help's tables. */
export function helpTables(make) {
  return HELP.map(([title, lines]) => make("section", {}, make("h3", {}, title), make("table", {}, make(
    "tbody", {}, ...lines.map(([keys, words]) => make(
      "tr", {}, make("th", { scope: "row" }, ...keys.flatMap((key) => [make("kbd", {}, key), " "])), make("td", {}, words),
    )),
  ))));
}
