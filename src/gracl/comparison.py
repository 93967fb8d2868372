"""Methods and settings side by side: each trained with the same seeds, compared seed by seed.

    out/<contender>/seed-<n>    a run, see `gracl.runs`
    out/comparison.json         what `read_comparison` reads; written after each run
    out/curves.png              what `draw_curves` draws

Scores are those of the last epoch. A difference is told with the interval that so few seeds allow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gracl import metrics, training
from gracl.config import Config, EvaluateConfig, differences
from gracl.contenders import Contender, require_own_names
from gracl.continuation import begun
from gracl.data import protocols
from gracl.data.records import Dataset
from gracl.errors import (
    ClusterCollapse,
    ConfigError,
    DataError,
    EvaluationError,
    NonFiniteLoss,
    RunError,
    did_you_mean,
)
from gracl.evaluation import can_be_scored, identities_of
from gracl.files import read_log, write
from gracl.forecast import GIB
from gracl.methods import METHODS
from gracl.models.embedder import Embedder
from gracl.runs import Run, train
from gracl.sweep import require_drawable
from gracl.training import Progress

SHARES = ("mAP", "R1", "mINP", "ARI")
"""What is better when larger, in [0, 1]; ARI is of the clusters."""
MEASURES = (*SHARES, "minutes", "memory")
"""What a run is measured by. minutes: of its epochs, without decoding and scoring. memory: GiB at most,
of the GPU where there is one, else of the process; away from Linux, with all that it did before."""
CONFIDENCE = 0.95
KIND = "gracl comparison"

Datasets = Dataset | Callable[[int], Dataset]
"""One data set for all, or a function that gives the data set of each seed."""


@dataclass(frozen=True)
class Outcome:
    """What came of one training."""

    contender: str
    seed: int
    measures: dict[str, float]
    """By `MEASURES`; without ARI where no identity of a training image is known, empty if it failed."""
    curves: dict[str, tuple[tuple[int, float], ...]]
    """mAP and ARI by the epochs that the model had been trained."""
    protocol: str
    """What it was scored under; empty if it failed."""
    on_training_images: bool
    """Whether the training images searched each other."""
    machine: dict[str, Any]
    """Device, processes, threads and versions that it ran with."""
    failure: str | None = None
    """Why it has no scores; None if it has."""


@dataclass(frozen=True)
class Spread:
    """One measure over the seeds of a contender."""

    mean: float
    std: float | None
    """Sample standard deviation (divisor n - 1); None for one seed."""
    n: int
    """Seeds that it was measured with."""


@dataclass(frozen=True)
class Row:
    """A contender's line of the table."""

    name: str
    spreads: dict[str, Spread]
    """By `MEASURES`; those that are not known are missing."""
    finished: int
    """Seeds that were trained to the end."""


@dataclass(frozen=True)
class Paired:
    """A difference between two contenders, each seed of one beside the same seed of the other."""

    difference: float
    """Mean over the seeds that both finished."""
    low: float | None
    """Lower end of the 95 % confidence interval of a paired t; None for one seed, which has none."""
    high: float | None
    n: int
    """Seeds that both finished."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; False where there is none."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def word(self) -> str:
        """Of a measure that is better when larger: "better", "worse" or "not told apart"."""
        if not self.excludes_zero:
            return "not told apart"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """Contenders and what came of each with each seed."""

    data: str
    """The data set's name."""
    contenders: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: dict[str, dict[str, Any]]
    """By contender: the settings in which not all are alike; None where its method has no such one."""
    outcomes: tuple[Outcome, ...]
    """Of the runs that are done, seed by seed."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """A line of the table for each contender, in their order."""
        return tuple(self._row(name) for name in self.contenders)

    @property
    def protocols(self) -> tuple[str, ...]:
        """What the runs were scored under; scores under different ones are not comparable."""
        return tuple(sorted({o.protocol for o in self.outcomes if o.failure is None}))

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The runs that stopped on an error of the training."""
        return tuple(o for o in self.outcomes if o.failure is not None)

    def values(self, contender: str, measure: str) -> dict[int, float]:
        """One measure of a contender by seed; without the seeds in which it is not known.

        Raises:
            ConfigError: no contender, or no measure, has this name.
        """
        if contender not in self.contenders:
            known = did_you_mean(contender, self.contenders)
            raise ConfigError(f"no contender '{contender}'; {known}")
        if measure not in MEASURES:
            raise ConfigError(f"no measure '{measure}'; {did_you_mean(measure, MEASURES)}")
        own = (o for o in self.outcomes if o.contender == contender)
        return {o.seed: o.measures[measure] for o in own if measure in o.measures}

    def paired(self, a: str, b: str, measure: str = "mAP") -> Paired:
        """How much more a contender has of a measure than another: a minus b.

        The seeds are paired, since a seed sets the data's split, the first weights and the batches of
        both. The interval supposes that differences are spread normally over seeds.

        Args:
            a, b: contenders by name.
            measure: one of `MEASURES`.

        Raises:
            ConfigError: an unknown name, or no seed in which both are measured.
        """
        first, second = self.values(a, measure), self.values(b, measure)
        common = [seed for seed in self.seeds if seed in first and seed in second]
        if not common:
            raise ConfigError(
                f"no seed in which both '{a}' and '{b}' have {measure}, so there is no difference. "
                "Compare contenders that finished, or give more seeds"
            )
        return paired_difference([first[s] for s in common], [second[s] for s in common])

    def _row(self, name: str) -> Row:
        found = {measure: list(self.values(name, measure).values()) for measure in MEASURES}
        spreads = {measure: _spread(values) for measure, values in found.items() if values}
        return Row(name, spreads, len(found["minutes"]))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Paired:
    """The mean of a - b, with the confidence interval of a paired t where there are two pairs or more.

    >>> found = paired_difference([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])
    >>> print(f"{found.difference:.2f} [{found.low:.2f}, {found.high:.2f}]")
    0.20 [-0.05, 0.45]
    """
    from scipy.stats import t

    delta = np.subtract(a, b).astype(np.float64)
    n, mean = len(delta), float(delta.mean())
    if n < 2:
        return Paired(mean, None, None, n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * float(delta.std(ddof=1)) / math.sqrt(n)
    return Paired(mean, mean - half, mean + half, n)


def _spread(values: Sequence[float]) -> Spread:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), std, len(values))


# -- training them --------------------------------------------------------------------------------


def compare(
    contenders: Sequence[Contender],
    dataset: Datasets,
    out: str | Path,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    on_run: Callable[[Outcome], None] | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Trains each contender with each seed, and puts what came of it side by side.

    All contenders of one seed are trained before the next seed, so that one who stops early has whole
    seeds. The same call continues after any interruption; finished runs are read, not trained. A
    training that stops on collapsed clusters or on a loss that is not finite is recorded as failed.

    Args:
        contenders: `contenders_of` and `grid` make them; their `train.seed` is not read.
        dataset: where identities are known; or a function that gives one for each seed.
        out: the folder of all runs.
        seeds: two or more give a standard deviation and an interval.
        on_run: called after each run, also one that was finished before.
        progress: called with (stage, done, total) while a run is trained.

    Raises:
        ConfigError, DataError, EvaluationError: before the first training, where a contender could not
            be trained or scored with some seed.
        RunError: a folder holds something else.
    """
    folder = Path(out)
    require_own_names(contenders)
    if not seeds or len(set(seeds)) < len(seeds):
        raise ConfigError(f"seeds are {list(seeds)}; expected one or more, each once")
    datasets = {seed: dataset if isinstance(dataset, Dataset) else dataset(seed) for seed in seeds}
    _require_trainable(contenders, datasets, folder)
    found = Comparison(
        data=datasets[seeds[0]].name,
        contenders=tuple(contender.name for contender in contenders),
        seeds=tuple(seeds),
        settings=_differing(contenders),
        outcomes=(),
    )
    threads = torch.get_num_threads()
    for seed, contender in product(seeds, contenders):
        torch.set_num_threads(threads)  # what one contender asks for is not the next one's
        config = contender.config.replace({"train": {"seed": seed}})
        run_folder = _run_folder(folder, contender, seed)
        outcome = _outcome(contender.name, config, datasets[seed], run_folder, progress)
        found = dataclasses.replace(found, outcomes=(*found.outcomes, outcome))
        write(folder / "comparison.json", _to_json(found).encode())
        if on_run is not None:
            on_run(outcome)
    return found


def read_comparison(out: str | Path) -> Comparison:
    """A comparison by its folder, also one that is going on.

    Raises:
        RunError: the folder holds none.
    """
    path = Path(out) / "comparison.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read: {error}. Make it with: gracl compare") from error
    if not isinstance(found, dict) or found.get("kind") != KIND:
        raise RunError(f"{path} is no comparison of gracl. Give the --out of: gracl compare")
    return Comparison(
        data=found["data"],
        contenders=tuple(found["contenders"]),
        seeds=tuple(found["seeds"]),
        settings=found["settings"],
        outcomes=tuple(_outcome_from(line) for line in found["runs"]),
    )


def _run_folder(out: Path, contender: Contender, seed: int) -> Path:
    return out / contender.folder / f"seed-{seed}"


def _outcome(
    name: str, config: Config, dataset: Dataset, folder: Path, progress: Progress | None
) -> Outcome:
    """Trains one contender with one seed, or reads what was trained before."""
    failure = None
    _forget_peak_memory()
    try:
        train(config, dataset, folder, progress=progress)
    except (ClusterCollapse, NonFiniteLoss) as error:
        failure = str(error)
    run = Run(folder)
    after = run.after if failure is None else {}
    start = next((line for line in run.log if line["event"] == "start"), {})
    told = ("event", "time", "seconds", "before")
    return Outcome(
        contender=name,
        seed=config.train.seed,
        measures=_measures(run) if failure is None else {},
        curves=_curves(run.log),
        protocol=after["scores"]["protocol"] if after else "",
        on_training_images=after.get("on_training_images", False),
        machine={key: value for key, value in start.items() if key not in told},
        failure=failure,
    )


def _measures(run: Run) -> dict[str, float]:
    after, epochs = run.after, run.epochs
    seconds = [spent for e in epochs for stage, spent in e["seconds"].items() if stage != "evaluate"]
    peak = epochs[-1]["peak_memory"]
    shares = {name: after["scores"][name] for name in ("mAP", "R1", "mINP")}
    if "agreement" in after:
        shares["ARI"] = after["agreement"]["ari"]
    return {
        **shares,
        "minutes": sum(seconds) / 60,
        "memory": peak.get("device", peak["host"]) / GIB,
    }


def _curves(log: Sequence[dict[str, Any]]) -> dict[str, tuple[tuple[int, float], ...]]:
    """mAP and ARI by the number of epochs that the model had been trained when they were taken.

    An epoch's clusters are those of the model that enters it, its scores those of the one that leaves.
    """
    found: dict[str, dict[int, float]] = {"mAP": {}, "ARI": {}}
    epochs = 0
    for line in log:
        epochs = line.get("epoch", epochs)
        known = {"start": line.get("before"), "end": line.get("after")}.get(line["event"]) or line
        if "scores" in known:
            found["mAP"][epochs] = known["scores"]["mAP"]
        if "agreement" in known:
            entered = epochs - 1 if line["event"] == "epoch" else epochs
            found["ARI"][entered] = known["agreement"]["ari"]
    return {name: tuple(sorted(points.items())) for name, points in found.items() if points}


def _forget_peak_memory() -> None:
    """Counts the most memory from here on, as far as the system lets a process do so."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.reset_peak_memory_stats()
    with contextlib.suppress(OSError):  # Linux alone
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _differing(contenders: Sequence[Contender]) -> dict[str, dict[str, Any]]:
    """By contender, the settings in which not all are alike."""
    first = contenders[0].config
    names = {name: None for c in contenders for name in differences(first, c.config)}
    plain = {c.name: c.config.plain() for c in contenders}
    return {
        contender: {name: _setting(settings, name) for name in names if name != "train.seed"}
        for contender, settings in plain.items()
    }


def _setting(settings: Mapping[str, Any], name: str) -> Any:
    section, _, key = name.partition(".")
    return settings[section].get(key)


# -- what is refused before the first training ----------------------------------------------------


def _require_trainable(
    contenders: Sequence[Contender], datasets: Mapping[int, Dataset], out: Path
) -> None:
    """Refuses what would stop the comparison after some of it was trained."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file; expected a folder or nothing. Give another --out")
    models: dict[Any, Embedder] = {}
    for contender in contenders:
        with _named(contender):
            training.choose_device(contender.config.train.device)
            if contender.config.model not in models:
                models[contender.config.model] = training.build_model(contender.config.model)
    models.clear()
    for (seed, dataset), contender in product(datasets.items(), contenders):
        with _named(contender):
            config = contender.config.replace({"train": {"seed": seed}})
            _require_truth(dataset, config.evaluate)
            _require_method(dataset, config)
            _require_same_run(_run_folder(out, contender, seed), config)


@contextlib.contextmanager
def _named(contender: Contender) -> Iterator[None]:
    """Says of which contender an error speaks."""
    try:
        yield
    except (ConfigError, DataError, EvaluationError) as error:
        raise type(error)(f"{contender.name}: {error}") from error


def _require_truth(dataset: Dataset, settings: EvaluateConfig) -> None:
    if not len(dataset.train):
        raise DataError(f"{dataset.name} has no training images. Give a folder of images to learn from")
    if not can_be_scored(dataset):
        raise EvaluationError(
            f"{dataset.name} cannot be scored, so nothing can be compared: no identities are known, or "
            "none is seen twice. Give one folder an identity, a CSV with the column identity, or a "
            "data set with query and gallery"
        )
    if settings.protocol != "auto":
        sides = protocols.sides(*dataset.test, settings.protocol)
        metrics.require_match(metrics.has_match(*sides), settings.protocol)
    if settings.tracklets and not all(side.has("sequence") for side in dataset.test):
        raise EvaluationError(
            f"{dataset.name} names no sequence on one side or both, and scoring tracklets needs them. "
            "Add a column 'sequence', or switch evaluate.tracklets off"
        )


def _require_method(dataset: Dataset, config: Config) -> None:
    needs = METHODS[config.method.name].needs
    images = dataset.train.unlabelled()
    classes = identities_of(images, dataset.train) if "classes" in needs else None
    known = training.known_of(images, config, classes=classes)
    training.require_needs(needs, known, config)
    training.build_method(config.method, known)


def _require_same_run(folder: Path, config: Config) -> None:
    """Refuses a run of other settings, one trained for longer, and one that was scored otherwise."""
    if not begun(folder, config):
        return
    changed = differences(Config.load(folder / "config.yaml"), config)
    log = read_log(folder / "log.jsonl")
    ended = any(line["event"] == "end" for line in log)
    done = sum(line["event"] == "epoch" for line in log)
    if done > config.train.epochs:
        raise ConfigError(
            f"{folder} holds a run of {done} epochs already, and {config.train.epochs} are asked for. "
            "Give another --out"
        )
    scored = {
        name: values
        for name, values in changed.items()
        if name.startswith("evaluate.") and name not in ("evaluate.every", "evaluate.memory")
    }
    if ended and scored:
        listed = ", ".join(f"{name} was {a}, is {b}" for name, (a, b) in scored.items())
        raise ConfigError(
            f"{folder} holds a finished run that was scored otherwise ({listed}). Give another --out"
        )


# -- files ----------------------------------------------------------------------------------------


def _to_json(found: Comparison) -> str:
    plain = dataclasses.asdict(found)
    runs = plain.pop("outcomes")
    return json.dumps({"kind": KIND, **plain, "protocols": found.protocols, "runs": runs}, indent=1)


def _outcome_from(line: dict[str, Any]) -> Outcome:
    points = {
        name: tuple((int(epochs), float(value)) for epochs, value in curve)
        for name, curve in line["curves"].items()
    }
    return Outcome(**{**line, "curves": points})


def draw_curves(found: Comparison, path: str | Path) -> None:
    """mAP and ARI by epoch: the mean of each contender's finished seeds, in a band from least to most.

    mAP is known between the first and the last epoch where `evaluate.every` is not 0.

    Raises:
        ConfigError: the picture cannot be drawn or written there; see `sweep.require_drawable`.
    """
    require_drawable(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 7), layout="constrained")
    for axes, measure in zip(figure.subplots(2, 1, sharex=True), ("mAP", "ARI"), strict=True):
        for name in found.contenders:
            epochs, values = _band(found, name, measure)
            if len(epochs):
                (line,) = axes.plot(epochs, values.mean(axis=0), "o-", markersize=3, label=name)
                low, high = values.min(axis=0), values.max(axis=0)
                axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
        axes.set_ylabel(f"{measure}, %")
        if axes.lines:
            axes.legend()
    axes.set_xlabel(f"epochs trained; band: least to most of {len(found.seeds)} seeds")
    figure.savefig(path)


def _band(found: Comparison, name: str, measure: str) -> tuple[list[int], Any]:
    """(E,) epochs at which all finished seeds of a contender were measured, (seeds, E) percent."""
    curves = [
        dict(o.curves.get(measure, ()))
        for o in found.outcomes
        if o.contender == name and o.failure is None
    ]
    common = sorted(set.intersection(*(set(curve) for curve in curves))) if curves else []
    return common, 100 * np.array([[curve[e] for e in common] for curve in curves])
