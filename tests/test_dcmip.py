"""DCMIP against a twin written from its definitions, image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import naive
from gracl.clustering import OUTLIER
from gracl.errors import ClusterCollapse, ConfigError
from gracl.methods.dcmip import DCMIP
from gracl.methods.protocol import Batch


def unit(row):
    return row / math.sqrt(sum(float(v) ** 2 for v in row))


def naive_spread(rows, count):
    """Evenly spread: place j of count lies at j / count of the way."""
    return [rows[math.floor(j * len(rows) / count + 1e-9)] for j in range(count)]


def naive_softmax(scores, y, temperature):
    powers = [math.exp(score / temperature) for score in scores]
    return -math.log(powers[y] / sum(powers))


def naive_losses(features, labels, banks, temperature, min_loss):
    """Means over the images, before the weights."""
    hard, mean, instance = [], [], []
    for f, y in zip(features, labels, strict=True):
        hard.append(naive_softmax([float(f @ row) for row in banks["hard"]], y, temperature))
        to_means = naive_softmax([float(f @ row) for row in banks["mean"]], y, temperature)
        mean.append(max(0.0, to_means - min_loss))
        scores = []
        for k, rows in enumerate(banks["instances"]):
            to_rows = [float(f @ row) for row in rows]
            scores.append(min(to_rows) if k == y else max(to_rows))
        instance.append(naive_softmax(scores, y, temperature))
    return {
        name: sum(values) / len(values)
        for name, values in (("hard", hard), ("mean", mean), ("instance", instance))
    }


def naive_update(features, labels, banks, momentum, rule):
    banks = {name: [row.copy() for row in bank] for name, bank in banks.items()}
    for k in sorted(set(labels)):
        mine = [f for f, y in zip(features, labels, strict=True) if y == k]
        row = banks["hard"][k]
        for f in mine if rule == "each" else [min(mine, key=lambda f, row=row: float(f @ row))]:
            banks["hard"][k] = unit(momentum * banks["hard"][k] + (1 - momentum) * f)
        mean = sum(mine) / len(mine)
        banks["mean"][k] = unit(momentum * banks["mean"][k] + (1 - momentum) * mean)
        banks["instances"][k] = naive_spread(mine, len(banks["instances"][k]))
    return banks


def a_batch(seed, n=24, clusters=5, dim=8, instances=3):
    draws = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(n, dim, generator=draws))
    labels = torch.randint(clusters, (n,), generator=draws)
    shapes = {"hard": (), "mean": (), "instances": (instances,)}
    banks = {
        name: F.normalize(torch.randn(clusters, *more, dim, generator=draws), dim=-1)
        for name, more in shapes.items()
    }
    return features, labels, banks


def with_banks(banks, **settings):
    method = DCMIP(instances=banks["instances"].shape[1], **settings)
    method.banks = {name: bank.clone() for name, bank in banks.items()}
    return method


def numbers(banks):
    if isinstance(banks, torch.Tensor):
        return banks.double().numpy()
    return {name: bank.double().numpy() for name, bank in banks.items()}


@pytest.mark.parametrize("instances", [1, 3, 16])
def test_memory_starts_as_means_and_as_images_of_the_clusters(instances):
    features = naive.make_features(0)
    method = DCMIP(k1=8, k2=3, instances=instances)
    labels = method.start_epoch(features)
    assert OUTLIER in labels
    for k in range(labels.max() + 1):
        mine = [i for i, y in enumerate(labels) if y == k]
        mean = unit(sum(numbers(features)[i] for i in mine))
        for name in ("hard", "mean"):
            np.testing.assert_allclose(method.banks[name][k], mean, atol=1e-6)
        assert torch.equal(method.banks["instances"][k], features[naive_spread(mine, instances)])
        if instances >= len(mine):  # then each image has a place
            assert set(naive_spread(mine, instances)) == set(mine)
    method.banks["hard"].zero_()
    assert method.banks["mean"].any()


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("min_loss", [0.0, 0.2, 2.0])
@pytest.mark.parametrize("instances", [1, 4])
def test_losses_are_those_of_the_definition(instances, min_loss, temperature):
    features, labels, banks = a_batch(1, instances=instances)
    settings = {"min_loss": min_loss, "temperature": temperature}
    method = with_banks(banks, hard_weight=0.3, instance_weight=0.8, **settings)
    found = method.loss(Batch(features, labels))
    expected = naive_losses(numbers(features), labels.tolist(), numbers(banks), temperature, min_loss)
    assert list(found) == ["hard", "mean", "instance"]
    for name, weight in (("hard", 0.3), ("mean", 0.7), ("instance", 0.8)):
        assert float(found[name]) == pytest.approx(weight * expected[name], rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0])
@pytest.mark.parametrize("rule", ["hardest", "each"])
@pytest.mark.parametrize("instances", [1, 3, 16])
def test_update_is_that_of_the_definition(instances, rule, momentum):
    features, labels, banks = a_batch(2, instances=instances)
    method = with_banks(banks, update=rule, momentum=momentum)
    method.update(Batch(features, labels))
    expected = naive_update(numbers(features), labels.tolist(), numbers(banks), momentum, rule)
    for name, bank in method.banks.items():
        np.testing.assert_allclose(bank, expected[name], atol=1e-5)
        torch.testing.assert_close(bank.norm(dim=-1), torch.ones(bank.shape[:-1]))


def test_an_image_near_its_mean_has_no_loss_of_it_and_is_not_pulled():
    banks = {"hard": torch.eye(3), "mean": torch.eye(3), "instances": torch.eye(3)[:, None]}
    feature = torch.eye(3)[[0]].requires_grad_()
    loss = with_banks(banks, min_loss=0.2).loss(Batch(feature, torch.tensor([0])))["mean"]
    loss.backward()
    assert loss.item() == 0
    assert not feature.grad.any()


def test_a_cluster_that_the_batch_lacks_stays():
    features, labels, banks = a_batch(3)
    method = with_banks(banks)
    method.update(Batch(features[labels != 2], labels[labels != 2]))
    for name, bank in banks.items():
        assert torch.equal(method.banks[name][2], bank[2])
        assert not torch.equal(method.banks[name][1], bank[1])


def test_one_image_of_a_cluster_takes_all_its_places():
    features, _, banks = a_batch(4)
    method = with_banks(banks)
    method.update(Batch(features[:1], torch.tensor([3])))
    torch.testing.assert_close(method.banks["instances"][3], features[[0, 0, 0]])


def test_order_of_the_batch_counts_for_each_in_turn_and_not_for_the_hardest():
    features, labels, banks = a_batch(5, instances=24)
    for rule, same in (("hardest", True), ("each", False)):
        there, back = with_banks(banks, update=rule), with_banks(banks, update=rule)
        there.update(Batch(features, labels))
        back.update(Batch(features.flip(0), labels.flip(0)))
        assert torch.allclose(there.banks["hard"], back.banks["hard"], atol=1e-6) == same
        torch.testing.assert_close(there.banks["mean"], back.banks["mean"])
        torch.testing.assert_close(
            there.loss(Batch(features, labels)), there.loss(Batch(features.flip(0), labels.flip(0)))
        )


@pytest.mark.parametrize("name", ["hard", "mean", "instance"])
def test_gradient_pulls_an_image_to_its_own_and_leaves_the_memory(name):
    _, _, banks = a_batch(6, instances=1)
    method = with_banks(banks)
    bank = banks["instances"][:, 0] if name == "instance" else banks[name]
    feature = bank[[1]].clone().requires_grad_()
    method.loss(Batch(feature, torch.tensor([0])))[name].backward()
    assert float(feature.grad[0] @ bank[0]) < 0 < float(feature.grad[0] @ bank[1])
    assert not any(bank.requires_grad for bank in method.banks.values())


def test_instances_remembered_from_half_precision_are_unit_rows():
    features, labels, banks = a_batch(7)
    method = with_banks(banks)
    batch = Batch(features.bfloat16(), labels)
    assert {loss.dtype for loss in method.loss(batch).values()} == {torch.float32}
    method.update(batch)
    for bank in method.banks.values():
        assert bank.dtype == torch.float32
        torch.testing.assert_close(bank.norm(dim=-1), torch.ones(bank.shape[:-1]))


def test_nothing_to_contrast_is_refused():
    with pytest.raises(ClusterCollapse, match="all 72 images are outliers"):
        DCMIP(k1=4, k2=2, eps=0.0).start_epoch(naive.make_features(0))


def test_a_rule_that_does_not_exist_is_refused():
    with pytest.raises(ConfigError, match="hardest"):
        DCMIP(update="hardst")
