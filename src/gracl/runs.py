"""A run: a folder that holds all of one training, and continues it after any interruption.

    config.yaml              all settings, resolved
    data.json                what was trained on
    log.jsonl                a line when it starts, one an epoch, one when it is scored
    checkpoint.safetensors   state after the last whole epoch; what a run continues from
    labels.csv               path, cluster (-1 is none): of the last epoch, in the end by the model
    model.safetensors        the finished model

How each file is written and read is in `gracl.files`.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import json
import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse

from gracl import distributed, training
from gracl.agreement import compare_labels
from gracl.clustering import Labels, health
from gracl.config import Config, DataConfig, differences
from gracl.data.pairs import links_of, read_links
from gracl.data.records import Dataset, Problem, Records
from gracl.data.store import ImageStore, open_store
from gracl.errors import ConfigError, DataError, RunError
from gracl.evaluation import agreement_with_truth, can_be_scored, evaluate, identities_of
from gracl.extraction import extract
from gracl.files import (
    append,
    load_model,
    load_snapshot,
    read_log,
    save_model,
    save_snapshot,
    write,
    write_labels,
)
from gracl.links import Links, must_groups
from gracl.method_settings import MethodConfig
from gracl.methods import METHODS
from gracl.models.embedder import Embedder
from gracl.stopwatch import Stopwatch
from gracl.training import Epoch, Progress, Snapshot

MAY_CHANGE = {
    "train.epochs",
    "train.device",
    "train.threads",
    "train.extract_batch",
    "train.memory",
    "train.store",
    "train.compile",
}
"""Settings that a continued run may change: how long and on what it runs, not what it computes."""
MAY_CHANGE_SECTIONS = {"evaluate"}
SAMPLED = 256
"""Images whose pixels tell one data set from another; of all others the size of the file does."""


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
        return self._logged("start", "before")

    @property
    def after(self) -> dict[str, Any]:
        """Of the trained network: "clusters" and, where the truth is known, "agreement", "scores"."""
        return self._logged("end", "after")

    @property
    def model(self) -> Embedder:
        """The finished model, on the CPU, in eval mode."""
        return load_model(self._existing("model.safetensors"))

    @property
    def data(self) -> dict[str, Any]:
        """What it was trained on: name, root, layout and number of images, and what was left out."""
        found: dict[str, Any] = json.loads(self._existing("data.json").read_text(encoding="utf-8"))
        return found

    @property
    def left_out(self) -> list[dict[str, str]]:
        """Path and reason of each image that could not be read."""
        found: list[dict[str, str]] = self.data["left_out"]
        return found

    @property
    def labels(self) -> list[tuple[str, int]]:
        """(path, cluster) of each image trained on."""
        with self._existing("labels.csv").open(newline="", encoding="utf-8") as lines:
            return [(row["path"], int(row["cluster"])) for row in csv.DictReader(lines)]

    def _logged(self, event: str, key: str) -> dict[str, Any]:
        for line in self.log:
            if line["event"] == event:
                found: dict[str, Any] = line[key]
                return found
        raise RunError(f"the log of {self.folder} has no '{event}' yet: the run is not finished")

    def _existing(self, name: str) -> Path:
        path = self.folder / name
        if not path.is_file():
            if not (self.folder / "config.yaml").is_file():
                raise RunError(f"{self.folder} is not a run: it has no config.yaml")
            raise RunError(
                f"{self.folder} has no {name} yet: the run is not finished. Continue it with the "
                "command that began it"
            )
        return path


def train(
    config: Config,
    dataset: Dataset,
    out: str | Path,
    *,
    links: str | Path | None = None,
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
        links: a CSV of image pairs that must or cannot share a cluster, see `gracl.read_links`.
            What follows from the records (`data.link_sequences`, `data.separate_boxes`) is added.
        on_epoch: called after each epoch, once its checkpoint is on disk; in each process.
        progress: called with (stage, done, total).

    Raises:
        RunError: the folder holds something else, another run, or a run of other images.
        ClusterCollapse, NonFiniteLoss: from training; the last checkpoint stays.
    """
    folder = Path(out)
    _require_training_images(dataset)
    with distributed.processes():
        _train(config, dataset, folder, links, on_epoch, progress)
        distributed.meet()  # what the first wrote last is there for all of them
    return Run(folder)


def _train(
    config: Config,
    dataset: Dataset,
    folder: Path,
    table: str | Path | None,
    on_epoch: Callable[[Epoch], None] | None,
    progress: Progress | None,
) -> None:
    """What each process does; only the first reads and writes the run's folder."""
    training.use_threads(config.train.threads)
    device = training.choose_device(config.train.device)
    watch = Stopwatch(device)
    with watch("decode"), distributed.first_of_machine_first():
        images = open_store(
            dataset.train.unlabelled(),
            size=config.model.size,
            on_bad=config.data.on_bad,
            progress=training.stage(progress, "decode"),
        )
    fingerprint = _fingerprint(dataset.root, images)
    seen = torch.frombuffer(bytearray(fingerprint.encode()), dtype=torch.uint8)
    distributed.require_same("images", [seen], "Give each process the same ones")
    training.require_enough(images, config)
    links = known_links(images.records, config.data, table=table, root=dataset.root)
    classes = identities_of(images.records, dataset.train)
    known = training.known_of(images.records, config, classes=classes)
    training.require_needs(METHODS[config.method.name].needs, known, config)
    snapshot = distributed.from_first(
        lambda: _open(folder, config, dataset, images, links, fingerprint)
    )
    done = snapshot.epoch if snapshot else 0
    log = folder / "log.jsonl"
    # The last line of the log is written last. The model's file alone proves nothing: it may be that
    # of a shorter run that is being continued.
    ended = distributed.from_first(lambda: any(line["event"] == "end" for line in read_log(log)))
    if ended and done >= config.train.epochs:
        return

    write(folder / "config.yaml", config.to_yaml().encode())
    distributed.from_first(lambda: _truncate_log(log, done))
    model = training.build_model(config.model, seed=config.train.seed).to(device)
    if snapshot is None:
        training.initialise(model, images, config)
        with watch("evaluate"):
            before = _scores(model, dataset, images, config, links)
        append(log, {"event": "start", **_about(device), "seconds": watch.seconds, "before": before})
    for epoch in training.fit(
        model, images, config, links=links, classes=classes, resume=snapshot, progress=progress
    ):
        append(log, {**_epoch_line(epoch), **_epoch_truth(epoch, classes, dataset, config)})
        write_labels(folder / "labels.csv", images.records, epoch.labels)
        if distributed.rank() == 0:
            save_snapshot(folder / "checkpoint.safetensors", epoch.snapshot())
        if on_epoch is not None:
            on_epoch(epoch)
    watch = Stopwatch(device)
    with watch("evaluate"):
        after = _scores(model, dataset, images, config, links, labels_to=folder / "labels.csv")
    save_model(folder / "model.safetensors", model, config.model)
    append(log, {"event": "end", "seconds": watch.seconds, "after": after})


@dataclass(frozen=True)
class Clustering:
    """Images clustered by a model."""

    records: Records
    """The images that could be read."""
    problems: tuple[Problem, ...]
    """Those that could not."""
    labels: Labels
    """(N,) the cluster of each; `OUTLIER` is none."""
    distance: sparse.csr_array
    """(N, N) the Jaccard distances that the clusters rest on."""
    links: Links
    """What they honour."""
    method: MethodConfig
    """How they were made."""


def cluster_images(
    model: Embedder,
    dataset: Dataset,
    config: Config,
    *,
    links: str | Path | None = None,
    progress: Progress | None = None,
) -> Clustering:
    """Clusters the training images of a data set by a model; identities are not read.

    Args:
        model: on the device to use.
        dataset: what `gracl.load_dataset` gives.
        config: data, method and train are read.
        links: a CSV of image pairs that must or cannot share a cluster, see `gracl.read_links`.
        progress: called with (stage, done, total).
    """
    _require_training_images(dataset)
    images = open_store(
        dataset.train.unlabelled(),
        size=model.size,
        on_bad=config.data.on_bad,
        progress=training.stage(progress, "decode"),
    )
    known = known_links(images.records, config.data, table=links, root=dataset.root)
    training.forecast_labels(len(images), model.dim, config).announce()
    features = extract(
        model,
        images,
        batch_size=config.train.extract_batch,
        progress=training.stage(progress, "extract"),
    )
    method = training.build_method(
        config.method, training.known_of(images.records, config, links=known)
    )
    labels, distance = method.label(features)
    return Clustering(images.records, images.problems, labels, distance, known, config.method)


def _require_training_images(dataset: Dataset) -> None:
    if not len(dataset.train):
        raise DataError(
            f"{dataset.name} has no training images, only query and gallery. Give a folder of images "
            "to learn from, or name one 'train'"
        )


def known_links(
    records: Records, settings: DataConfig, *, table: str | Path | None, root: Path
) -> Links:
    """Links from a file, if there is one, and those that the settings take from the records."""
    told = links_of(records, sequences=settings.link_sequences, boxes=settings.separate_boxes)
    read = Links() if table is None else read_links(table, records, root=root)
    links = Links(
        np.concatenate([told.must, read.must]),
        np.concatenate([told.cannot, read.cannot]),
        names=[str(record.path) for record in records],
    )
    must_groups(links, len(records))  # a contradiction is named now, not after the first epoch
    return links


# -- beginning and continuing ---------------------------------------------------------------------


def _open(
    folder: Path,
    config: Config,
    dataset: Dataset,
    images: ImageStore,
    links: Links,
    fingerprint: str,
) -> Snapshot | None:
    """Makes the folder of a new run, or checks that this one may be continued, and reads where."""
    about = {
        "name": dataset.name,
        "root": str(dataset.root),
        "layout": dataset.layout,
        "images": len(images),
        "left_out": [{"path": str(p.path), "reason": p.reason} for p in images.problems],
        "fingerprint": fingerprint,
        "links": hashlib.sha256(links.must.tobytes() + b"|" + links.cannot.tobytes()).hexdigest(),
    }
    if not begun(folder, config):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(f"cannot make {folder}: {error.strerror}. Give another --out") from error
        write(folder / "config.yaml", config.to_yaml().encode())
        write(folder / "data.json", json.dumps(about, indent=1).encode())
        return None

    known = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    if known["fingerprint"] != about["fingerprint"]:
        raise RunError(
            f"{folder} was begun with {known['images']} images of {known['root']}; now there are "
            f"{about['images']} of {about['root']}, and they are not the same. Give another --out "
            "to train on these"
        )
    if known.get("links", about["links"]) != about["links"]:  # runs of gracl 0.1 before links: none
        raise RunError(
            f"{folder} was begun with other links. Continue it with the file of --links that it began "
            "with, or give another --out"
        )
    return load_snapshot(folder / "checkpoint.safetensors")


def begun(folder: Path, config: Config) -> bool:
    """Whether a run of these settings was begun in a folder, and has learnt something.

    Raises:
        RunError: the folder holds something else.
        ConfigError: it holds a run of other settings.
    """
    if (folder / "checkpoint.safetensors").is_file():
        _require_same_settings(folder, Config.load(folder / "config.yaml"), config)
        return True
    # Nothing was learnt yet, so nothing ties the folder to its settings.
    if not _may_begin_in(folder):
        raise RunError(f"{folder} exists and is not a run. Give another --out, or an empty folder")
    return False


def _may_begin_in(folder: Path) -> bool:
    """Whether a folder is empty, or holds just what a run leaves that has learnt nothing yet.

    Other projects have a config.yaml too, so the name alone proves nothing.
    """
    if not folder.exists():
        return True
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir() if not path.name.endswith(".unfinished")}
    if not names:
        return True
    if "config.yaml" not in names or not names <= {"config.yaml", "data.json", "log.jsonl"}:
        return False
    try:
        Config.load(folder / "config.yaml")
        about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return names == {"config.yaml"}
    except (ConfigError, ValueError, OSError):
        return False
    return isinstance(about, dict) and "fingerprint" in about


def _require_same_settings(folder: Path, old: Config, new: Config) -> None:
    # A cosine ends at the last epoch, so another number of epochs is another rate at each step.
    fixed = {"train.epochs"} if old.train.schedule == "cosine" else set()
    changed = {
        name: values
        for name, values in differences(old, new).items()
        if name not in MAY_CHANGE - fixed and name.split(".")[0] not in MAY_CHANGE_SECTIONS
    }
    if changed:
        listed = ", ".join(f"{name} was {a}, is {b}" for name, (a, b) in changed.items())
        raise ConfigError(
            f"{folder} holds a run with other settings ({listed}). Continue it with its own, or give "
            "another --out"
        )


def _truncate_log(path: Path, epochs: int) -> None:
    """Drops what was logged after the checkpoint: these epochs are run again."""
    kept = [
        line
        for line in read_log(path)
        if (line["event"] == "epoch" and line["epoch"] <= epochs)
        or (line["event"] == "start" and epochs > 0)
    ]
    write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def _fingerprint(root: Path, images: ImageStore) -> str:
    """Tells other images from the same ones in another place, by names and by a sample of pixels."""
    digest = hashlib.sha256()
    for record in images.records:
        relative = record.path.relative_to(root) if record.path.is_relative_to(root) else record.path
        size = record.path.stat().st_size
        digest.update(f"{relative.as_posix()}\n{record.box}\n{record.camera}\n{size}\n".encode())
    rows = np.linspace(0, len(images) - 1, min(len(images), SAMPLED)).round().astype(np.int64)
    digest.update(images.images[torch.from_numpy(rows)].numpy().tobytes())
    return digest.hexdigest()


# -- lines of the log -----------------------------------------------------------------------------


def _epoch_line(epoch: Epoch) -> dict[str, Any]:
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


def _epoch_truth(
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


def _scores(
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


def _about(device: torch.device) -> dict[str, Any]:
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
