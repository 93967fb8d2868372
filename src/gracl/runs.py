"""A run: a folder that holds all of one training, and continues it after any interruption.

    config.yaml              all settings, resolved
    data.json                what was trained on
    images.csv               its images: path, box, and the bytes of each file
    log.jsonl                a line when it starts, one an epoch, one when it is scored
    checkpoint.safetensors   state after the last whole epoch; what a run continues from
    labels.csv               path, cluster (-1 is none): of the last epoch, in the end by the model
    model.safetensors        the finished model

How each file is written and read is in `gracl.files`, when a folder may be continued in
`gracl.continuation`, what the log's lines hold in `gracl.logbook`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gracl import distributed, training
from gracl.config import Config
from gracl.continuation import (
    begin_or_continue,
    fingerprint_of,
    make_folder,
    require_room_to_train,
    truncate_log,
)
from gracl.data.records import Dataset
from gracl.data.store import ImageStore, open_store
from gracl.errors import RunError
from gracl.evaluation import identities_of
from gracl.files import (
    NOT_FINISHED,
    append,
    load_model,
    read_labels,
    read_log,
    save_model,
    save_snapshot,
    write,
    write_labels,
)
from gracl.labelling import LinkSource, known_links, require_training_images
from gracl.lock import held
from gracl.logbook import about_machine, epoch_line, epoch_truth, scores_of
from gracl.methods import METHODS
from gracl.models.embedder import Embedder
from gracl.paths import is_file
from gracl.run_json import read_object
from gracl.stopwatch import Stopwatch
from gracl.training import Epoch, Progress


@dataclass(frozen=True)
class Run:
    """A training's folder, read."""

    folder: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder))  # a plain string will do

    @property
    def config(self) -> Config:
        """Its settings, resolved."""
        return Config.load(self._existing("config.yaml"))

    @property
    def log(self) -> list[dict[str, Any]]:
        """All lines of log.jsonl."""
        return read_log(self.folder / "log.jsonl")

    @property
    def epochs(self) -> list[dict[str, Any]]:
        """The log's epochs."""
        return [line for line in self.log if line["event"] == "epoch"]

    @property
    def before(self) -> dict[str, Any]:
        """Clusters and scores of the network before training; see `after`."""
        found: dict[str, Any] = self.line("start")["before"]
        return found

    @property
    def after(self) -> dict[str, Any]:
        """Of the trained network: "clusters" and, where the truth is known, "agreement", "scores"."""
        found: dict[str, Any] = self.line("end")["after"]
        return found

    @property
    def model(self) -> Embedder:
        """The finished model, on the CPU, in eval mode."""
        return load_model(self._existing("model.safetensors"))

    @property
    def data(self) -> dict[str, Any]:
        """What it was trained on: name, root, layout and number of images, and what was left out."""
        return read_object(self._existing("data.json"))

    @property
    def left_out(self) -> list[dict[str, str]]:
        """Path and reason of each image that could not be read."""
        found: list[dict[str, str]] = self.data["left_out"]
        return found

    @property
    def labels(self) -> list[tuple[str, int]]:
        """(path, cluster) of each image trained on."""
        return read_labels(self._existing("labels.csv"))

    def line(self, event: str) -> dict[str, Any]:
        """The log's line of an event that there is once: "start" or "end".

        Raises:
            RunError: there is none yet.
        """
        for line in self.log:
            if line["event"] == event:
                return line
        raise RunError(f"the log of {self.folder} has no '{event}' yet: {NOT_FINISHED}")

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not is_file(path):
            if not is_file(self.folder / "config.yaml"):
                raise RunError(
                    f"{self.folder} is not a run: it has no config.yaml. Give the folder that "
                    "'gracl train' named when it ended, such as runs/photos"
                )
            raise RunError(f"{self.folder} has no {name} yet: {NOT_FINISHED}")
        return path


def train(
    config: Config,
    dataset: Dataset,
    out: str | Path,
    *,
    links: LinkSource | None = None,
    continues: Run | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    progress: Progress | None = None,
) -> Run:
    """Trains on a data set's training images without their identities; resumable by the same call.

    Where the truth is known, the model is scored before and after, and the clusters too; the truth
    is used for nothing else. Processes that torchrun started train one model together, each on a
    device of its own; the result is that of one process, up to rounding.

    Args:
        config: all settings.
        dataset: what `gracl.load_dataset` gives.
        out: the run's folder. One that holds an unfinished run with the same settings and images is
            continued from its last whole epoch; a finished one is returned as it is.
        links: a CSV of image pairs that must or cannot share a cluster, see `gracl.read_links`; or a
            function that gives the links of the images that could be read. What follows from the
            records (`data.link_sequences`, `data.separate_boxes`) is added.
        continues: the run that this one follows, to be noted; see `gracl.continue_training`.
        on_epoch: called after each epoch, once its checkpoint is on disk; in each process.
        progress: called with (stage, done, total).

    Raises:
        RunError: the folder holds something else, another run, or a run of other images; or another
            process trains it.
        ClusterCollapse, NonFiniteLoss: from training; the last checkpoint stays.
    """
    folder = Path(out)
    require_training_images(dataset)
    with distributed.processes(), ExitStack() as stack:
        _train(config, dataset, folder, links, continues, on_epoch, progress, stack)
        distributed.meet()  # what the first wrote last is there for all of them
    return Run(folder)


def _train(
    config: Config,
    dataset: Dataset,
    folder: Path,
    source: LinkSource | None,
    continues: Run | None,
    on_epoch: Callable[[Epoch], None] | None,
    progress: Progress | None,
    stack: ExitStack,
) -> None:
    """What each process does; only the first reads and writes the run's folder, and holds it."""
    training.use_threads(config.train.threads)
    training.use_deterministic(config.train.deterministic)
    device = training.choose_device(config.train.device)
    watch = Stopwatch(device)
    images, fingerprint = _images(config, dataset, watch, progress)
    links = known_links(images.records, config.data, source=source, root=dataset.root)
    classes = identities_of(images.records, dataset.train)
    known = training.known_of(images.records, config, classes=classes)
    needs = METHODS[config.method.name].needs
    training.require_needs(needs, known, config)
    told = classes if "classes" in needs else None
    distributed.from_first(lambda: make_folder(folder, config))
    if os.access(folder, os.W_OK):  # else a finished run is still returned, and no other is written
        distributed.from_first(lambda: stack.enter_context(held(folder, doing="trained")))
    snapshot = distributed.from_first(
        lambda: begin_or_continue(
            folder,
            config,
            dataset,
            images,
            links,
            fingerprint,
            told,
            continues=None if continues is None else continues.folder,
        )
    )
    done = snapshot.epoch if snapshot else 0
    log = folder / "log.jsonl"
    # The last line of the log is written last. The model's file alone proves nothing: it may be that
    # of a shorter run that is being continued.
    ended = distributed.from_first(lambda: any(line["event"] == "end" for line in read_log(log)))
    if ended and done >= config.train.epochs:
        return

    write(folder / "config.yaml", config.to_yaml().encode())
    distributed.from_first(lambda: truncate_log(log, done))
    model = training.build_model(config.model, seed=config.train.seed).to(device)
    distributed.from_first(lambda: require_room_to_train(folder, model, config))
    if snapshot is None:
        training.initialise(model, images, config)
        with watch("evaluate"):
            before = scores_of(model, dataset, images, config, links)
        append(
            log, {"event": "start", **about_machine(device), "seconds": watch.seconds, "before": before}
        )
    for epoch in training.fit(
        model, images, config, links=links, classes=classes, resume=snapshot, progress=progress
    ):
        append(log, {**epoch_line(epoch), **epoch_truth(epoch, classes, dataset, config)})
        write_labels(folder / "labels.csv", images.records, epoch.labels)
        if distributed.rank() == 0:
            save_snapshot(folder / "checkpoint.safetensors", epoch.snapshot())
        if on_epoch is not None:
            on_epoch(epoch)
    watch = Stopwatch(device)
    with watch("evaluate"):
        after = scores_of(model, dataset, images, config, links, labels_to=folder / "labels.csv")
    save_model(folder / "model.safetensors", model, config.model)
    append(log, {"event": "end", "seconds": watch.seconds, "after": after})


def _images(
    config: Config, dataset: Dataset, watch: Stopwatch, progress: Progress | None
) -> tuple[ImageStore, str]:
    """What is trained on, and what tells it from other images; the same in each process."""
    with watch("decode"), distributed.first_of_machine_first():
        images = open_store(
            dataset.train.unlabelled(),
            size=config.model.size,
            on_bad=config.data.on_bad,
            progress=training.stage(progress, "decode"),
        )
    fingerprint = fingerprint_of(dataset.root, images)
    seen = torch.frombuffer(bytearray(fingerprint.encode()), dtype=torch.uint8)
    distributed.require_same("images", [seen], "Give each process the same ones")
    training.require_enough(images, config)
    return images, fingerprint
