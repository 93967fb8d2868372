"""The training loop: a generator that yields once an epoch. What to do then is the caller's."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gracl import distributed, forecast, jaccard
from gracl.clustering import Health, Labels, health
from gracl.config import Config, ModelConfig
from gracl.data.feed import Feed
from gracl.data.records import Records, codes
from gracl.data.sampler import ClusterSampler, Indices
from gracl.data.store import ImageStore, open_store
from gracl.engine import Engine
from gracl.errors import ConfigError, DataError
from gracl.extraction import extract
from gracl.forecast import Forecast
from gracl.links import Links
from gracl.method_settings import MethodConfig
from gracl.methods import METHODS
from gracl.methods.protocol import Known, Method, Need
from gracl.models.batchnorm import calibrate
from gracl.models.embedder import Embedder, build_embedder
from gracl.optimization import learning_rate
from gracl.stopwatch import Stopwatch, peak_memory

CALIBRATION_GROUPS = 16
"""BatchNorm groups that an untrained network's statistics are taken from."""

RESIDENT = {"auto": None, "device": True, "host": False}
"""Whether the store lies on the device, by the setting train.store."""

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True)
class Snapshot:
    """All that continues a run exactly: every draw follows from the seed and the epoch's number."""

    epoch: int
    """Epochs that are done."""
    state: dict[str, dict[str, Tensor]]
    """"model", "optimizer" and, where there is one, "teacher" (see `Engine.state`); "method"."""
    labels: Labels


@dataclass(frozen=True)
class Epoch:
    """What happened in one epoch."""

    number: int
    """From 1."""
    records: Records
    """The images trained on; those that could not be decoded are left out."""
    labels: Labels
    """(N,) pseudo labels of these records in this epoch."""
    health: Health
    losses: dict[str, float]
    """Means over the epoch's steps; "total" is what was minimised."""
    learning_rate: float
    """At the epoch's end."""
    seconds: dict[str, float]
    """By stage: extract, search, graph, cluster, proxies, train; no extract where a method remembers
    all images."""
    images_per_second: dict[str, float]
    """Of all processes together, in the stages extract and train."""
    peak_memory: dict[str, int]
    """Bytes, of this process since it began; see `stopwatch.peak_memory`."""
    model: Embedder
    """What is evaluated and kept: the teacher where there is one, else the model in training."""
    snapshot: Callable[[], Snapshot]
    """Takes the state as it stands now; call it before the next epoch."""

    @property
    def n_clusters(self) -> int:
        """Clusters trained on."""
        return self.health.n_clusters


def build_model(config: ModelConfig, *, seed: int = 0) -> Embedder:
    """The network of these settings; the same seed gives the same random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_embedder(
            config.backbone,
            size=config.size,
            weights=config.weights,
            pooling=config.pooling,
            last_stride=config.last_stride,
            parts=config.parts,
        )


def build_method(config: MethodConfig, known: Known | None = None) -> Method:
    """The method of these settings.

    Args:
        config: which method, and its settings.
        known: of the images it will be given, besides their features.
    """
    settings = dataclasses.asdict(config)
    name = settings.pop("name")
    return METHODS[name](known, **settings)


def known_of(
    images: Records, config: Config, *, links: Links | None = None, classes: Labels | None = None
) -> Known:
    """What a method is told of the images: their links, cameras if any is known, classes if given."""
    (cameras,) = codes("camera", images)
    return Known(
        links=links,
        cameras=cameras if images.has("camera") else None,
        classes=classes,
        memory=int(config.train.memory * forecast.GIB),
    )


def require_needs(needs: frozenset[Need], known: Known, config: Config) -> None:
    """Refuses a method that lacks what it cannot do without, and says what to set."""
    name = config.method.name
    missing: dict[Need, tuple[bool, str]] = {
        "cameras": (
            known.cameras is None,
            "the camera of each image, and none is known. Give a table with the column camera",
        ),
        "classes": (
            known.classes is None or not bool((known.classes >= 0).any()),
            "the true identity of the training images, and none is known. Give a table with the column "
            "identity, or take a method that learns without",
        ),
        "parts": (config.model.parts < 1, "features of parts. Set model.parts to 3"),
        "teacher": (not config.train.ema, "a teacher. Set train.ema to 0.999"),
    }
    for need, (is_missing, remedy) in missing.items():
        if need in needs and is_missing:
            kind = DataError if need in ("cameras", "classes") else ConfigError
            raise kind(f"the method {name} needs {remedy}")


def choose_device(name: str) -> torch.device:
    """ "auto" is the first GPU if there is one, else the CPU; under torchrun each process's own GPU."""
    if distributed.launched() and torch.cuda.is_available() and name in ("auto", "cuda"):
        number, count = distributed.local_rank(), torch.cuda.device_count()
        if number >= count:
            raise ConfigError(
                f"process {number} of this machine has no GPU: there are {count}. Start torchrun with "
                f"--nproc-per-node {count}"
            )
        torch.cuda.set_device(number)
        return torch.device("cuda", number)
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(
            f"train.device is '{name}', which cannot be used: {str(error).splitlines()[0]}. Set it "
            "to auto or cpu"
        ) from error
    return device


def use_threads(threads: int) -> None:
    """CPU threads from here on; 0 leaves the number as it is."""
    if threads < 0:
        raise ConfigError(f"threads is {threads}; expected 0 for all cores, or how many")
    if threads:
        torch.set_num_threads(threads)


def use_deterministic(deterministic: bool) -> None:
    """Algorithms that give the same digits in every run, from here on; False leaves what is chosen.

    Call it before anything is computed on a GPU: cuBLAS reads its setting once.
    """
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        # Filling what is about to be written costs time and helps only who looks for mistakes.
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(True)


def require_enough(images: ImageStore, config: Config) -> None:
    """Refuses fewer images than two clusters are made of."""
    least = 2 * max(2, config.method.min_samples)
    if len(images) < least:
        raise DataError(
            f"{len(images)} images are too few: two clusters of method.min_samples "
            f"({config.method.min_samples}) need at least {least}. Give more images"
        )


def forecast_labels(n: int, dimensions: int, config: Config) -> Forecast:
    """What an epoch's labels of so many images will need, its features among it."""
    method = config.method
    return jaccard.forecast_distance(
        n,
        dimensions,
        k=max(method.k1, method.k2),
        memory=int(config.train.memory * forecast.GIB),
        remedy="Lower train.memory or method.k1, or train on fewer images",
    )


def _forecast_epoch(n: int, model: Embedder, method: Method, config: Config) -> Forecast:
    """The same, with what the method itself needs of memory while the graph may still be there."""
    labels = forecast_labels(n, model.dim, config)
    parts, group = len(model.part_necks), config.train.batchnorm_group
    own = method.needed_memory(n, model.dim, parts=parts, group=group)
    return dataclasses.replace(labels, memory=labels.memory + own)


def initialise(model: Embedder, images: ImageStore, config: Config) -> None:
    """Gives a network of random weights running statistics of the data.

    One with weights of its own, and one that has seen a batch before, stays as it is.
    """
    seen = any(v > 0 for k, v in model.state_dict().items() if k.endswith("num_batches_tracked"))
    if config.model.weights != "none" or seen:
        return
    group = min(config.train.batchnorm_group, len(images))
    draws = np.random.default_rng([config.train.seed, 0])
    device = next(model.parameters()).device
    batches = [
        images.images[np.sort(draws.choice(len(images), group, replace=False))].to(device)
        for _ in range(CALIBRATION_GROUPS)
    ]
    calibrate(model, batches, parts=config.model.parts > 0)


def fit(
    model: Embedder,
    images: Records | ImageStore,
    config: Config,
    *,
    links: Links | None = None,
    classes: Labels | None = None,
    resume: Snapshot | None = None,
    progress: Progress | None = None,
) -> Iterator[Epoch]:
    """Trains a model in place and yields after every epoch.

    Processes of one group (see `gracl.distributed`) each run this loop, and train one model together.

    Args:
        model: trained in place, on the device that it lies on; in train mode after each epoch. With
            `train.ema` it becomes the teacher in the end.
        images: what to learn from. Identities are not read, whether there are any or not.
        config: all settings; the loop reads data, method, sampler, augment and train. Device and
            threads are the caller's to choose, and whether a GPU is to be deterministic
            (`choose_device`, `use_threads`, `use_deterministic`).
        links: pairs of images, by their place in the store, that must or cannot share a cluster.
        classes: (N,) true identities as numbers from 0, -1 unknown, for a method that needs them: the
            supervised upper bound. No other method is given them.
        resume: continue after this snapshot of a run with the same settings and images; the result
            is the same, bit for bit on a CPU, as that of a run that was never stopped.
        progress: called with (stage, done, total).

    Raises:
        ClusterCollapse: nothing to learn from at the start of an epoch.
        NonFiniteLoss: before the optimiser would have stepped on it.
        DataError: too few images, or a store of another size than the model's.
        LinkConflict: links that contradict each other.
        OutOfMemory: making the labels will not fit.
        OutOfStep: processes that train together hold different weights.
    """
    images = _store_for(model, images, config)
    require_enough(images, config)
    method = _begin_method(images.records, config, links=links, classes=classes)
    _forecast_epoch(len(images), model, method, config).announce()
    done, previous = 0, None
    if resume is None:
        initialise(model, images, config)
    else:
        _require_same_length(resume, images)
        done, previous = resume.epoch, resume.labels
    engine = Engine(model, config)
    if resume is not None:
        engine.load(resume.state)
        method.load(resume.state.get("method", {}))
    feed = Feed(images, engine.device, resident=RESIDENT[config.train.store])
    for number in range(done + 1, config.train.epochs + 1):
        epoch = _run_epoch(number, engine, feed, method, config, previous=previous, progress=progress)
        yield epoch
        previous = epoch.labels
    if engine.best is not model:
        model.load_state_dict(engine.best.state_dict())


def _store_for(model: Embedder, images: Records | ImageStore, config: Config) -> ImageStore:
    """Images at the model's size."""
    if isinstance(images, Records):
        images = open_store(images, size=model.size, on_bad=config.data.on_bad)
    if images.size != model.size:
        raise DataError(
            f"the image store holds {images.size} images and the model is for {model.size}. Open it "
            "with size=model.size"
        )
    return images


def _begin_method(
    images: Records, config: Config, *, links: Links | None, classes: Labels | None
) -> Method:
    """The method, told no more than it needs; refused where it lacks something."""
    needs = METHODS[config.method.name].needs
    known = known_of(images, config, links=links, classes=classes if "classes" in needs else None)
    require_needs(needs, known, config)
    return build_method(config.method, known)


def _run_epoch(
    number: int,
    engine: Engine,
    feed: Feed,
    method: Method,
    config: Config,
    *,
    previous: Labels | None,
    progress: Progress | None,
) -> Epoch:
    """Labels all images, takes the epoch's steps, and says what happened."""
    records, watch = feed.store.records, Stopwatch(engine.device)
    with distributed.together():
        labels = _label(engine.best, feed, method, config, watch, progress)
        batches = draw_batches(labels, records, config, number)
        with watch("train"):
            losses = engine.run_epoch(
                feed, batches, labels, method, number, progress=stage(progress, "train")
            )
        learnt = [*engine.model.state_dict().values(), *method.banks.values()]
        distributed.require_same("weights and memory", learnt)
    images_in = {"extract": len(records), "train": sum(map(len, batches))}
    spent = {name: seconds for name, seconds in watch.seconds.items() if name in images_in}
    return Epoch(
        number=number,
        records=records,
        labels=labels,
        health=health(labels, previous),
        losses=losses,
        learning_rate=learning_rate(config.train, number - 1 / config.train.steps),
        seconds=watch.seconds,
        images_per_second={name: images_in[name] / seconds for name, seconds in spent.items()},
        peak_memory=peak_memory(engine.device),
        model=engine.best,
        snapshot=lambda: Snapshot(number, {**engine.state(), "method": method.state()}, labels),
    )


def _label(
    model: Embedder,
    feed: Feed,
    method: Method,
    config: Config,
    watch: Stopwatch,
    progress: Progress | None,
) -> Labels:
    """(N,) labels that the method finds in the features of all images, which are then let go."""
    remembered = method.remembered()
    if remembered is not None:
        return method.start_epoch(remembered.to(next(model.parameters()).device), watch)
    parts = "parts" in method.needs
    with watch("extract"):
        features = extract(
            model,
            feed,
            batch_size=config.train.extract_batch,
            precision=config.train.precision,
            parts=parts,
            progress=stage(progress, "extract"),
        )
    if parts:
        return method.start_epoch(features[:, 0], watch, parts=features[:, 1:])
    return method.start_epoch(features, watch)


def draw_batches(labels: Labels, records: Records, config: Config, number: int) -> list[Indices]:
    """Places of the images of each batch of an epoch; the same in every process."""
    (cameras,) = codes("camera", records)
    use_cameras = config.sampler.other_cameras and records.has("camera")
    sampler = ClusterSampler(
        labels,
        clusters_per_batch=config.sampler.clusters_per_batch,
        images_per_cluster=config.sampler.images_per_cluster,
        steps=config.train.steps,
        cameras=cameras if use_cameras else None,
        seed=(config.train.seed, number),
    )
    return list(sampler)


def _require_same_length(resume: Snapshot, images: ImageStore) -> None:
    if len(resume.labels) != len(images):
        raise DataError(
            f"the checkpoint was made from {len(resume.labels)} images and there are {len(images)} "
            "now. Continue with the images it began with, or start a new run in another folder"
        )


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """The progress of one stage, called with (done, total)."""
    return None if progress is None else lambda done, total: progress(name, done, total)
