// What was found, as elements. Text is only ever set as text, so that no name can be markup.

const SIGNS = { identity: "✓", unknown: "?", nobody: "–" };

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key in made && key !== "list") made[key] = value; else made.setAttribute(key, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export function plural(n, one, many = `${one}s`) {
  return `${n.toLocaleString("en")} ${n === 1 ? one : many}`;
}

export function showAnswer(answer, about) {
  const card = document.querySelector("#answer-card");
  card.dataset.kind = answer.answer;
  document.querySelector("#sign").textContent = SIGNS[answer.answer];
  const words = { identity: answer.identity, unknown: "Unknown", nobody: "Nobody with a name" };
  document.querySelector("#answer").textContent = words[answer.answer];
  document.querySelector("#why").textContent = [reason(answer, about), ...answer.notes.map(sentence)].join(" ");
}

function sentence(words) {
  return `${words[0].toUpperCase()}${words.slice(1)}.`;
}

function reason(answer, about) {
  const limit = answer.threshold?.toFixed(3);
  if (answer.answer === "unknown") return `No image reaches the similarity of ${limit} that means the same individual.`;
  if (answer.answer === "nobody") return "The nearest images have no name.";
  if (answer.threshold === null) {
    return "The nearest with a name. Without a calibration strangers are given a name too.";
  }
  const share = about.calibration.most_answers;
  const strangers = share >= 1 ? "Strangers may be given a name too"
    : `Of strangers, up to ${percent(share)} may be given a name too`;
  return `The nearest with a name that reaches ${limit}. ${strangers}.`;
}

function percent(share) {
  return `${(100 * share).toLocaleString("en", { maximumSignificantDigits: 2 })} %`;
}

export function showMatches(answer, pick) {
  const list = document.querySelector("#matches");
  const cards = [];
  let above = true;
  for (const match of answer.matches) {
    const reaches = answer.threshold === null || match.similarity >= answer.threshold;
    if (above && !reaches) {
      const words = `Below ${answer.threshold.toFixed(3)}: not taken for the same individual`;
      cards.push(element("li", { className: "below-line" }, words));
    }
    above = reaches;
    cards.push(card(match, reaches, pick));
  }
  list.replaceChildren(...cards);
}

function card(match, reaches, pick) {
  const who = match.identity === null
    ? element("span", { className: "who soft" }, "No name")
    : element("button", {
      type: "button", className: "who", title: `Search among images of ${match.identity}`,
      onclick: () => pick(match.identity),
    }, match.identity);
  const place = [match.camera, match.site].filter((fact) => fact !== null).join(" · ");
  const bar = element("i");
  bar.style.width = `${Math.max(0, 100 * match.similarity)}%`;
  return element("li", { className: reaches ? "match" : "match below" },
    element("div", { className: "shot" }, shot(match)),
    element("div", { className: "said" },
      element("div", { className: "likeness" },
        element("span", { title: "Similarity" }, match.similarity.toFixed(3)),
        element("span", { className: "bar", "aria-hidden": "true" }, bar),
        element("span", { className: "soft" }, `${match.rank}.`)),
      who,
      ...[place, match.time, match.name].filter(Boolean)
        .map((fact) => element("span", { className: "facts" }, fact))));
}

const ABSENT = ["span", { className: "absent" }, "No picture of it is here"];

function shot(match) {
  if (match.thumbnail === null) return element(...ABSENT);
  const whose = match.identity === null ? "an individual without a name" : match.identity;
  const picture = element("img", { src: match.thumbnail, alt: `Image ${match.id}, of ${whose}`, loading: "lazy" });
  picture.addEventListener("error", () => {
    picture.replaceWith(element(...ABSENT));
  });
  return picture;
}
