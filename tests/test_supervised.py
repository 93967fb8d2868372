"""The supervised bound: its classifier against torch's Adam, its triplets against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gracl.errors import DataError
from gracl.methods.classifier import Classifier
from gracl.methods.protocol import Batch, Known
from gracl.methods.supervised import Supervised
from gracl.methods.triplet import batch_hard

CLASSES = np.array([7, 3, 7, -1, 9, 3, 9, 9])
NUMBERED = [1, 0, 1, -1, 2, 0, 2, 2]


def unit_rows(n, seed, dim=6):
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)))


def made(**settings):
    method = Supervised(Known(classes=CLASSES), **settings)
    method.start_epoch(unit_rows(8, 1))
    return method


def batch_of(labels, seed=2):
    return Batch(unit_rows(len(labels), seed), torch.tensor(labels))


@pytest.mark.parametrize(("temperature", "rate"), [(0.05, 3.5e-4), (0.5, 0.1)])
def test_a_step_is_that_of_autograd_and_torch_adam(temperature, rate):
    rows = unit_rows(4, 0)
    classifier = Classifier(rows.clone(), temperature=temperature, learning_rate=rate)
    weight = rows.clone().requires_grad_()
    adam = torch.optim.Adam([weight], lr=rate)
    for step in range(5):
        features = unit_rows(9, 10 + step)
        targets = torch.rand(9, 4, generator=torch.Generator().manual_seed(step))
        targets /= targets.sum(dim=1, keepdim=True)
        classifier.step(features, targets)
        adam.zero_grad()
        F.cross_entropy(features @ weight.T / temperature, targets).backward()
        adam.step()
        torch.testing.assert_close(classifier.rows, weight.detach(), rtol=1e-4, atol=1e-5 * rate + 1e-6)
    assert not torch.allclose(classifier.rows, rows, atol=rate / 2)


def test_a_step_at_a_share_of_the_rate_is_that_share_of_the_step():
    rows, features = unit_rows(4, 0), unit_rows(9, 10)
    targets = F.one_hot(torch.arange(9) % 4, 4).float()
    whole, half = (Classifier(rows.clone(), temperature=0.05, learning_rate=0.1) for _ in range(2))
    whole.step(features, targets)
    half.step(features, targets, rate=0.5)
    torch.testing.assert_close(half.rows - rows, 0.5 * (whole.rows - rows))


def test_classes_are_numbered_and_the_missing_stay_out():
    method = Supervised(Known(classes=CLASSES))
    features = unit_rows(8, 1)
    assert method.start_epoch(features).tolist() == NUMBERED
    means = [features[torch.tensor(NUMBERED) == k].mean(0) for k in range(3)]
    torch.testing.assert_close(method.banks["classifier"], F.normalize(torch.stack(means)))


@pytest.mark.parametrize(
    ("temperature", "margin", "weights"), [(0.5, 0.3, (1.0, 1.0)), (0.1, 1.2, (0.5, 2.0))]
)
def test_losses_are_those_of_the_definition(temperature, margin, weights):
    method = made(
        temperature=temperature,
        margin=margin,
        softmax_weight=weights[0],
        triplet_weight=weights[1],
    )
    batch = batch_of([0, 1, 2, 1, 0, 2, 0])
    f, y = batch.features.double().numpy(), batch.labels.tolist()
    w = method.banks["classifier"].double().numpy()
    softmax = triplet = 0.0
    for i in range(7):
        e = [math.exp(f[i] @ row / temperature) for row in w]
        softmax -= math.log(e[y[i]] / sum(e)) / 7
        d = [float(np.linalg.norm(f[i] - f[j])) for j in range(7)]
        own = max(d[j] for j in range(7) if y[j] == y[i])
        other = min(d[j] for j in range(7) if y[j] != y[i])
        triplet += max(0.0, margin + own - other) / 7
    found = method.loss(batch)
    assert found["softmax"].item() == pytest.approx(weights[0] * softmax, rel=1e-4)
    assert found["triplet"].item() == pytest.approx(weights[1] * triplet, rel=1e-4)
    order = torch.tensor([6, 2, 0, 5, 1, 3, 4])
    torch.testing.assert_close(found, method.loss(Batch(batch.features[order], batch.labels[order])))


@pytest.mark.parametrize("labels", [[1, 1, 1], [0], [0, 1, 2]])
def test_one_class_single_images_and_duplicates_are_finite(labels):
    method = made()
    batch = batch_of(labels)
    features = torch.cat([batch.features, batch.features]).requires_grad_()
    found = method.loss(Batch(features, torch.cat([batch.labels, batch.labels])))
    sum(found.values()).backward()
    assert torch.isfinite(features.grad).all()
    assert not method.banks["classifier"].requires_grad
    if len(set(labels)) == 1:
        assert found["triplet"].item() == 0


def test_the_classifier_is_kept_over_epochs_and_carried_by_the_state():
    method = made(learning_rate=0.1)
    method.update(batch_of([0, 1, 2, 1]))
    kept = method.banks["classifier"].clone()
    method.start_epoch(unit_rows(8, 5))
    assert torch.equal(method.banks["classifier"], kept)
    other = Supervised(Known(classes=CLASSES), learning_rate=0.1)
    other.load(method.state())
    assert torch.equal(other.state()["rows"], kept)
    other.start_epoch(unit_rows(8, 6))
    for seed in (3, 4):
        for one in (method, other):
            one.update(batch_of([2, 0, 2, 1], seed))
        assert torch.equal(method.banks["classifier"], other.banks["classifier"])
    assert not torch.equal(method.banks["classifier"], kept)


@pytest.mark.parametrize("classes", [None, np.full(8, -1), np.array([4] * 7 + [-1])])
def test_fewer_than_two_classes_are_refused(classes):
    with pytest.raises(DataError, match=r"[01] known classes .* needs two"):
        Supervised(Known(classes=classes)).start_epoch(unit_rows(8, 1))


def test_images_at_the_very_same_place_pull_neither_way():
    features = torch.eye(4)[[0, 0, 1, 1]].requires_grad_()
    made_of = Supervised(Known(classes=np.array([0, 1, 2])), margin=2.0)
    made_of.start_epoch(torch.eye(4)[:3])
    sum(made_of.loss(Batch(features, torch.tensor([0, 0, 1, 1]))).values()).backward()
    assert torch.isfinite(features.grad).all()


def test_rounding_does_not_pull_an_image_from_itself():
    features = unit_rows(64, 1, dim=512).requires_grad_()
    farthest, _ = batch_hard(features, torch.arange(64))
    farthest.sum().backward()
    assert farthest.tolist() == [0.0] * 64
    assert not features.grad.any()
