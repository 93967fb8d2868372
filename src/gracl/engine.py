"""The steps of an epoch. A batch is taken BatchNorm group by BatchNorm group, whoever takes which.

A group goes forwards and backwards by itself, so a batch of any size needs the memory of one group, and
what is random in it follows from the run's seed, the epoch, the step and its number. Gradients, losses
and statistics of the groups are then added up in one order (`distributed.add_in_halves`). So one device
and two, four or eight of its kind do the same sums, to the digit.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gracl import distributed
from gracl.clustering import Labels
from gracl.config import Config
from gracl.data.augment import augment
from gracl.data.feed import Feed
from gracl.data.records import Records
from gracl.data.sampler import Indices
from gracl.errors import NonFiniteLoss
from gracl.methods.protocol import Batch, Method
from gracl.models.batchnorm import RunningStatistics, group_borders
from gracl.models.embedder import Embedder
from gracl.optimization import Optimizer, Teacher, share_of_height
from gracl.precision import choose_precision

REMEDY = "Begin anew in another --out with a lower train.learning_rate or a higher method.temperature"


class Engine:
    """A model, and what moves its weights.

    Args:
        model: trained in place, on the device that it lies on.
        config: train and augment are read.
    """

    def __init__(self, model: Embedder, config: Config) -> None:
        self.model = model
        self.settings = config.train
        self.changes = dataclasses.asdict(config.augment)
        self.fill = [int(v) for v in model.mean.flatten().round().tolist()]
        self.device = next(model.parameters()).device
        self.precision = choose_precision(config.train.precision, self.device)
        if config.train.channels_last:
            # Kept by every operation from here on; a batch takes the layout of the weights it meets.
            model.to(memory_format=torch.channels_last)
        self.optimizer = Optimizer(model, config.train, self.precision)
        self.statistics = RunningStatistics(model)
        self.teacher = Teacher(model, config.train.ema) if config.train.ema else None
        if self.teacher is not None:
            self.teacher.model.eval()
        if config.train.compile:
            model.compile()

    @property
    def best(self) -> Embedder:
        """The teacher where there is one, else the model."""
        return self.model if self.teacher is None else self.teacher.model

    def run_epoch(
        self,
        feed: Feed,
        batches: Sequence[Indices],
        labels: Labels,
        method: Method,
        number: int,
        *,
        progress: Callable[[int, int], None] | None = None,
    ) -> dict[str, float]:
        """Takes a step on each batch.

        Args:
            feed: the images.
            batches: rows of the feed, all of one length.
            labels: (N,) cluster of each row.
            method: gives the losses; its memory moves with each step.
            number: the epoch's, from 1.
            progress: called with (done, total).

        Returns:
            Means of the losses over the batches; "total" is what was minimised.

        Raises:
            NonFiniteLoss: before the weights would have moved by it.
        """
        groups = Groups(len(batches[0]), self.settings.batchnorm_group)
        all_labels = torch.from_numpy(labels).to(self.device)
        rows = torch.from_numpy(np.stack(batches))
        images = feed.batches(batch[groups[g]] for batch in rows for g in groups.mine)
        on_device = rows.to(self.device)
        totals: dict[str, float] = {}
        self.model.train()
        # Dropout and the like inside a backbone draw from torch's global generators.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            for step, batch in enumerate(batches):
                losses = self._step(
                    images,
                    all_labels[on_device[step]],
                    on_device[step],
                    groups,
                    method,
                    seed=(self.settings.seed, number, step),
                    done=number - 1 + step / len(batches),
                    records=feed.store.records.take(batch.tolist()),
                )
                for name, value in losses.items():
                    totals[name] = totals.get(name, 0.0) + value / len(batches)
                if progress is not None:
                    progress(step + 1, len(batches))
        if not all(bool(torch.isfinite(p).all()) for p in self.model.parameters()):
            raise NonFiniteLoss(
                f"weights became infinite or NaN in epoch {number}; the last checkpoint is good. "
                f"{REMEDY}"
            )
        return totals

    def _step(
        self,
        images: Iterator[Tensor],
        labels: Tensor,
        rows: Tensor,
        groups: Groups,
        method: Method,
        *,
        seed: tuple[int, int, int],
        done: float,
        records: Records,
    ) -> dict[str, float]:
        """One batch: forwards, backwards, a step of the optimiser, a move of the memory."""
        outputs: list[Tensor] = []
        names: list[str] = []

        def take_group(number: int) -> list[Tensor]:
            """One group's part of all that is added up."""
            part, pixels = groups[number], next(images)
            output = self._forward(pixels, method, seed=(*seed, number))
            batch = _batch(output, labels[part], rows[part])
            if "teacher" in method.needs:
                seen = self._by_teacher(pixels, seed=(*seed, number))
                batch = dataclasses.replace(batch, teacher=seen)
            losses = {k: groups.weight(number) * v for k, v in method.loss(batch).items()}
            with self.precision.backward():
                gradients = self.optimizer.backward(torch.stack(list(losses.values())).sum())
            outputs.append(output.detach())
            names[:] = losses
            values = torch.stack(list(losses.values())).detach().float()
            return [*gradients, *self.statistics.moved(), values]

        self.statistics.begin_batch()
        sums = distributed.add_in_halves(groups.first, groups.last, take_group)
        if not groups.counts:
            torch._foreach_mul_(sums, 0.0)
        distributed.add_up(sums)
        moved = len(self.statistics.values)
        gradients, statistics, values = sums[: -moved - 1], sums[-moved - 1 : -1], sums[-1]
        norm = self.optimizer.take(gradients)
        # The one moment of a step at which the host waits for the device.
        *numbers, length = torch.cat([values, norm[None]]).tolist()
        losses = dict(zip(names, numbers, strict=True))
        overflows = not math.isfinite(length) and not self.optimizer.may_pass_over
        if overflows or not all(map(math.isfinite, numbers)):
            self.statistics.undo_batch()
            raise _non_finite(losses, length, seed, records)
        self.statistics.end_batch(statistics, groups.count)
        self.optimizer.step(done, norm)
        own = torch.cat(outputs)[: groups.kept]
        whole = _batch(distributed.gather(own, groups.ends), labels, rows)
        method.update(dataclasses.replace(whole, rate=share_of_height(self.settings, done)))
        if self.teacher is not None:
            self.teacher.follow()
        return {**losses, "total": sum(numbers)}

    def _forward(self, images: Tensor, method: Method, *, seed: tuple[int, ...]) -> Tensor:
        """A group's features, its images changed at random; (B, 1 + P, D) where there are parts."""
        drawn = _number_from(seed)
        images = augment(images, torch.Generator().manual_seed(drawn), fill=self.fill, **self.changes)
        torch.manual_seed(drawn)
        self.statistics.begin_group()
        with self.precision.forward():
            found: Tensor = self.model(images, parts="parts" in method.needs)
        return found

    @torch.no_grad()
    def _by_teacher(self, images: Tensor, *, seed: tuple[int, ...]) -> Tensor:
        """(B, D) of the same images, changed in another way, mildly: neither erased nor recoloured."""
        assert self.teacher is not None
        draws = torch.Generator().manual_seed(_number_from((*seed, 1)))
        mild = {**self.changes, "erase": 0.0, "color": 0.0}
        with self.precision.forward():
            found: Tensor = self.teacher.model(augment(images, draws, fill=self.fill, **mild))
        return found.float()

    # -- what continues it ------------------------------------------------------------------------

    def state(self) -> dict[str, dict[str, Tensor]]:
        """Copies, on the CPU, of "model", "optimizer" and, where there is one, "teacher"."""
        found = {"model": _copy_of(self.model), "optimizer": self.optimizer.state()}
        if self.teacher is not None:
            found["teacher"] = _copy_of(self.teacher.model)
        return found

    def load(self, state: dict[str, dict[str, Tensor]]) -> None:
        """Continues from a `state`."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load(state["optimizer"])
        if self.teacher is not None:
            self.teacher.model.load_state_dict(state["teacher"])


class Groups:
    """The BatchNorm groups of each batch, and which of them this process takes: `first` to `last` - 1.

    Where there are fewer groups than processes, one that would have none goes through the last group
    too, and does not count: so all of them do the same operations.
    """

    def __init__(self, batch: int, group: int) -> None:
        self.borders = group_borders(batch, group)
        self.batch = batch
        self.ends = distributed.split(self.borders)
        """Where each process's images begin, and the size of the batch."""
        start, end = (self.ends[distributed.rank() + i] for i in (0, 1))
        self.kept = end - start
        """Images of this process."""
        self.counts = self.kept > 0
        self.count = len(self.borders) - 1
        """Groups of a batch."""
        last = self.borders.index(end) if self.counts else self.count
        self.first = self.borders.index(start) if self.counts else last - 1
        self.last = last

    @property
    def mine(self) -> range:
        """Numbers of the groups that this process goes through."""
        return range(self.first, self.last)

    def __getitem__(self, number: int) -> slice:
        return slice(self.borders[number], self.borders[number + 1])

    def weight(self, number: int) -> float:
        """A group's part of its batch, in images."""
        return (self.borders[number + 1] - self.borders[number]) / self.batch


def _number_from(seed: tuple[int, ...]) -> int:
    return int(np.random.SeedSequence(seed).generate_state(1, np.uint64)[0] >> 1)


def _batch(output: Tensor, labels: Tensor, rows: Tensor) -> Batch:
    """What the network gave, taken apart: (B, D) features, or (B, 1 + P, D) with those of parts."""
    if output.dim() == 2:
        return Batch(output, labels, rows)
    return Batch(output[:, 0], labels, rows, parts=output[:, 1:])


def _copy_of(model: Embedder) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}


def _non_finite(
    losses: dict[str, float], norm: float, seed: tuple[int, int, int], records: Records
) -> NonFiniteLoss:
    values = ", ".join(f"{name} {value:g}" for name, value in losses.items())
    files = list(dict.fromkeys(str(record.path) for record in records))
    few = ", ".join(dict.fromkeys(record.path.name for record in records[:4]))
    _, epoch, step = seed
    error = NonFiniteLoss(
        f"the loss or its gradient is not finite at epoch {epoch}, step {step + 1} ({values}, gradient "
        f"{norm:g}), batch of {few}, ... The weights are as before this step, and the last checkpoint "
        f"is good. {REMEDY}"
    )
    error.files = files
    return error
