"""The card of a model: what it is, what it learnt from, how well it does, and who may use it for what.

A fact that is not known is called so. Nothing names a folder of the user's machine.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from gracl.config import Config, differences, recipes
from gracl.continuation import MAY_CHANGE
from gracl.methods import METHODS
from gracl.models.licences import Origin, origin_of, public_name
from gracl.runs import Run

UNKNOWN = "not known"
NO_ORIGIN = Origin(UNKNOWN, None)
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?", re.ASCII)
"""Of a data set; the hub refuses a card that lists others."""
TASK = "image-feature-extraction"
UNTOLD = MAY_CHANGE - {"train.epochs"} | {"evaluate.memory", "evaluate.every"}
"""Settings that are those of a machine; they change no result."""
SCORES = ("mAP", "mINP", "R1", "R5", "R10")


@dataclass(frozen=True)
class Said:
    """What only the author of a model can say of it."""

    license: str | None = None
    """Of the weights, by its identifier on the Hugging Face hub."""
    license_name: str | None = None
    """Its name, where `license` is "other"."""
    license_link: str | None = None
    """Where its text is."""
    data_license: str | None = None
    """Of the training images."""
    datasets: tuple[str, ...] = ()
    """Names of the training data, best as the hub has them; the run's own name for it if not given."""
    title: str | None = None
    """The card's first line."""
    notes: str | None = None
    """Whatever else there is to say, as Markdown."""


@dataclass(frozen=True)
class Training:
    """What a finished run says of itself, without its images' names."""

    config: Config
    """`model.weights` without its folders."""
    data: str
    """What the data set is called."""
    layout: str
    """How it was read."""
    images: int
    left_out: int
    """Images that could not be read."""
    before: dict[str, Any]
    """Scores of the network before training; see `Run.before`."""
    after: dict[str, Any]
    versions: dict[str, str]
    ended: str
    """The day, or ""."""


@dataclass(frozen=True)
class Facts:
    """All that a card tells besides what its author says."""

    backbone: str
    size: tuple[int, int]
    pooling: str
    last_stride: int
    parts: int
    dim: int
    fingerprint: str
    version: str
    """Of gracl, as it writes the card."""
    training: Training | None = None
    """None where only the model is at hand."""
    repository: str | None = None
    """Where it will lie, as ORGANISATION/NAME."""
    origin: Origin = NO_ORIGIN
    """Of the weights that training began with."""


def training_of(run: Run) -> Training:
    """Reads a finished run.

    Raises:
        RunError: it is none, or not finished.
    """
    after = run.after  # refuses a run that is not finished
    config, about = run.config, run.data
    config = config.replace({"model": {"weights": public_name(config.model.weights)}})
    return Training(
        config=config,
        data=PurePath(about["name"].replace("\\", "/")).name or UNKNOWN,
        layout=about["layout"],
        images=about["images"],
        left_out=len(about["left_out"]),
        before=run.before,
        after=after,
        versions=run.line("start").get("versions", {}),
        ended=run.line("end").get("time", "")[:10],
    )


def origin_in(training: Training | None) -> Origin:
    """Of the weights that a run began with."""
    if training is None:
        return NO_ORIGIN
    return origin_of(training.config.model.backbone, training.config.model.weights)


def write_card(facts: Facts, said: Said) -> str:
    """The text of README.md: the front matter that the hub reads, then what people read."""
    parts = [
        f"---\n{_front_matter(facts, said)}\n---",
        f"# {title_of(facts, said)}",
        _what_it_is(facts),
        "## How to load it",
        _loading(facts),
        "## What it learnt from",
        _data(facts, said),
        "## How it was trained",
        _training(facts),
        "## Scores",
        _scores(facts, said),
        "## Licences",
        _licences(facts, said),
        "## Intended use, and limits",
        LIMITS,
        "## Responsible use",
        RESPONSIBLE,
    ]
    if said.notes:
        parts += ["## Notes", said.notes.strip()]
    return "\n\n".join(parts) + "\n"


def title_of(facts: Facts, said: Said) -> str:
    """The card's first line.

    >>> title_of(Facts("resnet50", (256, 128), "gem", 1, 0, 2048, "", "0.1.0"), Said())
    'Re-identification with resnet50'
    """
    return _line(said.title) if said.title else f"Re-identification with {facts.backbone}"


# -- for the hub ----------------------------------------------------------------------------------


def _front_matter(facts: Facts, said: Said) -> str:
    from huggingface_hub import ModelCardData

    run = facts.training
    tags = ["gracl", "re-identification", "image-retrieval", "metric-learning"]
    if run is not None:
        tags += [run.config.method.name] if run.config.method.name not in tags else []
        tags += [] if _reads_identities(run) else ["unsupervised"]
    results = _results(facts, said)
    return ModelCardData(
        license=said.license or "unknown",
        license_name=said.license_name,
        license_link=said.license_link,
        library_name="gracl",
        pipeline_tag=TASK,
        base_model=facts.origin.repository,
        datasets=[name for name in said.datasets if HUB_NAME.fullmatch(name)] or None,
        tags=tags,
        # The hub wants a name where there are results, and only there.
        model_name=title_of(facts, said) if results else None,
        eval_results=results or None,
    ).to_yaml()


def _results(facts: Facts, said: Said) -> list[Any]:
    """The last epoch's scores in the hub's format, in percent."""
    from huggingface_hub import EvalResult

    run = facts.training
    if run is None:
        return []
    names = said.datasets or (run.data,)
    common: dict[str, Any] = {
        "dataset_name": ", ".join(names),
        "dataset_type": re.sub(r"[^\w./-]+", "-", names[0]),
        "dataset_split": "test",
    }
    found = []
    if "scores" in run.after:
        scores = run.after["scores"]
        if run.after["on_training_images"]:
            common["dataset_split"] = "train"
        of = {"task_type": TASK, "task_name": "Re-identification", **common}
        protocol = {"dataset_config": scores["protocol"]}
        found += [
            EvalResult(
                metric_type=key.lower(),
                metric_name=key,
                metric_value=_percent(scores[key]),
                **of,
                **protocol,
            )
            for key in SCORES
            if key in scores
        ]
    if "agreement" in run.after:
        found.append(
            EvalResult(
                task_type=TASK,
                task_name="Clustering of the training images",
                metric_type="ari",
                metric_name="ARI",
                metric_value=_percent(run.after["agreement"]["ari"]),
                **{**common, "dataset_split": "train"},
            )
        )
    return found


# -- for people -----------------------------------------------------------------------------------


def _what_it_is(facts: Facts) -> str:
    run = facts.training
    how = "How it was trained is not known."
    if run is not None:
        how = f"It was trained by the method `{run.config.method.name}` of gracl, "
        how += "with identities as labels." if _reads_identities(run) else "which reads no identity."
    height, width = facts.size
    return (
        f"A network that turns the crop of one individual into {facts.dim} numbers of unit length. The "
        "product of two such rows is the similarity of two images: high for the same person, vehicle, "
        f"animal or object. {how}\n\n"
        + _table(
            ("network", f"`{facts.backbone}`, pooling `{facts.pooling}`, {_stride(facts)}"),
            ("parts", f"{facts.parts} stripes, used in training alone") if facts.parts else None,
            ("images", f"RGB, resized to {height} x {width} pixels (height x width), bicubic"),
            ("normalisation", "in the model: it takes pixels as they are, 0 to 255"),
            ("features", f"{facts.dim} float32, unit length"),
            ("fingerprint", f"`{facts.fingerprint}`"),
            ("written by", f"gracl {facts.version}"),
        )
    )


def _reads_identities(run: Training) -> bool:
    method = METHODS.get(run.config.method.name)  # one of the user's own may not be there any more
    return method is not None and "classes" in method.needs


def _stride(facts: Facts) -> str:
    return f"last stride {facts.last_stride}"


def _loading(facts: Facts) -> str:
    where = facts.repository or "."
    about = "" if facts.repository else "  # this folder, or its name on the hub"
    return (
        "With gracl installed:\n\n"
        f'```python\nimport gracl\n\nmodel = gracl.from_pretrained("{where}"){about}\n'
        'found = gracl.embed(model, "photos/")  # a folder, a file, a table, arrays\n'
        "similarity = found.features @ found.features.T\n```\n\n"
        "Nothing is unpickled, and no code comes with the model. The fingerprint is checked."
    )


def _data(facts: Facts, said: Said) -> str:
    run = facts.training
    names = ", ".join(map(_code, said.datasets))
    if run is None:
        rows = [("data set", names or UNKNOWN), ("images", UNKNOWN)]
    else:
        bad = f"; {run.left_out:,} more could not be read" if run.left_out else ""
        rows = [
            ("data set", names or _code(run.data)),
            ("images", f"{run.images:,}{bad}"),
            ("read as", _code(run.layout)),
        ]
    origin = facts.origin.name
    if facts.origin.licence:
        origin += f" ({facts.origin.licence})"
    rows += [
        ("licence of the images", _line(said.data_license or UNKNOWN)),
        ("weights at the start", origin),
    ]
    return _table(*rows) + "\n\nNo image and no list of images is part of this repository."


def _training(facts: Facts) -> str:
    run = facts.training
    if run is None:
        return f"Method and settings are {UNKNOWN}: only the model was at hand when this was written."
    method = run.config.method.name
    reads = "with the identities of the images" if _reads_identities(run) else "without identities"
    versions = ", ".join(f"{name} {version}" for name, version in run.versions.items())
    recipe, changed = nearest_recipe(run.config)
    source = f"the recipe `{recipe}`" if recipe else "gracl's defaults"
    train = run.config.train
    text = (
        f"Method `{method}`, {reads}. Epochs: {train.epochs}, of {train.steps} steps; seed "
        f"{train.seed}. Ended {run.ended or UNKNOWN}. Versions: {versions or UNKNOWN}.\n\n"
    )
    if not changed:
        return f"{text}All settings are those of {source}."
    rows = [(f"`{name}`", f"`{mine}`", f"`{theirs}`") for name, (mine, theirs) in changed.items()]
    head = ("setting", "here", f"in {source}")
    return f"{text}Settings are those of {source}, but for:\n\n{_grid(head, rows)}"


def nearest_recipe(config: Config) -> tuple[str, dict[str, tuple[Any, Any]]]:
    """The recipe that a run's settings differ least from, and where they differ; "" is the defaults.

    >>> nearest_recipe(Config.load("market1501").replace({"train": {"epochs": 3}}))
    ('market1501', {'train.epochs': (3, 50)})
    """
    found = {}
    for name in ("", *recipes()):
        theirs = Config.load(name) if name else Config()
        theirs = theirs.replace({"method": {"name": config.method.name}})
        changed = differences(config, theirs)
        found[name] = {key: values for key, values in changed.items() if key not in UNTOLD}
    nearest = min(found, key=lambda name: len(found[name]))
    return nearest, found[nearest]


def _scores(facts: Facts, said: Said) -> str:
    run = facts.training
    if run is None:
        return f"Scores are {UNKNOWN}: only the model was at hand when this was written."
    sides = (run.before, run.after)
    known = [key for key in SCORES if key in run.after.get("scores", {})]
    rows = [(f"{key}, %", *(_score(side, key) for side in sides)) for key in known]
    if "agreement" in run.after:
        cells = (_percent(side["agreement"]["ari"]) for side in sides)
        rows.append(("ARI of the clusters, %", *(f"{cell:.1f}" for cell in cells)))
    if not rows:
        return f"Scores are {UNKNOWN}: the run knew no identities to score it by."
    text = _grid(("", "before training", "after"), rows)
    if "scores" in run.after:
        text += f"\n\n{_protocol(run, said)}"
    if "agreement" in run.after:
        text += "\n\nARI compares the clusters of the training images with their true identities."
    return (
        f"{text}\n\nThese are the figures of the last epoch of one run, not of the best epoch on the "
        "test set. How it does on other images is not known."
    )


def _score(side: dict[str, Any], key: str) -> str:
    scores = side["scores"]
    spread = scores.get("spread", {}).get(key)
    around = "" if spread is None else f" ± {_percent(spread):.1f}"
    return f"{_percent(scores[key]):.1f}{around}"


def _protocol(run: Training, said: Said) -> str:
    scores = run.after["scores"]
    data = ", ".join(map(_code, said.datasets or (run.data,)))
    text = f"Protocol `{scores['protocol']}` on {data}: {scores['n_queries']:,} queries"
    if scores["n_without_match"]:
        text += f", {scores['n_without_match']:,} more without a match left out"
    if scores.get("n_draws", 1) > 1:
        text += f", mean ± standard deviation of {scores['n_draws']} draws"
    if scores.get("note"):
        text += f" ({scores['note']})"
    if run.after["on_training_images"]:
        text += ". **The images trained on searched each other**: there were no others to test with"
    return f"{text}."


def _licences(facts: Facts, said: Said) -> str:
    own = said.license_name if said.license == "other" else said.license
    text = UNKNOWN if own in (None, "unknown") else _line(str(own))
    if said.license_link:
        text = f"[{text}]({said.license_link})"
    origin = facts.origin
    began = "none needed" if origin.begins_at_nothing else origin.licence or UNKNOWN
    table = _grid(
        ("of", "licence"),
        [
            ("these weights", text),
            (f"the weights that training began from ({origin.name})", began),
            ("the training images", _line(said.data_license or UNKNOWN)),
            ("gracl, the code", "apache-2.0"),
        ],
    )
    caution = f"\n\n{origin.caution}" if origin.caution else ""
    return f"{table}{caution}\n\nWho uses the model must keep to all of these."


LIMITS = """\
For finding images of the same individual again among crops like those it learnt from, in research and
in tools where a person looks at what was found. Not for deciding about a person, and not for naming
anyone.

* Features of this model can be compared with features of this model only.
* On other cameras, places, seasons or species it may fail; score it on your own images first.
* A high similarity is no proof that two images show the same individual. Choose a threshold on your own
  images, and expect individuals that were never seen.
* How it treats different groups was not measured; it treats them as unequally as its images do."""

RESPONSIBLE = """\
Re-identification can harm. It can follow people through a city, and it is wrong often enough to point
at the wrong one. Use it on people only where they know of it and the law allows it; where you can, use
animals or vehicles."""


def _table(*rows: tuple[str, str] | None) -> str:
    return _grid(("", ""), [row for row in rows if row is not None])


def _grid(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |" for line in lines)


def _percent(share: float) -> float:
    return round(100 * share, 2)


def _line(text: str) -> str:
    return " ".join(text.split())


def _code(text: str) -> str:
    return f"`{_line(text).replace('`', '')}`"
