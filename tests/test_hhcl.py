"""HHCL against a twin written from its definitions, image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import naive
from gracl.clustering import OUTLIER
from gracl.errors import ClusterCollapse
from gracl.methods.hhcl import HHCL
from gracl.methods.protocol import Batch


def unit(row):
    return row / math.sqrt(sum(float(v) ** 2 for v in row))


def naive_contrast(features, labels, memory, temperature):
    losses = []
    for f, y in zip(features, labels, strict=True):
        scores = [math.exp(float(f @ row) / temperature) for row in memory]
        losses.append(-math.log(scores[y] / sum(scores)))
    return sum(losses) / len(losses)


def naive_update(features, labels, memory, momentum, bank):
    memory = [row.copy() for row in memory]
    for k in sorted(set(labels)):
        mine = [f for f, y in zip(features, labels, strict=True) if y == k]
        target = sum(mine) / len(mine)  # not of unit length
        if bank == "hard":
            target = min(mine, key=lambda f, row=memory[k]: float(f @ row))
        memory[k] = unit(momentum * memory[k] + (1 - momentum) * target)
    return memory


def a_batch(seed, n=24, clusters=5, dim=8):
    draws = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(n, dim, generator=draws))
    labels = torch.randint(clusters, (n,), generator=draws)
    banks = {k: F.normalize(torch.randn(clusters, dim, generator=draws)) for k in ("hard", "mean")}
    return features, labels, banks


def with_banks(banks, **settings):
    method = HHCL(**settings)
    method.banks = {name: bank.clone() for name, bank in banks.items()}
    return method


def numbers(tensor):
    return tensor.double().numpy()


def test_both_banks_start_as_the_means_of_the_clusters_and_are_two():
    features = naive.make_features(0)
    method = HHCL(k1=8, k2=3)
    labels = method.start_epoch(features)
    assert OUTLIER in labels
    for k in range(labels.max() + 1):
        mine = [f for f, y in zip(numbers(features), labels, strict=True) if y == k]
        for name in ("hard", "mean"):
            np.testing.assert_allclose(method.banks[name][k], unit(sum(mine)), atol=1e-6)
    method.banks["hard"].zero_()
    assert method.banks["mean"].any()


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("weight", [0.0, 0.3, 0.5, 1.0])
def test_losses_are_those_of_the_definition(weight, temperature):
    features, labels, banks = a_batch(1)
    found = with_banks(banks, hard_weight=weight, temperature=temperature).loss(Batch(features, labels))
    assert list(found) == ["hard", "mean"]
    for name, share in (("hard", weight), ("mean", 1 - weight)):
        expected = naive_contrast(numbers(features), labels.tolist(), numbers(banks[name]), temperature)
        assert float(found[name]) == pytest.approx(share * expected, rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.1, 0.7, 1.0])
def test_each_bank_moves_by_its_own_definition(momentum):
    features, labels, banks = a_batch(2)
    method = with_banks(banks, momentum=momentum)
    method.update(Batch(features, labels))
    for name, bank in banks.items():
        expected = naive_update(numbers(features), labels.tolist(), numbers(bank), momentum, name)
        np.testing.assert_allclose(method.banks[name], expected, atol=1e-5)
        torch.testing.assert_close(method.banks[name].norm(dim=1), torch.ones(5))


def test_images_that_disagree_move_the_mean_bank_less():
    row = torch.tensor([[1.0, 0.0, 0.0]])
    apart = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    kept = {}
    for name, images in (("apart", apart), ("alike", apart[[0, 0]])):
        method = with_banks({"hard": row, "mean": row}, momentum=0.5)
        method.update(Batch(images, torch.tensor([0, 0])))
        kept[name] = float(method.banks["mean"][0, 0])
    assert kept["apart"] == pytest.approx(1 / math.sqrt(1.5))
    assert kept["alike"] == pytest.approx(1 / math.sqrt(2))


def test_a_cluster_of_one_image_moves_both_banks_the_same():
    features, _, banks = a_batch(3)
    method = with_banks({"hard": banks["hard"], "mean": banks["hard"]})
    method.update(Batch(features[:5], torch.tensor([4, 2, 0, 1, 3])))
    torch.testing.assert_close(method.banks["hard"], method.banks["mean"])
    assert not torch.equal(method.banks["hard"], banks["hard"])


def test_a_cluster_that_the_batch_lacks_stays():
    features, labels, banks = a_batch(4)
    method = with_banks(banks)
    method.update(Batch(features[labels != 2], labels[labels != 2]))
    for name, bank in banks.items():
        assert torch.equal(method.banks[name][2], bank[2])
        assert not torch.equal(method.banks[name][1], bank[1])


def test_order_of_the_batch_does_not_count():
    features, labels, banks = a_batch(5)
    forwards, backwards = with_banks(banks), with_banks(banks)
    forwards.update(Batch(features, labels))
    backwards.update(Batch(features.flip(0), labels.flip(0)))
    for name in banks:
        torch.testing.assert_close(forwards.banks[name], backwards.banks[name])
    there = forwards.loss(Batch(features, labels))
    back = forwards.loss(Batch(features.flip(0), labels.flip(0)))
    torch.testing.assert_close(there, back)


def test_gradient_pulls_an_image_to_its_own_rows_and_leaves_the_memory():
    _, _, banks = a_batch(6)
    method = with_banks(banks)
    for name, bank in banks.items():
        feature = bank[[1]].clone().requires_grad_()
        method.loss(Batch(feature, torch.tensor([0])))[name].backward()
        assert float(feature.grad[0] @ bank[0]) < 0 < float(feature.grad[0] @ bank[1])
        assert not method.banks[name].requires_grad


def test_half_precision_is_taken_as_float32():
    features, labels, banks = a_batch(7)
    method = with_banks(banks)
    batch = Batch(features.bfloat16(), labels)
    assert {loss.dtype for loss in method.loss(batch).values()} == {torch.float32}
    method.update(batch)
    assert {bank.dtype for bank in method.banks.values()} == {torch.float32}


def test_nothing_to_contrast_is_refused():
    with pytest.raises(ClusterCollapse, match="all 72 images are outliers"):
        HHCL(k1=4, k2=2, eps=0.0).start_epoch(naive.make_features(0))
