"""`gracl evaluate`: a model's scores on a data set."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gracl.commands.options import (
    Flat,
    Images,
    LayoutName,
    load,
    require_own_table,
    require_unique_names,
)
from gracl.config import EvaluateConfig
from gracl.errors import ConfigError
from gracl.terminal import console, print_notes

if TYPE_CHECKING:
    from gracl.data.records import Dataset
    from gracl.models.embedder import Embedder


@dataclass(frozen=True)
class Evaluate:
    """Score a run's model on a data set."""

    run: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A run's folder, a model.safetensors, or hf-hub:ORG/NAME."""
    data: Images
    evaluate: Annotated[EvaluateConfig, Flat] = field(default_factory=EvaluateConfig)
    open_set: bool = False
    """Score how well known individuals are told from new ones, instead."""
    threshold: float | None = None
    """With --open-set: similarity from which a query is known; found in the gallery if not given."""
    calibration: Path | None = None
    """With --open-set: what 'gracl calibrate' wrote for this run, for its threshold."""
    answers: Path | None = None
    """With --open-set: a CSV (image_id, identity) of what each query is taken for."""
    device: str = "auto"
    """The first GPU if there is one, else the CPU; or cpu, cuda, cuda:1, mps."""
    threads: int = 0
    """CPU threads; 0 is as many as there are cores."""
    json: bool = False
    """Print JSON."""
    layout: LayoutName = None


def evaluate(command: Evaluate) -> None:
    """Score a run's model."""
    from gracl.evaluation import evaluate as score
    from gracl.files import load_model
    from gracl.training import choose_device, use_threads

    given = command.threshold, command.calibration, command.answers
    if not command.open_set and given != (None, None, None):
        raise ConfigError(
            "--threshold, --calibration and --answers belong to --open-set; give that too"
        )
    if command.threshold is not None and command.calibration is not None:
        raise ConfigError("--calibration has a threshold of its own; leave --threshold out")
    dataset = load(command)
    use_threads(command.threads)
    model = load_model(command.run).to(choose_device(command.device))
    if command.open_set:
        _evaluate_open_set(command, model, dataset)
        return
    scores = score(model, dataset, command.evaluate)
    if command.json:
        print(json.dumps({"data": dataset.name, **asdict(scores)}))
        return
    console.print(f"{dataset.name}: {scores}", soft_wrap=True)
    if dataset.tests_on_training_images:
        console.print("no query and gallery here: these images searched each other")
    print_notes(dataset)


def _evaluate_open_set(command: Evaluate, model: Embedder, dataset: Dataset) -> None:
    from gracl.evaluation import evaluate_open_set
    from gracl.files import read_calibration
    from gracl.openset import write_answers

    settings, plain = command.evaluate, EvaluateConfig(protocol=command.evaluate.protocol)
    read = replace(settings, memory=plain.memory)
    if read != plain:
        raise ConfigError(
            "--open-set compares single images as they are: leave --tracklets, --rerank, --expand and "
            "--tpr out"
        )
    if command.answers is not None:
        require_own_table("--answers", command.answers, "image_id,identity")
        require_unique_names("--answers", dataset.test[0])
    threshold = (
        command.threshold if command.calibration is None else read_calibration(command.calibration)
    )
    protocol = settings.protocol
    scores, queries, given = evaluate_open_set(
        model,
        dataset,
        protocol="any" if protocol == "auto" else protocol,
        threshold=threshold,
    )
    if command.json:
        print(json.dumps({"data": dataset.name, **asdict(scores)}))
    else:
        console.print(f"{dataset.name}: {scores}", soft_wrap=True)
    if command.answers is not None:
        write_answers(command.answers, [record.path.stem for record in queries], given)
