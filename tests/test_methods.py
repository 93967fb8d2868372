"""What holds for every method of the family: the protocol, and that it learns from a low start."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gracl.data.sampler import ClusterSampler
from gracl.method_settings import SETTINGS
from gracl.methods import METHODS
from gracl.methods.protocol import Batch, Known

N_CLASSES, PER_CLASS, TOLD, DRONE = 20, 12, 8, 24
"""What tells classes apart lies in a few dimensions, under a drone that is louder in many others."""
PARTS, DIM = 3, 16


class World:
    """Inputs of drawn classes, and a linear network with a head for the whole and for each part."""

    def __init__(self, seed: int) -> None:
        self.draws = torch.Generator().manual_seed(seed)
        classes = torch.arange(N_CLASSES).repeat_interleave(PER_CLASS)
        self.classes = classes[torch.randperm(len(classes), generator=self.draws)]
        centres = self.normal(N_CLASSES, TOLD)
        told = centres[self.classes] + 0.2 * self.normal(len(classes), TOLD)
        self.inputs = torch.cat([told, 0.5 * self.normal(len(classes), DRONE)], dim=1)
        self.network = nn.Linear(TOLD + DRONE, (1 + PARTS) * DIM, bias=False)
        with torch.no_grad():
            self.network.weight.copy_(self.normal(*self.network.weight.shape))

    def normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self.draws)

    @torch.no_grad()
    def score(self) -> float:
        """Mean average precision; every image searches all others."""
        features = features_of(self.network, self.inputs)[:, 0]
        similarity = (features @ features.T).fill_diagonal_(-2)
        hits = self.classes[torch.argsort(-similarity)[:, :-1]] == self.classes[:, None]
        precision = hits.cumsum(1) / torch.arange(1, hits.shape[1] + 1)
        return float((precision * hits).sum(1).div(hits.sum(1)).mean())

    def known(self) -> Known:
        cameras = np.arange(len(self.inputs)) % 3
        return Known(cameras=cameras, classes=self.classes.numpy())


def features_of(network: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
    """(B, 1 + P, D) unit rows."""
    return F.normalize(network(inputs).unflatten(1, (1 + PARTS, DIM)), dim=2)


def make(name: str, known: Known | None = None, **settings):
    chosen = {"k1": 12, "k2": 4, "eps": 0.6, "min_samples": 3, **settings}
    return METHODS[name](known, **chosen)


def train(name: str, world: World, *, epochs: int = 8, steps: int = 30, **settings):
    """The loop of `gracl.fit`, as short as it can be; yields the method after each epoch."""
    method = make(name, world.known(), **settings)
    network, teacher = world.network, copy.deepcopy(world.network)
    adam = torch.optim.Adam(network.parameters(), lr=0.02)
    for epoch in range(epochs):
        with torch.no_grad():
            features = features_of(network, world.inputs)
        parts = features[:, 1:] if "parts" in method.needs else None
        labels = method.start_epoch(features[:, 0], parts=parts)
        sampler = ClusterSampler(
            labels, clusters_per_batch=8, images_per_cluster=4, steps=steps, seed=(epoch,)
        )
        for chosen in sampler:
            rows = torch.from_numpy(chosen)
            inputs = world.inputs[rows] + 0.2 * world.normal(len(rows), TOLD + DRONE)
            found = features_of(network, inputs)
            with torch.no_grad():
                seen = features_of(teacher, world.inputs[rows])[:, 0]
            y = torch.from_numpy(labels[chosen])
            batch = Batch(found[:, 0], y, rows, parts=found[:, 1:], teacher=seen)
            losses = method.loss(batch)
            adam.zero_grad()
            torch.stack(list(losses.values())).sum().backward()
            adam.step()
            method.update(batch.detach())
            with torch.no_grad():
                teacher.weight.lerp_(network.weight, 0.1)
        yield method


@pytest.mark.parametrize("name", METHODS)
def test_method_learns_from_a_low_start(name: str) -> None:
    scores = []
    for seed in (0, 1, 2):
        world = World(seed)
        before = world.score()
        for _ in train(name, world):
            pass
        scores.append((before, world.score()))
    before, after = np.mean(scores, axis=0)
    assert before < 0.45
    assert after > before + 0.1


@pytest.mark.parametrize("name", METHODS)
def test_training_is_the_same_each_time(name: str) -> None:
    weights = []
    for _ in range(2):
        world = World(3)
        for _ in train(name, world, epochs=2, steps=5):
            pass
        weights.append(world.network.weight.detach())
    assert torch.equal(*weights)


@pytest.mark.parametrize("name", METHODS)
def test_memory_moves_in_update_and_nowhere_else(name: str) -> None:
    world = World(0)
    # ICE's rows stay for the epoch, unless it is told otherwise.
    method = make(name, world.known(), **({"momentum": 0.5} if name == "ice" else {}))
    with torch.no_grad():
        features = features_of(world.network, world.inputs)
    labels = torch.from_numpy(method.start_epoch(features[:, 0], parts=features[:, 1:]))
    rows = torch.nonzero(labels >= 0).flatten()[:16]
    batch = Batch(
        features[rows, 0], labels[rows], rows, parts=features[rows, 1:], teacher=features[rows, 0]
    )
    before = {key: bank.clone() for key, bank in method.banks.items()}
    assert before
    losses = method.loss(batch)
    assert all(loss.shape == () for loss in losses.values())
    assert all(torch.equal(method.banks[key], bank) for key, bank in before.items())
    nearby = F.normalize(batch.features + 0.3 * world.normal(*batch.features.shape))
    method.update(Batch(nearby, batch.labels, rows, parts=batch.parts))
    assert not all(torch.equal(method.banks[key], bank) for key, bank in before.items())
    assert all(bank.isfinite().all() and not bank.requires_grad for bank in method.banks.values())


@pytest.mark.parametrize("name", METHODS)
def test_a_method_that_begins_again_from_its_state_goes_on_the_same(name: str) -> None:
    """What `state` leaves out must follow from the features alone."""
    through, stopped = World(1), World(1)
    first, second = (next(train(name, world, steps=8)) for world in (through, stopped))
    fresh = make(name, stopped.known())
    fresh.load({key: value.clone() for key, value in second.state().items()})
    with torch.no_grad():
        features = features_of(through.network, through.inputs)
    y = first.start_epoch(features[:, 0], parts=features[:, 1:])
    assert np.array_equal(y, fresh.start_epoch(features[:, 0], parts=features[:, 1:]))
    assert first.banks.keys() == fresh.banks.keys()
    for key, bank in first.banks.items():
        assert torch.equal(bank, fresh.banks[key])


@pytest.mark.parametrize("name", METHODS)
def test_only_the_upper_bound_may_see_classes(name: str) -> None:
    assert ("classes" in METHODS[name].needs) == (name == "supervised")
    assert SETTINGS[name]().name == name
