"""What a run's log says: of the start, of each epoch, and of the network before and after training."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gracl import distributed, training
from gracl.agreement import compare_labels
from gracl.clustering import health
from gracl.config import Config
from gracl.data.records import Dataset
from gracl.data.store import ImageStore
from gracl.evaluation import agreement_with_truth, can_be_scored, evaluate
from gracl.extraction import extract
from gracl.files import write_labels
from gracl.links import Links
from gracl.models.embedder import Embedder
from gracl.stopwatch import Stopwatch
from gracl.training import Epoch


def epoch_line(epoch: Epoch) -> dict[str, Any]:
    """What the training itself tells of an epoch."""
    return {
        "event": "epoch",
        "epoch": epoch.number,
        "losses": epoch.losses,
        "learning_rate": epoch.learning_rate,
        **dataclasses.asdict(epoch.health),
        "warnings": list(epoch.health.warnings),
        "seconds": epoch.seconds,
        "images_per_second": epoch.images_per_second,
        "peak_memory": epoch.peak_memory,
    }


def epoch_truth(
    epoch: Epoch, pids: NDArray[np.int64], dataset: Dataset, config: Config
) -> dict[str, Any]:
    """What the truth says of an epoch's labels and, every so many epochs, of its model.

    The seconds are then those of the epoch's line with the scoring's among them.

    Args:
        epoch: as it was yielded; neither its model nor a random state is changed.
        pids: (N,) true identities of its images, -1 unknown.
        dataset: what the model is scored on.
        config: evaluate.every and how to score.
    """
    found: dict[str, Any] = {}
    if bool((pids >= 0).any()):
        found["agreement"] = dataclasses.asdict(compare_labels(epoch.labels, pids))
    every = config.evaluate.every
    if every and epoch.number % every == 0 and can_be_scored(dataset):
        watch = Stopwatch(next(epoch.model.parameters()).device)
        with watch("evaluate"):
            found["scores"] = _retrieval(epoch.model, dataset, config)
        found["seconds"] = {**epoch.seconds, **watch.seconds}
    return found


def scores_of(
    model: Embedder,
    dataset: Dataset,
    images: ImageStore,
    config: Config,
    links: Links,
    *,
    labels_to: Path | None = None,
) -> dict[str, Any]:
    """Clusters by the model as it is, and what the truth says of them and of retrieval, if known."""
    known = training.known_of(images.records, config, links=links)
    method = training.build_method(config.method, known)
    features = extract(model, images, batch_size=config.train.extract_batch)
    labels, _ = method.label(features)
    if labels_to is not None:
        write_labels(labels_to, images.records, labels)
    found: dict[str, Any] = {"clusters": dataclasses.asdict(health(labels))}
    agreed = agreement_with_truth(labels, images.records, dataset.train)
    if agreed is not None:
        found["agreement"] = dataclasses.asdict(agreed)
    if can_be_scored(dataset):
        found["scores"] = _retrieval(model, dataset, config)
        found["on_training_images"] = dataset.tests_on_training_images
    return found


def curves_of(log: Sequence[dict[str, Any]]) -> dict[str, tuple[tuple[int, float], ...]]:
    """mAP and ARI by the number of epochs that the model had been trained when they were taken.

    An epoch's clusters are those of the model that enters it, its scores those of the one that leaves.

    Args:
        log: the lines of a run.
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


def ends_of(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, str, str]]:
    """What is known of the network before and after training: name, and both values in words.

    Args:
        before, after: as `scores_of` gave them.

    >>> ends_of({"clusters": {"n_clusters": 9}}, {"clusters": {"n_clusters": 20}})
    [('clusters', '9', '20')]
    """
    names = [
        ("mAP", "scores", "mAP"),
        ("mINP", "scores", "mINP"),
        *((f"R{k}", "scores", f"R{k}") for k in (1, 5, 10)),
        ("ARI of clusters", "agreement", "ari"),
        ("clusters", "clusters", "n_clusters"),
        ("outliers", "clusters", "outlier_share"),
    ]
    rows = []
    for name, group, key in names:
        if all(key in side.get(group, {}) for side in (before, after)):
            first, last = (_in_words(side[group][key]) for side in (before, after))
            rows.append((name, first, last))
    return rows


def _in_words(value: float) -> str:
    """A count as it is, a share in percent."""
    return str(value) if isinstance(value, int) else f"{value:.1%}"


def _retrieval(model: Embedder, dataset: Dataset, config: Config) -> dict[str, Any]:
    """A model's scores as a log holds them."""
    scores = evaluate(
        model,
        dataset,
        config.evaluate,
        batch_size=config.train.extract_batch,
        on_bad=config.data.on_bad,
    )
    cmc = {f"R{k}": share for k, share in scores.cmc.items()}
    return {**dataclasses.asdict(scores), **cmc}


def about_machine(device: torch.device) -> dict[str, Any]:
    """What a run runs on."""
    names = ("gracl", "torch", "timm", "numpy", "scipy", "numba")
    return {
        "python": platform.python_version(),
        "machine": platform.machine(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processes": distributed.size(),
        "threads": torch.get_num_threads(),
        "versions": {name: metadata.version(name) for name in names},
    }
