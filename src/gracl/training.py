"""The training loop: a generator that yields once an epoch. What to do then is the caller's."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gracl import forecast, jaccard
from gracl.clustering import Health, Labels, health
from gracl.config import Config, MethodConfig, ModelConfig, TrainConfig
from gracl.data.augment import augment
from gracl.data.records import Records, codes
from gracl.data.sampler import ClusterSampler
from gracl.data.store import ImageStore, open_store
from gracl.errors import ConfigError, DataError, NonFiniteLoss
from gracl.extraction import extract
from gracl.forecast import Forecast
from gracl.links import Links
from gracl.methods import METHODS, Method
from gracl.models.batchnorm import calibrate, forward_in_groups
from gracl.models.embedder import Embedder, build_embedder

CALIBRATION_GROUPS = 16
"""BatchNorm groups that an untrained network's statistics are taken from."""

REMEDY = "Begin anew in another --out with a lower train.learning_rate or a higher method.temperature"

Progress = Callable[[str, int, int], None]
"""Called with (stage, done, total)."""


@dataclass(frozen=True)
class Snapshot:
    """All that continues a run exactly: every draw follows from the seed and the epoch's number."""

    epoch: int
    """Epochs that are done."""
    model: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    """State of each parameter, by "<number>.<name>"."""
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
    seconds: dict[str, float]
    """By stage: extract, label, train."""
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
        )


def build_method(
    config: MethodConfig, *, links: Links | None = None, memory: float = TrainConfig.memory
) -> Method:
    """The method of these settings.

    Args:
        config: which method, and its settings.
        links: pairs of rows that must, or cannot, share a cluster.
        memory: GiB that one block of similarities may take.
    """
    settings = dataclasses.asdict(config)
    method = METHODS[settings.pop("name")]
    return method(**settings, links=links, memory=int(memory * forecast.GIB))


def choose_device(name: str) -> torch.device:
    """ "auto" is the first GPU if there is one, else the CPU."""
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
    if threads:
        torch.set_num_threads(threads)


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
    calibrate(model, batches)


def fit(
    model: Embedder,
    images: Records | ImageStore,
    config: Config,
    *,
    links: Links | None = None,
    resume: Snapshot | None = None,
    progress: Progress | None = None,
) -> Iterator[Epoch]:
    """Trains a model in place and yields after every epoch.

    Args:
        model: trained in place, on the device that it lies on; in train mode after each epoch.
        images: what to learn from. Identities are not read, whether there are any or not.
        config: all settings; the loop reads data, method, sampler, augment and train. Device and
            threads are the caller's to choose (`choose_device`, `use_threads`).
        links: pairs of images, by their place in the store, that must or cannot share a cluster.
        resume: continue after this snapshot of a run with the same settings and images; the result
            is the same, bit for bit on a CPU, as that of a run that was never stopped.
        progress: called with (stage, done, total).

    Raises:
        ClusterCollapse: nothing to learn from at the start of an epoch.
        NonFiniteLoss: before the optimiser would have stepped on it.
        DataError: too few images, or a store of another size than the model's.
        LinkConflict: links that contradict each other.
        OutOfMemory: making the labels will not fit.
    """
    if isinstance(images, Records):
        images = open_store(images, size=model.size, on_bad=config.data.on_bad)
    if images.size != model.size:
        raise DataError(
            f"the image store holds {images.size} images and the model is for {model.size}. Open it "
            "with size=model.size"
        )
    require_enough(images, config)
    settings = config.train
    method = build_method(config.method, links=links, memory=settings.memory)
    forecast_labels(len(images), model.dim, config).announce()
    optimizer = torch.optim.Adam(
        [p for p in model.parameters() if p.requires_grad],
        lr=settings.learning_rate,
        weight_decay=settings.weight_decay,
    )
    if settings.channels_last:
        # Kept by every operation from here on; a batch takes the layout of the weights it meets.
        model.to(memory_format=torch.channels_last)
    (cameras,) = codes("camera", images.records)
    use_cameras = config.sampler.other_cameras and images.records.has("camera")
    previous: Labels | None = None
    first = 1
    if resume is None:
        initialise(model, images, config)
    else:
        _restore(model, optimizer, resume, len(images))
        previous, first = resume.labels, resume.epoch + 1

    for number in range(first, settings.epochs + 1):
        seconds: dict[str, float] = {}
        with _timed(seconds, "extract"):
            features = extract(
                model,
                images,
                batch_size=settings.extract_batch,
                progress=stage(progress, "extract"),
            )
        with _timed(seconds, "label"):
            labels = method.start_epoch(features)
        sampler = ClusterSampler(
            labels,
            clusters_per_batch=config.sampler.clusters_per_batch,
            images_per_cluster=config.sampler.images_per_cluster,
            steps=settings.steps,
            cameras=cameras if use_cameras else None,
            seed=(settings.seed, number),
        )
        rate = learning_rate(settings, number)
        for group in optimizer.param_groups:
            group["lr"] = rate
        with _timed(seconds, "train"):
            losses = _train_epoch(
                model, images, labels, sampler, method, optimizer, config, number, progress
            )
        yield Epoch(
            number=number,
            records=images.records,
            labels=labels,
            health=health(labels, previous),
            losses=losses,
            learning_rate=rate,
            seconds=seconds,
            snapshot=lambda n=number, y=labels: _snapshot(model, optimizer, n, y),  # type: ignore[misc]
        )
        previous = labels


def learning_rate(settings: TrainConfig, epoch: int) -> float:
    """The rate of an epoch, from 1: multiplied by `decay_factor` every `decay_every` epochs.

    >>> [f"{learning_rate(TrainConfig(), e):.1e}" for e in (1, 20, 21, 41)]
    ['3.5e-04', '3.5e-04', '3.5e-05', '3.5e-06']
    """
    drops = (epoch - 1) // settings.decay_every
    return settings.learning_rate * settings.decay_factor**drops


def _train_epoch(
    model: Embedder,
    images: ImageStore,
    labels: Labels,
    sampler: ClusterSampler,
    method: Method,
    optimizer: torch.optim.Optimizer,
    config: Config,
    number: int,
    progress: Progress | None,
) -> dict[str, float]:
    device = next(model.parameters()).device
    fill = [int(v) for v in model.mean.flatten().round().tolist()]
    draws = torch.Generator().manual_seed(_epoch_seed(config.train.seed, number))
    all_labels = torch.from_numpy(labels)
    totals: dict[str, float] = {}
    model.train()
    # Dropout and the like inside a backbone draw from torch's global generator.
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(_epoch_seed(config.train.seed, number))
        for step, indices in enumerate(sampler, 1):
            batch = images.images[torch.from_numpy(indices)].to(device)
            batch = augment(batch, draws, fill=fill, **dataclasses.asdict(config.augment))
            y = all_labels[indices].to(device)
            features = forward_in_groups(model, batch, config.train.batchnorm_group)
            losses = method.loss(features, y)
            loss = torch.stack(list(losses.values())).sum()
            if not torch.isfinite(loss):
                raise _non_finite(losses, number, step, images.records.take(indices.tolist()))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            method.update(features.detach(), y)
            for name, value in {**losses, "total": loss}.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach()) / len(sampler)
            if progress is not None:
                progress("train", step, len(sampler))
    if not all(bool(torch.isfinite(p).all()) for p in model.parameters()):
        raise NonFiniteLoss(
            f"weights became infinite or NaN in epoch {number}; the last checkpoint is good. {REMEDY}"
        )
    return totals


def _epoch_seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)


def _non_finite(losses: dict[str, Tensor], epoch: int, step: int, records: Records) -> NonFiniteLoss:
    values = ", ".join(f"{name} {float(value.detach()):g}" for name, value in losses.items())
    files = ", ".join(dict.fromkeys(record.path.name for record in records[:4]))
    return NonFiniteLoss(
        f"the loss is not finite at epoch {epoch}, step {step} ({values}), batch of {files}, ... The "
        f"weights are as before this step, and the last checkpoint is good. {REMEDY}"
    )


def _snapshot(
    model: Embedder, optimizer: torch.optim.Optimizer, epoch: int, labels: Labels
) -> Snapshot:
    state = optimizer.state_dict()["state"]
    return Snapshot(
        epoch=epoch,
        model={name: value.detach().cpu().clone() for name, value in model.state_dict().items()},
        optimizer={
            f"{number}.{name}": value.detach().cpu().clone()
            for number, values in state.items()
            for name, value in values.items()
        },
        labels=labels,
    )


def _restore(
    model: Embedder, optimizer: torch.optim.Optimizer, snapshot: Snapshot, n_images: int
) -> None:
    if len(snapshot.labels) != n_images:
        raise DataError(
            f"the checkpoint was made from {len(snapshot.labels)} images and there are {n_images} "
            "now. Continue with the images it began with, or start a new run in another folder"
        )
    model.load_state_dict(snapshot.model)
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in snapshot.optimizer.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": state, "param_groups": groups})


def stage(progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """The progress of one stage, called with (done, total)."""
    return None if progress is None else lambda done, total: progress(name, done, total)


@contextmanager
def _timed(seconds: dict[str, float], stage: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    seconds[stage] = time.perf_counter() - start
