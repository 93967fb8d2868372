"""CAP against loops over images and proxies, from the paper's definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from gracl.errors import DataError
from gracl.methods.cap import CAP
from gracl.methods.protocol import Batch, Known

LABELS = np.array([0, 0, 0, 1, 1, -1, 2, 2, 1, 0])
CAMERAS = np.array([0, 1, 0, 0, 2, 1, 1, 1, 2, 1])


def unit_rows(n, seed, dim=6):
    return F.normalize(torch.randn(n, dim, generator=torch.Generator().manual_seed(seed)))


def made(labels=LABELS, cameras=CAMERAS, **settings):
    method = CAP(Known(cameras=cameras), **settings)
    features = unit_rows(len(labels), 1)
    method.banks = method.build_memory(features, labels)
    rows = torch.from_numpy(np.flatnonzero(labels >= 0))
    return method, Batch(unit_rows(len(rows), 2), torch.from_numpy(labels)[rows], rows), features


def key(i, labels, cameras):
    """An unknown camera is one of the cluster's own."""
    label, camera = int(labels[i]), int(cameras[i])
    return label, f"unknown, {label}" if camera < 0 else camera


def naive_bank(features, labels, cameras):
    groups = {}
    for i in range(len(labels)):
        if labels[i] >= 0:
            groups.setdefault(key(i, labels, cameras), []).append(features[i].double().numpy())
    means = {k: np.mean(v, axis=0) for k, v in groups.items()}
    return {k: v / np.linalg.norm(v) for k, v in means.items()}


def naive_loss(bank, batch, labels, cameras, *, positives, hardest, temperature):
    intra = inter = 0.0
    for f, i in zip(batch.features.double().numpy(), batch.rows.tolist(), strict=True):
        own = key(i, labels, cameras)
        e = {k: math.exp(f @ row / temperature) for k, row in bank.items()}
        intra -= math.log(e[own] / sum(v for k, v in e.items() if k[1] == own[1]))
        mine = [k for k in e if k[0] == own[0] and (positives == "all" or k[1] != own[1])]
        foreign = sorted((v for k, v in e.items() if k[0] != own[0]), reverse=True)[:hardest]
        below = sum(e[k] for k in mine) + sum(foreign)
        if mine:
            inter -= sum(math.log(e[k] / below) for k in mine) / len(mine)
    return intra / len(batch.rows), inter / len(batch.rows)


WORLDS = {
    "known": CAMERAS,
    "one camera": np.zeros(10, dtype=np.int64),
    "some unknown": np.where(np.arange(10) % 3 == 0, -1, CAMERAS),
    "all unknown": np.full(10, -1),
}


@pytest.mark.parametrize("cameras", WORLDS.values(), ids=WORLDS)
@pytest.mark.parametrize("positives", ["all", "others"])
@pytest.mark.parametrize(("hardest", "temperature", "weight"), [(50, 0.3, 0.5), (1, 0.07, 2.0)])
def test_memory_and_losses_are_those_of_the_definition(
    cameras, positives, hardest, temperature, weight
):
    method, batch, features = made(
        cameras=cameras,
        positives=positives,
        hardest=hardest,
        temperature=temperature,
        inter_weight=weight,
    )
    bank = naive_bank(features, LABELS, cameras)
    assert len(method.banks["proxy"]) == len(bank)
    for i in batch.rows.tolist():
        row = method.banks["proxy"][method.proxy_of[i]]
        assert np.allclose(row.numpy(), bank[key(i, LABELS, cameras)], atol=1e-6)
    expected = naive_loss(
        bank,
        batch,
        LABELS,
        cameras,
        positives=positives,
        hardest=hardest,
        temperature=temperature,
    )
    batch.features.requires_grad_()
    found = method.loss(batch)
    assert found["intra"].item() == pytest.approx(expected[0], rel=1e-4, abs=1e-6)
    assert found["inter"].item() == pytest.approx(weight * expected[1], rel=1e-4, abs=1e-6)
    sum(found.values()).backward()
    assert torch.isfinite(batch.features.grad).all()
    assert not method.banks["proxy"].requires_grad


def test_a_cluster_of_one_camera_has_no_other_positives():
    method, batch, _ = made(cameras=WORLDS["one camera"], positives="others")
    assert method.loss(batch)["inter"].item() == 0


@pytest.mark.parametrize("momentum", [0.2, 0.7])
def test_the_proxies_follow_each_image_in_turn(momentum):
    method, batch, features = made(momentum=momentum)
    expected = naive_bank(features, LABELS, CAMERAS)
    for f, i in zip(batch.features.double().numpy(), batch.rows.tolist(), strict=True):
        k = key(i, LABELS, CAMERAS)
        row = momentum * expected[k] + (1 - momentum) * f
        expected[k] = row / np.linalg.norm(row)
    method.update(batch)
    for i in batch.rows.tolist():
        row = method.banks["proxy"][method.proxy_of[i]].numpy()
        assert np.allclose(row, expected[key(i, LABELS, CAMERAS)], atol=1e-5)


def test_one_cluster_in_a_group_and_another_order_are_fine():
    method, batch, _ = made()
    order = torch.randperm(len(batch.rows), generator=torch.Generator().manual_seed(0))
    again = Batch(batch.features[order], batch.labels[order], batch.rows[order])
    torch.testing.assert_close(method.loss(batch), method.loss(again))
    one = batch.labels == 2
    found = method.loss(Batch(batch.features[one], batch.labels[one], batch.rows[one]))
    assert all(torch.isfinite(value) for value in found.values())


def test_without_cameras_it_says_so():
    with pytest.raises(DataError, match="needs the camera of each image"):
        CAP().build_memory(unit_rows(10, 0), LABELS)
