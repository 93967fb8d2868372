"""Contenders trained with the same seeds, one after another, into one folder; resumable.

out/<contender>/seed-<n>    a run, see `gracl.runs`
out/comparison.json         what `read_comparison` reads; written after each run
out/curves.png              what `draw_curves` draws
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch

from gracl import metrics, training
from gracl.comparison import Comparison, Outcome, to_json
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
)
from gracl.evaluation import can_be_scored, identities_of
from gracl.files import read_log, write
from gracl.forecast import GIB
from gracl.logbook import curves_of
from gracl.methods import METHODS
from gracl.models.embedder import Embedder
from gracl.paths import is_folder, is_there
from gracl.runs import Run, train
from gracl.training import Progress

Datasets = Dataset | Callable[[int], Dataset]
"""One data set for all, or a function that gives the data set of each seed."""


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
        write(folder / "comparison.json", to_json(found).encode())
        if on_run is not None:
            on_run(outcome)
    return found


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
        curves=curves_of(run.log),
        protocol=after["scores"]["protocol"] if after else "",
        on_training_images=after.get("on_training_images", False),
        machine={key: value for key, value in start.items() if key not in told},
        failure=failure,
    )


def _measures(run: Run) -> dict[str, float]:
    after, epochs = run.after, run.epochs
    if not epochs:
        raise RunError(
            f"the run {run.folder} is finished, but its log.jsonl holds no epoch: it was edited. Move "
            "the folder away and type the same again, which trains this one anew"
        )
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
    if is_there(out) and not is_folder(out):
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
