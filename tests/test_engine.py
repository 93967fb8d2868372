"""One epoch's steps, against the same steps written out for whole batches."""

from __future__ import annotations

import gc
from itertools import pairwise

import numpy as np
import psutil
import pytest
import torch
from torch import nn

import naive
from conftest import save_image
from gracl import training
from gracl.config import Config
from gracl.data.feed import Feed
from gracl.data.records import Record, Records
from gracl.data.store import ImageStore, open_store
from gracl.engine import Engine, Groups
from gracl.errors import NonFiniteLoss
from gracl.methods.gracl import GRACL
from gracl.methods.protocol import Batch
from gracl.models.batchnorm import group_borders

N, SIZE = 24, (32, 32)
PLAIN = {
    "model": {"backbone": "test_resnet", "size": SIZE, "pooling": "average"},
    "augment": {"flip": 0.0, "pad": 0, "erase": 0.0},
    "train": {"batchnorm_group": 4, "learning_rate": 1e-3, "channels_last": False, "steps": 5},
}
LABELS = np.repeat(np.arange(6), 4)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    records = [Record(save_image(folder / f"{i}.png", i, SIZE)) for i in range(N)]
    return open_store(Records(tuple(records)), size=SIZE, cache=folder / "cache")


def make(settings=PLAIN, *, seed=0):
    """A model, its engine and a method with a memory of it, all from the same seed."""
    config = Config().replace(settings)
    model = training.build_model(config.model, seed=seed)
    engine = Engine(model, config)
    # A memory that moves with each step, or half of what an engine does would not be seen.
    method = GRACL(update="criterion", inter_weight=0.5, intra_weight=0.5)
    draws = torch.Generator().manual_seed(seed)
    rows = nn.functional.normalize(torch.randn(2, 6, model.dim, generator=draws), dim=2)
    method.banks = {"inter": rows[0].clone(), "intra": rows[1].clone()}
    return model, engine, method, config


def make_batches(steps=5, size=12):
    random = np.random.default_rng(0)
    return [np.sort(random.choice(N, size, replace=False)) for _ in range(steps)]


def run(settings, store, batches, *, number=1, **changes):
    model, engine, method, _ = make({**settings, **changes})
    losses = engine.run_epoch(Feed(store, engine.device), batches, LABELS, method, number)
    return model, engine, method, losses


def test_groups_by_themselves_give_the_steps_of_whole_batches(store):
    """The twin holds all groups of a batch at once and takes one backward pass through all."""
    batches = make_batches()
    model, _, method, losses = run(PLAIN, store, batches)

    twin, _, memory, config = make()
    twin.train()
    weights = [p for p in twin.parameters() if p.requires_grad]
    adam = torch.optim.Adam(weights, lr=1e-3, weight_decay=config.train.weight_decay)
    seen = []
    for rows in batches:
        y = torch.from_numpy(LABELS[rows])
        parts = [rows[a:b] for a, b in pairwise(group_borders(len(rows), 4))]
        features = torch.cat([twin(store.images[torch.from_numpy(part)]) for part in parts])
        parts = memory.loss(Batch(features, y))
        adam.zero_grad()
        sum(parts.values()).backward()
        adam.step()
        memory.update(Batch(features.detach(), y))
        seen.append({name: value.item() for name, value in parts.items()})
    start = make()[0]
    for name, value in twin.named_parameters():
        found, before = model.get_parameter(name), start.get_parameter(name)
        # Adam divides by a gradient's size, so where that is near 0 its rounding is seen.
        assert (found - value).norm() <= 0.01 * (value - before).norm(), name
    for name, bank in memory.banks.items():
        torch.testing.assert_close(method.banks[name], bank, atol=1e-4, rtol=1e-3)
    for name in ("inter", "intra"):
        assert losses[name] == pytest.approx(np.mean([s[name] for s in seen]), rel=1e-4)
    assert losses["total"] == pytest.approx(losses["inter"] + losses["intra"])


def test_running_statistics_move_towards_the_mean_of_the_groups(store):
    (rows,) = make_batches(1)
    model, *_ = run(PLAIN, store, [rows])
    before, *_ = make()
    seen = []
    stem = before.backbone.conv1
    stem.register_forward_hook(lambda _m, _i, output: seen.append(output.detach()))
    before.train()
    for part in np.split(rows, 3):
        before(store.images[torch.from_numpy(part)])
    statistics = [maps.mean(dim=(0, 2, 3)) for maps in seen]
    expected = naive.running_after(torch.zeros(len(statistics[0])), statistics, 0.1)
    torch.testing.assert_close(model.backbone.bn1.running_mean, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("group", [4, 6, 12])
def test_without_batchnorm_the_size_of_a_group_is_of_no_consequence(store, group):
    def frozen(size):
        model, engine, method, _ = make({**PLAIN, "train": {**PLAIN["train"], "batchnorm_group": size}})
        for layer in model.modules():
            if isinstance(layer, nn.modules.batchnorm._BatchNorm):
                layer.train = lambda _mode=True, own=layer: own
                layer.training = False
        engine.run_epoch(Feed(store, engine.device), make_batches(3), LABELS, method, 1)
        return model.state_dict()

    for name, value in frozen(3).items():
        if "num_batches" not in name:
            torch.testing.assert_close(frozen(group)[name], value, atol=2e-5, rtol=1e-4, msg=name)


def test_what_is_random_follows_from_seed_epoch_and_step(store):
    settings = {**PLAIN, "augment": {"flip": 0.5, "pad": 3, "erase": 0.5, "color": 0.2}}
    batches = make_batches(2)

    def loss(number=1, seed=0, skip=0):
        changed = {**settings, "train": {**PLAIN["train"], "seed": seed, "learning_rate": 1e-8}}
        return run(changed, store, batches[skip:], number=number)[3]["total"]

    assert loss() == loss()
    assert len({loss(), loss(number=2), loss(seed=1)}) == 3
    assert not torch.equal(torch.rand(1), torch.zeros(1))


def test_dropout_does_not_read_or_move_the_global_generator(store):
    torch.manual_seed(3)
    before = torch.get_rng_state()
    run(PLAIN, store, make_batches(1))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_keeps_weights_and_losses_in_float32(store, precision):
    plain = run(PLAIN, store, make_batches())[3]
    train = {**PLAIN["train"], "precision": precision}
    model, engine, method, losses = run({**PLAIN, "train": train}, store, make_batches())
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {bank.dtype for bank in method.banks.values()} == {torch.float32}
    assert losses["total"] == pytest.approx(plain["total"], rel=0.05)
    assert losses["total"] != plain["total"]
    assert engine.optimizer.scaler.is_enabled() == (precision == "float16")


def test_in_float16_an_overflow_is_passed_over_and_the_scale_falls(store):
    model, engine, method, _ = make({**PLAIN, "train": {**PLAIN["train"], "precision": "float16"}})
    engine.optimizer.scaler._init_scale = 2.0**120
    before = [p.detach().clone() for p in model.parameters()]
    engine.run_epoch(Feed(store, engine.device), make_batches(1), LABELS, method, 1)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert engine.optimizer.scaler.get_scale() == 2.0**119


def test_a_gradient_that_is_not_finite_stops_before_the_step_and_lists_the_files(store, monkeypatch):
    model, engine, method, _ = make()
    original = GRACL.loss

    def broken(self, batch):
        # sqrt has a finite value and an infinite slope at 0
        losses, features = original(self, batch), batch.features
        return {**losses, "edge": (features - features.detach()).sum().sqrt()}

    monkeypatch.setattr(GRACL, "loss", broken)
    before = [p.detach().clone() for p in model.parameters()]
    batches = make_batches(1)
    with pytest.raises(
        NonFiniteLoss, match=r"epoch 3, step 1 \(inter .*edge 0, gradient (nan|inf)"
    ) as e:
        engine.run_epoch(Feed(store, engine.device), batches, LABELS, method, 3)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert sorted(e.value.files) == sorted(str(store.records[i].path) for i in batches[0])


def test_a_clipped_step_is_taken_by_a_gradient_of_that_length(store, monkeypatch):
    lengths = []
    original = torch.optim.Adam.step

    def watched(self, *arguments):
        gradients = [
            p.grad for group in self.param_groups for p in group["params"] if p.grad is not None
        ]
        lengths.append(float(torch.cat([g.flatten() for g in gradients]).norm()))
        return original(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    run(PLAIN, store, make_batches(2))
    free, lengths[:] = list(lengths), []
    run({**PLAIN, "train": {**PLAIN["train"], "clip": 0.01}}, store, make_batches(2))
    assert min(free) > 0.1
    np.testing.assert_allclose(lengths, 0.01, rtol=1e-3)


def test_the_teacher_follows_the_weights_step_by_step(store):
    momentum, batches = 0.7, make_batches(3)
    train = {**PLAIN["train"], "ema": momentum}
    _, engine, _, _ = run({**PLAIN, "train": train}, store, batches)
    model, twin_engine, method, _ = make()
    expected = {name: value.double() for name, value in model.state_dict().items()}
    for step in range(3):
        # Steps one at a time; without anything random an epoch of one step is that step.
        twin_engine.run_epoch(
            Feed(store, twin_engine.device), batches[step : step + 1], LABELS, method, 1
        )
        for name, value in model.state_dict().items():
            expected[name] = momentum * expected[name] + (1 - momentum) * value.double()
    assert engine.best is engine.teacher.model
    for name, value in engine.teacher.model.state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(value.double(), expected[name], atol=1e-5, rtol=1e-4, msg=name)
    assert not any(p.requires_grad for p in engine.teacher.model.parameters())


@pytest.mark.parametrize(
    "extra",
    [{}, {"ema": 0.9}, {"precision": "float16"}, {"schedule": "cosine", "warmup": 1.5}, {"clip": 0.1}],
)
def test_a_state_continues_to_the_same_digits(store, extra):
    settings = {**PLAIN, "train": {**PLAIN["train"], "epochs": 2, **extra}}
    model, engine, method, _ = make(settings)
    feed, batches = Feed(store, engine.device), make_batches()
    engine.run_epoch(feed, batches, LABELS, method, 1)
    state = engine.state()
    banks = {name: bank.clone() for name, bank in method.banks.items()}
    engine.run_epoch(feed, batches, LABELS, method, 2)

    other, continued, memory, _ = make(settings, seed=1)
    continued.load(state)
    memory.banks = banks
    continued.run_epoch(feed, batches, LABELS, memory, 2)
    for name, value in model.state_dict().items():
        assert torch.equal(other.state_dict()[name], value), name
    for name, value in engine.best.state_dict().items():
        assert torch.equal(continued.best.state_dict()[name], value), name


def test_groups_know_their_images_and_weights():
    groups = Groups(10, 4)
    assert [(groups[g].start, groups[g].stop) for g in groups.mine] == [(0, 5), (5, 10)]
    assert (groups.count, groups.kept, groups.ends) == (2, 10, [0, 10])
    assert sum(groups.weight(g) for g in groups.mine) == 1


@pytest.mark.slow
def test_a_compiled_network_learns_the_same(store):
    compiled = {**PLAIN, "train": {**PLAIN["train"], "compile": True}}
    models, losses = [], []
    for settings in (PLAIN, compiled):
        model, _, _, found = run(settings, store, make_batches(1))
        models.append(model)
        losses.append(found["total"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)
    start = make()[0]
    for name, value in models[0].named_parameters():
        found, before = models[1].get_parameter(name), start.get_parameter(name)
        assert (found - value).norm() <= 0.02 * (value - before).norm(), name


@pytest.mark.slow
def test_thousands_of_steps_do_not_grow(store):
    settings = {
        **PLAIN,
        "augment": {"flip": 0.5, "pad": 2, "erase": 0.5, "color": 0.2},
        "train": {**PLAIN["train"], "ema": 0.9, "learning_rate": 1e-5},
    }
    _, engine, method, _ = make(settings)
    small = ImageStore(store.records, store.images.clone())
    batches = make_batches(500, size=8)
    taken = []
    for number in range(1, 7):
        engine.run_epoch(Feed(small, engine.device), batches, LABELS, method, number)
        gc.collect()
        taken.append(psutil.Process().memory_info().rss)
    assert taken[-1] - taken[1] < 8 * 2**20, "3,000 steps; the first 1,000 fill torch's own caches"


def test_a_step_that_is_refused_leaves_running_statistics_as_they_were(store, monkeypatch):
    model, engine, method, _ = make()
    nan = float("nan")
    monkeypatch.setattr(GRACL, "loss", lambda _self, batch: {"inter": nan * batch.features.sum()})
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(NonFiniteLoss):
        engine.run_epoch(Feed(store, engine.device), make_batches(1), LABELS, method, 1)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_gradients_that_overflow_at_any_scale_stop_the_training(store, monkeypatch):
    """Lowered without end the scale would reach 0, and nothing would be learnt without a word."""
    _, engine, method, _ = make({**PLAIN, "train": {**PLAIN["train"], "precision": "float16"}})
    original = GRACL.loss

    def steep(self, batch):
        features = batch.features
        edge = (features - features.detach()).sum().sqrt()  # 0, with an infinite slope
        return {**original(self, batch), "edge": edge}

    monkeypatch.setattr(GRACL, "loss", steep)
    with pytest.raises(NonFiniteLoss, match="step 17 "):
        engine.run_epoch(Feed(store, engine.device), make_batches(20), LABELS, method, 1)


def test_a_method_is_told_the_share_of_the_rate_at_each_step(store, monkeypatch):
    """Half an epoch of warm-up, then a drop at its end: what the network's own steps are taken with."""
    told, taken = [], []
    adam = torch.optim.Adam.step

    def watched(self, *arguments):
        taken.append(self.param_groups[0]["lr"])
        return adam(self, *arguments)

    monkeypatch.setattr(torch.optim.Adam, "step", watched)
    monkeypatch.setattr(GRACL, "update", lambda _self, batch: told.append(batch.rate))
    rates = {**PLAIN["train"], "warmup": 0.5, "decay_every": 2, "schedule": "step"}
    for number in (1, 3):
        run(PLAIN, store, make_batches(), number=number, train=rates)
    assert told == pytest.approx([rate / 1e-3 for rate in taken])
    assert told[0] == pytest.approx(0.01)
    assert told[4:6] == pytest.approx([1.0, 0.1])
