"""SpCL against a twin written from its equations, image by image."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import naive
from gracl.clustering import OUTLIER, cluster
from gracl.errors import ClusterCollapse
from gracl.jaccard import jaccard_distance
from gracl.links import Links
from gracl.methods import spcl
from gracl.methods.protocol import Batch, Known
from gracl.methods.spcl import SpCL

SETTINGS = {"k1": 8, "k2": 3}


def unit(row):
    return row / math.sqrt(sum(float(v) ** 2 for v in row))


def numbers(tensor):
    return tensor.double().numpy()


def crowd(seed):
    """As many clusters as it takes for one in ten to be unreliable."""
    return naive.make_features(seed, identities=20, images=6, noise=0.6)


def the_set_of(i, labels):
    """Images of i's cluster; an outlier is alone."""
    if labels[i] == OUTLIER:
        return {i}
    return {j for j in range(len(labels)) if labels[j] == labels[i]}


def naive_alpha(independence):
    falling = sorted(independence.values(), reverse=True)
    return falling[min(round(0.9 * len(falling)), len(falling) - 1)]


def naive_reliable(labels, loose, tight, alpha=None):
    """Equations 5 and 6 with sets: alpha, and the groups of images that stay together."""

    def iou(i, others):
        own, other = the_set_of(i, labels), the_set_of(i, others)
        return len(own & other) / len(own | other)

    clusters = [[i for i, y in enumerate(labels) if y == k] for k in range(max(labels) + 1)]
    independence = {k: max(iou(i, loose) for i in mine) for k, mine in enumerate(clusters)}
    alpha = naive_alpha(independence) if alpha is None else alpha
    groups = []
    for k, mine in enumerate(clusters):
        if independence[k] >= alpha:
            beta = max(iou(i, tight) for i in mine)
            groups.append([i for i in mine if iou(i, tight) >= beta])
    return alpha, sorted(group for group in groups if len(group) > 1)


def groups_of(labels):
    """Images by class, only classes of two and more."""
    found = [np.flatnonzero(labels == k).tolist() for k in range(max(labels) + 1)]
    return sorted(group for group in found if len(group) > 1)


def naive_labels(features, *, eps, eps_gap, alpha=None):
    distance = jaccard_distance(features, **SETTINGS)
    steps = (eps, min(eps + eps_gap, 0.999999), max(eps - eps_gap, 0))
    return naive_reliable(*(cluster(distance, eps=step).tolist() for step in steps), alpha)


def naive_centroids(memory, labels):
    """Equation 3: plain means."""
    found = []
    for k in range(max(labels) + 1):
        mine = [v for v, y in zip(memory, labels, strict=True) if y == k]
        found.append(sum(mine) / len(mine))
    return found


def naive_loss(features, labels, memory, all_labels, temperature):
    """Equation 1: clusters and images alone, each with its sum in the denominator."""
    sizes = {k: all_labels.count(k) for k in all_labels}
    alone = [v for v, y in zip(memory, all_labels, strict=True) if sizes[y] == 1]
    centroids = naive_centroids(memory, all_labels)
    clusters = [c for k, c in enumerate(centroids) if sizes[k] > 1]
    losses = []
    for f, y in zip(features, labels, strict=True):
        below = sum(math.exp(float(f @ c) / temperature) for c in clusters)
        below += sum(math.exp(float(f @ v) / temperature) for v in alone)
        losses.append(-math.log(math.exp(float(f @ centroids[y]) / temperature) / below))
    return sum(losses) / len(losses)


def naive_update(features, rows, memory, momentum):
    """Equation 4, one image after the other."""
    memory = [row.copy() for row in memory]
    for f, i in zip(features, rows, strict=True):
        memory[i] = unit(momentum * memory[i] + (1 - momentum) * f)
    return memory


def begun(seed=0, **settings):
    """A method in its first epoch, its labels, and a batch of images changed at random."""
    features = naive.make_features(seed)
    method = SpCL(**{**SETTINGS, **settings})
    labels = method.start_epoch(features)
    return method, labels, draw(features, labels, seed)


def draw(features, labels, seed, n=16):
    draws = torch.Generator().manual_seed(seed)
    rows = torch.randint(len(features), (n,), generator=draws)
    rows[-1] = rows[0]  # one image at least is there twice
    seen = F.normalize(features[rows] + 0.2 * torch.randn(n, features.shape[1], generator=draws))
    return Batch(seen, torch.from_numpy(labels)[rows], rows)


# -- labels ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("eps", [0.45, 0.6, 0.7])
@pytest.mark.parametrize("eps_gap", [0.0, 0.02, 0.1, 0.5])
def test_labels_are_those_of_the_definition(seed, eps, eps_gap):
    features = crowd(seed)
    method = SpCL(eps=eps, eps_gap=eps_gap, **SETTINGS)
    labels = method.start_epoch(features)
    alpha, expected = naive_labels(features, eps=eps, eps_gap=eps_gap)
    assert groups_of(labels) == expected
    assert method.alpha == pytest.approx(alpha)


def test_the_cases_of_that_test_hold_what_they_are_to_show():
    """Some clusters dissolve whole, and some lose images."""
    dissolved, smaller = 0, 0
    for seed in range(3):
        features = crowd(seed)
        plain = groups_of(cluster(jaccard_distance(features, **SETTINGS), eps=0.6))
        _, kept = naive_labels(features, eps=0.6, eps_gap=0.1)
        for group in plain:
            left = [g for g in kept if set(g) <= set(group)]
            dissolved += not left
            smaller += bool(left) and left[0] != group
    assert dissolved
    assert smaller


def test_overlap_is_that_of_sets():
    draws = np.random.default_rng(0)
    labels, others = draws.integers(-1, 5, (2, 60))
    expected = []
    for i in range(60):
        own, other = the_set_of(i, labels), the_set_of(i, others)
        expected.append(len(own & other) / len(own | other))
    np.testing.assert_allclose(spcl.overlap(labels, others), expected)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_reliable_clusters_are_those_of_the_definition(seed, alpha):
    draws = np.random.default_rng(seed)
    labels, loose, tight = draws.integers(-1, 6, (3, 40))
    loose[:20], tight[:30] = labels[:20], labels[:30]
    independence = spcl.best_of_clusters(spcl.overlap(labels, loose), labels)
    found = spcl.reliable(labels, independence, spcl.overlap(labels, tight), alpha)
    _, expected = naive_reliable(labels.tolist(), loose.tolist(), tight.tolist(), alpha)
    assert groups_of(found) == expected
    clusters, sizes = np.unique(found[found != OUTLIER], return_counts=True)
    assert clusters.tolist() == list(range(len(expected)))
    assert (sizes >= 2).all()


def test_classes_are_numbered_without_holes_and_images_alone_come_last():
    _, labels, _ = begun(eps_gap=0.1)
    sizes = np.bincount(labels)
    assert sizes.min() == 1
    assert sizes.max() > 1
    assert OUTLIER not in labels
    assert (np.diff((sizes > 1).astype(int)) <= 0).all()


@pytest.mark.parametrize("n", [1, 2, 5, 10, 23, 100])
def test_alpha_keeps_about_nine_in_ten(n):
    scores = np.random.default_rng(n).permutation(n) / n
    kept = int((scores >= spcl.independence_to_keep(scores)).sum())
    assert kept == min(n, round(0.9 * n) + 1)


def test_alpha_is_that_of_the_first_epoch():
    method, _, _ = begun(eps_gap=0.1)
    alpha = method.alpha
    other = naive.make_features(7, noise=0.8)
    method.banks["instances"] = other.clone()
    labels = method.start_epoch(naive.make_features(3))
    own, expected = naive_labels(other, eps=0.6, eps_gap=0.1, alpha=alpha)
    assert own == method.alpha == alpha != naive_labels(other, eps=0.6, eps_gap=0.1)[0]
    assert groups_of(labels) == expected


def test_linked_images_share_a_class_where_theirs_is_dissolved():
    features = crowd(2)
    free = SpCL(eps_gap=0.1, **SETTINGS)
    labels = free.start_epoch(features)
    found, _ = free.label(features)
    alone = np.bincount(labels)[labels] == 1
    pair = next(
        rows[:2]
        for rows in (np.flatnonzero((found == k) & alone) for k in range(found.max() + 1))
        if len(rows) > 1
    )
    linked = SpCL(Known(links=Links(must=pair[None])), eps_gap=0.1, **SETTINGS)
    i, j = linked.start_epoch(features)[pair]
    assert i == j


def test_hdbscan_has_no_eps_so_all_its_clusters_are_reliable():
    features = naive.make_features(1)
    plain = cluster(jaccard_distance(features, **SETTINGS), eps=0.6, algorithm="hdbscan")
    labels = SpCL(clustering="hdbscan", **SETTINGS).start_epoch(features)
    assert groups_of(labels) == groups_of(plain)


@pytest.mark.parametrize("clustering", ["dbscan", "agglomerative"])
@pytest.mark.parametrize("eps", [0.05, 0.99])
def test_eps_and_its_gap_stay_in_range(clustering, eps):
    features = naive.make_features(2, noise=0.05)
    features = torch.cat([features, features])  # twins: some distances are small
    method = SpCL(eps=eps, eps_gap=0.3, clustering=clustering, min_samples=2, **SETTINGS)
    assert method.start_epoch(features).min() == 0


def test_all_outliers_are_refused():
    with pytest.raises(ClusterCollapse, match="all 72 images are outliers"):
        SpCL(k1=4, k2=2, eps=0.0).start_epoch(naive.make_features(0))


# -- memory ---------------------------------------------------------------------------------------


def test_memory_begins_as_the_features_and_is_no_view_of_them():
    features = naive.make_features(0)
    before = features.clone()
    method = SpCL(**SETTINGS)
    labels = method.start_epoch(features)
    assert torch.equal(method.banks["instances"], features)
    expected = naive_centroids(numbers(features), labels.tolist())
    np.testing.assert_allclose(method.centroids, expected, atol=1e-6)
    method.update(draw(features, labels, 0))
    assert torch.equal(features, before)


def test_the_next_epoch_clusters_the_memory_whatever_the_features():
    method, _, batch = begun()
    method.update(batch)
    remembered = method.banks["instances"].clone()
    again = method.start_epoch(naive.make_features(5))
    assert torch.equal(method.banks["instances"], remembered)
    assert groups_of(again) == naive_labels(remembered, eps=0.6, eps_gap=0.02, alpha=method.alpha)[1]


@pytest.mark.parametrize("temperature", [0.05, 0.5])
@pytest.mark.parametrize("seed", [0, 1])
def test_loss_is_that_of_the_definition(seed, temperature):
    method, labels, batch = begun(seed, temperature=temperature)
    found = method.loss(batch)
    expected = naive_loss(
        numbers(batch.features),
        batch.labels.tolist(),
        numbers(method.banks["instances"]),
        labels.tolist(),
        temperature,
    )
    assert list(found) == ["contrast"]
    assert float(found["contrast"]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("momentum", [0.0, 0.2, 0.7, 1.0])
def test_update_is_that_of_the_definition(momentum):
    method, labels, batch = begun(momentum=momentum)
    memory = numbers(method.banks["instances"])
    for seed in (0, 1):
        batch = draw(naive.make_features(0), labels, seed)
        method.update(batch)
        memory = naive_update(numbers(batch.features), batch.rows.tolist(), memory, momentum)
    np.testing.assert_allclose(method.banks["instances"], memory, atol=1e-5)
    np.testing.assert_allclose(method.centroids, naive_centroids(memory, labels.tolist()), atol=1e-5)
    torch.testing.assert_close(method.banks["instances"].norm(dim=1), torch.ones(len(labels)))


def test_an_image_twice_in_a_batch_moves_twice_in_order():
    method, labels, _ = begun()
    start = numbers(method.banks["instances"][5])
    seen = F.normalize(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)))
    rows = torch.tensor([5, 5])
    method.update(Batch(seen, torch.from_numpy(labels)[rows], rows))
    once = unit(0.2 * start + 0.8 * numbers(seen[0]))
    twice = unit(0.2 * once + 0.8 * numbers(seen[1]))
    np.testing.assert_allclose(method.banks["instances"][5], twice, atol=1e-6)


def test_images_and_classes_that_the_batch_lacks_stay():
    method, _, batch = begun()
    memory, centroids = method.banks["instances"].clone(), method.centroids.clone()
    method.update(batch)
    moved = (method.banks["instances"] != memory).any(dim=1)
    assert torch.nonzero(moved).flatten().tolist() == sorted(set(batch.rows.tolist()))
    moved = (method.centroids != centroids).any(dim=1)
    assert torch.nonzero(moved).flatten().tolist() == sorted(set(batch.labels.tolist()))


def test_centroids_kept_up_to_date_are_those_taken_anew():
    method, _, batch = begun()
    method.update(batch)
    kept = method.centroids.clone()
    method._average(torch.arange(len(kept)))
    assert torch.equal(kept, method.centroids)


def test_order_of_a_batch_of_distinct_images_does_not_count():
    there, labels, _ = begun()
    back, _, _ = begun()
    rows = torch.arange(3, 20)
    seen = naive.make_features(9)[rows]
    y = torch.from_numpy(labels)[rows]
    torch.testing.assert_close(
        there.loss(Batch(seen, y, rows)), back.loss(Batch(seen.flip(0), y.flip(0), rows.flip(0)))
    )
    there.update(Batch(seen, y, rows))
    back.update(Batch(seen.flip(0), y.flip(0), rows.flip(0)))
    assert torch.equal(there.banks["instances"], back.banks["instances"])
    assert torch.equal(there.centroids, back.centroids)


def test_gradient_pulls_an_image_to_its_own_class_and_leaves_the_memory():
    method, labels, _ = begun()
    for own in (0, int(labels.max())):  # a cluster, and an image alone
        other = 1
        feature = method.centroids[[other]].clone().requires_grad_()
        method.loss(Batch(feature, torch.tensor([own])))["contrast"].backward()
        pull = method.centroids[own] - method.centroids[other]
        assert float(feature.grad[0] @ pull) < 0
        assert not method.banks["instances"].requires_grad
        assert not method.centroids.requires_grad


def test_half_precision_is_taken_as_float32():
    features = naive.make_features(0).bfloat16()
    method = SpCL(**SETTINGS)
    batch = draw(features.float(), method.start_epoch(features), 0)
    batch = Batch(batch.features.bfloat16(), batch.labels, batch.rows)
    assert method.loss(batch)["contrast"].dtype == torch.float32
    method.update(batch)
    assert method.banks["instances"].dtype == method.centroids.dtype == torch.float32


# -- what continues it ----------------------------------------------------------------------------


def test_a_method_that_continues_from_its_state_goes_on_to_the_digit():
    through = SpCL(eps_gap=0.1, **SETTINGS)
    through.start_epoch(crowd(0))
    remembered = crowd(1)[: len(crowd(0))]  # by itself it would have another alpha
    assert through.alpha != naive_labels(remembered, eps=0.6, eps_gap=0.1)[0]
    through.banks["instances"].copy_(remembered)
    state = through.state()
    fresh = SpCL(eps_gap=0.1, **SETTINGS)
    fresh.load({name: value.clone() for name, value in state.items()})
    for method in (through, fresh):
        labels = method.start_epoch(naive.make_features(4))
        for seed in (1, 2):
            method.update(draw(crowd(0), labels, seed))
    assert fresh.alpha == through.alpha
    assert torch.equal(fresh.banks["instances"], through.banks["instances"])
    assert torch.equal(fresh.centroids, through.centroids)
    assert torch.equal(fresh.classes, through.classes)


def test_a_state_does_not_move_with_the_memory():
    method, labels, batch = begun()
    state = method.state()
    before = state["instances"].clone()
    method.update(batch)
    assert torch.equal(state["instances"], before)
    fresh = SpCL(**SETTINGS)
    fresh.load(state)
    fresh.start_epoch(naive.make_features(0))
    fresh.update(draw(naive.make_features(0), labels, 3))
    assert torch.equal(state["instances"], before)


def test_before_the_first_epoch_there_is_no_state():
    method = SpCL(**SETTINGS)
    assert method.state() == {}
    method.load({})
    assert method.start_epoch(naive.make_features(0)).min() == 0
