import math

import numpy as np
import pytest
import torch
from torch import nn

from gracl.config import TrainConfig
from gracl.errors import ConfigError
from gracl.optimization import Optimizer, Teacher, learning_rate
from gracl.precision import Precision, choose_precision

CPU = torch.device("cpu")
FLOAT32 = Precision("float32", CPU)


def rates(n=400, **settings):
    """The rate at many moments of 20 epochs."""
    config = TrainConfig(epochs=20, learning_rate=0.1, **settings)
    moments = np.linspace(0, 20, n, endpoint=False)
    return moments, np.array([learning_rate(config, done) for done in moments])


def test_steps_fall_where_they_should():
    moments, found = rates(decay_every=5, decay_factor=0.5)
    np.testing.assert_allclose(found, 0.1 * 0.5 ** np.floor(moments / 5))


def test_constant_is_constant():
    assert set(rates(schedule="constant", decay_every=2)[1]) == {0.1}


@pytest.mark.parametrize("warmup", [0.0, 3.0])
def test_cosine_falls_from_the_warmup_to_nothing(warmup):
    moments, found = rates(schedule="cosine", warmup=warmup)
    after = moments >= warmup
    expected = 0.05 * (1 + np.cos(np.pi * (moments[after] - warmup) / (20 - warmup)))
    np.testing.assert_allclose(found[after], expected)
    assert learning_rate(TrainConfig(epochs=20, schedule="cosine"), 20) == 0


@pytest.mark.parametrize("schedule", ["step", "cosine", "constant"])
def test_warmup_rises_in_a_straight_line_from_a_hundredth(schedule):
    moments, found = rates(schedule=schedule, warmup=4.0, decay_every=10)
    first = moments < 4
    np.testing.assert_allclose(found[first], 0.1 * (0.01 + 0.99 * moments[first] / 4))
    assert found.max() == pytest.approx(0.1, rel=0.02)


def test_a_warmup_longer_than_the_training_never_ends():
    config = TrainConfig(epochs=2, warmup=5.0, schedule="cosine", learning_rate=0.1)
    assert learning_rate(config, 2) == pytest.approx(0.1 * (0.01 + 0.99 * 2 / 5))


@pytest.mark.parametrize(
    ("settings", "twin"),
    [
        ({}, lambda w: torch.optim.Adam(w, lr=0.01, weight_decay=0.1)),
        ({"optimizer": "adamw"}, lambda w: torch.optim.AdamW(w, lr=0.01, weight_decay=0.1)),
    ],
)
def test_steps_are_those_of_torch(settings, twin):
    torch.manual_seed(0)
    model, other = nn.Linear(4, 3), nn.Linear(4, 3)
    other.load_state_dict(model.state_dict())
    config = TrainConfig(learning_rate=0.01, weight_decay=0.1, schedule="constant", **settings)
    ours, theirs = Optimizer(model, config, FLOAT32), twin(other.parameters())
    for _ in range(5):
        batch = torch.randn(8, 4)
        gradients = ours.backward(model(batch).square().sum())
        length = ours.take(gradients)
        ours.step(0.0, length)
        theirs.zero_grad()
        other(batch).square().sum().backward()
        expected = math.sqrt(sum(float(p.grad.square().sum()) for p in other.parameters()))
        theirs.step()
        assert float(length) == pytest.approx(expected, rel=1e-5)
    for found, expected in zip(model.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_weights_without_gradient_stay():
    model = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    model[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    ours = Optimizer(model, TrainConfig(learning_rate=0.1, weight_decay=0.1), FLOAT32)
    length = ours.take(ours.backward(model[0](torch.ones(1, 2)).sum()))
    ours.step(0.0, length)
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, before[name])]
    assert moved == ["0.weight"]


def test_in_float16_gradients_are_scaled_and_told_true_to_scale():
    model = nn.Linear(3, 1)
    ours = Optimizer(model, TrainConfig(), Precision("float16", CPU))
    gradients = ours.backward(model(torch.ones(1, 3)).sum())
    assert gradients[0].tolist() == [[2.0**16] * 3]
    assert float(ours.take(gradients)) == pytest.approx(2.0)


def test_a_teacher_starts_as_the_model_and_is_moved_with_its_statistics():
    model = nn.BatchNorm1d(2)
    teacher = Teacher(model, 0.75)
    model.weight.data.fill_(5.0)
    model.running_mean.fill_(4.0)
    teacher.follow()
    assert teacher.model.weight.tolist() == [2.0, 2.0]
    assert teacher.model.running_mean.tolist() == [1.0, 1.0]
    assert model.weight.tolist() == [5.0, 5.0]


# -- precision ------------------------------------------------------------------------------------


def test_auto_is_float32_on_a_cpu():
    assert choose_precision("auto", CPU) == FLOAT32


def test_tf32_is_refused_where_there_is_none():
    with pytest.raises(ConfigError, match=r"tf32, which cpu does not have.*auto or float32"):
        choose_precision("tf32", CPU)


@pytest.mark.parametrize(
    ("name", "inside"),
    [("float32", torch.float32), ("bfloat16", torch.bfloat16), ("float16", torch.float16)],
)
def test_only_the_forward_pass_is_in_half_precision(name, inside):
    precision = choose_precision(name, CPU)
    a = torch.ones(2, 2)
    with precision.forward():
        assert (a @ a).dtype == inside
    with precision.backward():
        assert (a @ a).dtype == torch.float32
    assert (a @ a).dtype == torch.float32
