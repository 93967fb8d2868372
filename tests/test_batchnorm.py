from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn

import naive
from gracl.models.batchnorm import RunningStatistics, calibrate, group_borders
from gracl.models.pooling import AveragePooling, GeneralizedMeanPooling, build_pooling

MOMENTA = [0.0, 0.1, 0.7, 1.0]


def make_model(momentum=0.1):
    """Two BatchNorms of different momentum, not at their first step."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(5, 4), nn.BatchNorm1d(4, momentum=momentum), nn.ReLU(), nn.BatchNorm1d(4)
    )
    for layer in (model[1], model[3]):
        layer.running_mean.normal_()
        layer.running_var.uniform_(0.5, 2)
    return model


def forward_in_groups(model, batch, group, order=None):
    """As the engine takes a batch, without its backward passes."""
    statistics = RunningStatistics(model)
    statistics.begin_batch()
    parts = [batch[a:b] for a, b in pairwise(group_borders(len(batch), group))]
    outputs, moved = [], []
    for part in parts:
        statistics.begin_group()
        outputs.append(model(part))
        moved.append(statistics.moved())
    totals = [sum(values) for values in zip(*moved, strict=True)]
    statistics.end_batch(totals, len(parts))
    return torch.cat(outputs)


def make_batch(n=32):
    return torch.randn(n, 5, generator=torch.Generator().manual_seed(1))


def copy_of(model, momentum=0.1):
    other = make_model(momentum)
    other.load_state_dict(model.state_dict())
    return other


def buffers(model):
    return {name: value.clone() for name, value in model.named_buffers() if "running" in name}


@pytest.mark.parametrize(("n", "group", "sizes"), [(32, 8, [8] * 4), (30, 8, [7, 8, 7, 8])])
def test_groups_give_what_separate_forwards_give(n, group, sizes):
    model, batch = make_model(), make_batch(n)
    other = copy_of(model)
    expected = torch.cat([other(part) for part in batch.split(sizes)])
    found = forward_in_groups(model, batch, group)
    torch.testing.assert_close(found, expected, atol=0, rtol=0)
    assert not torch.allclose(found, copy_of(model)(batch), atol=1e-2)


def test_each_group_is_normalised_by_itself():
    model, batch = nn.BatchNorm1d(5), make_batch(24)
    found = forward_in_groups(model, batch, 8)
    expected = np.concatenate([naive.batch_norm(part.double().numpy()) for part in batch.split(8)])
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("momentum", MOMENTA)
@pytest.mark.parametrize(("n", "group"), [(32, 8), (30, 8), (9, 3)])
def test_running_statistics_move_once_towards_the_mean_of_the_groups(momentum, n, group):
    model, batch = nn.BatchNorm1d(5, momentum=momentum), make_batch(n)
    model.running_mean.normal_()
    before = buffers(model)
    forward_in_groups(model, batch, group)
    groups = [batch[a:b] for a, b in pairwise(group_borders(n, group))]
    for name, of in {"running_mean": torch.mean, "running_var": torch.var}.items():
        statistics = [of(part, dim=0) for part in groups]
        expected = naive.running_after(before[name], statistics, momentum)
        torch.testing.assert_close(buffers(model)[name], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("momentum", MOMENTA)
def test_the_order_of_the_groups_is_of_no_consequence(momentum):
    model, batch = make_model(momentum), make_batch(32)
    other = copy_of(model, momentum)
    order = [2, 0, 3, 1]
    found = forward_in_groups(model, batch, 8).split(8)
    shuffled = forward_in_groups(other, torch.cat([batch.split(8)[i] for i in order]), 8).split(8)
    for place, i in enumerate(order):
        torch.testing.assert_close(shuffled[place], found[i])
    for name, value in buffers(model).items():
        torch.testing.assert_close(buffers(other)[name], value)


@pytest.mark.parametrize("group", [32, 33, 1000, 22])
def test_a_group_as_large_as_the_batch_is_the_plain_model(group):
    """At 22 of 32 the nearest number of groups is one, too."""
    model, batch = make_model(), make_batch(32)
    other = copy_of(model)
    assert torch.equal(forward_in_groups(model, batch, group), other(batch))
    for name, value in buffers(other).items():
        assert torch.equal(buffers(model)[name], value)


def test_eval_mode_gives_the_plain_output_and_moves_nothing():
    model, batch = make_model().eval(), make_batch(32)
    before = buffers(model)
    torch.testing.assert_close(forward_in_groups(model, batch, 8), model(batch))
    for name, value in buffers(model).items():
        assert torch.equal(value, before[name])


def test_a_model_without_batchnorm_gives_the_plain_output():
    model, batch = nn.Linear(5, 3), make_batch(32)
    torch.testing.assert_close(forward_in_groups(model, batch, 8), model(batch))


@pytest.mark.parametrize("groups", [1, 4])
def test_a_batch_counts_once(groups):
    model, batch = make_model(), make_batch(32)
    for batches in (1, 2):
        forward_in_groups(model, batch, 32 // groups)
        assert (model[1].num_batches_tracked, model[3].num_batches_tracked) == (batches, batches)


def test_a_cumulative_mean_is_left_to_itself():
    """There is no momentum to move by once a batch."""
    model, batch = nn.BatchNorm1d(5, momentum=None), make_batch(32)
    forward_in_groups(model, batch, 8)
    expected = torch.stack([part.mean(dim=0) for part in batch.split(8)]).mean(dim=0)
    torch.testing.assert_close(model.running_mean, expected)


@pytest.mark.parametrize(
    ("n", "group", "expected"),
    [(256, 64, 4), (96, 64, 2), (95, 64, 1), (2, 64, 1), (10, 3, 3), (7, 2, 3), (3, 2, 1)],
)
def test_groups_are_as_near_to_their_size_and_as_equal_as_can_be(n, group, expected):
    borders = group_borders(n, group)
    sizes = np.diff(borders)
    assert (borders[0], borders[-1]) == (0, n)
    assert len(sizes) == expected
    assert max(sizes) - min(sizes) <= 1


def test_calibration_gives_the_mean_of_the_batches_statistics():
    model, batches = nn.BatchNorm1d(5), list(make_batch(36).split(12))
    model(make_batch() + 100)
    calibrate(model, batches)
    torch.testing.assert_close(model.running_mean, sum(b.mean(dim=0) for b in batches) / 3)
    torch.testing.assert_close(model.running_var, sum(b.var(dim=0) for b in batches) / 3)


@pytest.mark.parametrize("training", [True, False])
def test_calibration_leaves_weights_mode_and_momenta(training):
    model = make_model(0.3).train(training)
    before = {name: value.clone() for name, value in model.named_parameters()}
    statistics = buffers(model)
    calibrate(model, [make_batch(16), make_batch(16) + 1])
    for name, value in model.named_parameters():
        assert torch.equal(value, before[name])
        assert value.grad is None
    assert [module.training for module in model.modules()] == [training] * 5
    assert (model[1].momentum, model[3].momentum) == (0.3, 0.1)
    assert not any(torch.equal(v, statistics[name]) for name, v in buffers(model).items())


def test_calibration_restores_the_mode_of_each_module():
    model = make_model()
    model[1].eval()
    calibrate(model, [make_batch()])
    assert [module.training for module in model] == [True, False, True, True]


def test_calibration_restores_mode_and_momenta_after_an_exception():
    model = make_model(0.3).eval()
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        calibrate(model, [make_batch(1)])
    assert (model[1].momentum, model[3].momentum) == (0.3, 0.1)
    assert not any(module.training for module in model.modules())


def test_pooling_with_p_equals_its_naive_twin():
    maps = torch.randn(3, 4, 5, 2, generator=torch.Generator().manual_seed(0))
    for p in (1.0, 2.5, 3.0, 6.0):
        found = GeneralizedMeanPooling(p=p)(maps).detach().numpy()
        expected = [naive.generalized_mean(image.numpy(), p) for image in maps]
        np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_pooling_goes_from_the_mean_to_the_maximum():
    maps = torch.rand(3, 4, 5, 2, generator=torch.Generator().manual_seed(0)) + 0.1
    pooled = [GeneralizedMeanPooling(p=p)(maps) for p in (1.0, 3.0, 10.0, 100.0)]
    torch.testing.assert_close(pooled[0], AveragePooling()(maps))
    torch.testing.assert_close(pooled[-1], maps.amax(dim=(2, 3)), atol=0.04, rtol=0)
    assert all((low < high).all() for low, high in pairwise(pooled))


def test_pooling_of_nothing_positive_is_finite_with_a_finite_gradient():
    pooling, maps = GeneralizedMeanPooling(), torch.zeros(2, 3, 4, 4, requires_grad=True)
    pooled = pooling(maps)
    pooled.sum().backward()
    torch.testing.assert_close(pooled, torch.full((2, 3), 1e-6))
    assert torch.isfinite(maps.grad).all()
    assert torch.isfinite(pooling.p.grad).all()


def test_p_is_learnt():
    pooling = GeneralizedMeanPooling()
    pooling(torch.rand(2, 3, 4, 4) + 0.1).sum().backward()
    assert pooling.p.item() == 3
    assert pooling.p.grad.item() > 0


def test_average_pooling_is_the_mean_of_the_cells():
    maps = torch.arange(24.0).reshape(2, 3, 2, 2)
    assert AveragePooling()(maps).tolist() == [[1.5, 5.5, 9.5], [13.5, 17.5, 21.5]]


@pytest.mark.parametrize("pooling", ["gem", "average"])
def test_pooling_computes_in_float32(pooling):
    maps = torch.full((1, 2, 4, 4), 60000.0, dtype=torch.float16)
    pooled = build_pooling(pooling)(maps)
    assert pooled.dtype == torch.float32
    torch.testing.assert_close(pooled, maps.float().amax(dim=(2, 3)))


def test_poolings_are_built_by_name():
    assert type(build_pooling("gem")) is GeneralizedMeanPooling
    assert type(build_pooling("average")) is AveragePooling
