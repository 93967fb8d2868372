from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gracl.data.sampler import ClusterSampler
from gracl.errors import ShapeError


def make_labels(sizes, outliers=3, seed=0):
    """Shuffled labels with gaps between their numbers, and outliers."""
    labels = [3 * label for label, size in enumerate(sizes) for _ in range(size)]
    return np.random.default_rng(seed).permutation(np.array(labels + [-1] * outliers))


def make_sampler(labels, p=4, k=3, steps=7, cameras=None, seed=(0, 0)):
    return ClusterSampler(
        labels,
        clusters_per_batch=p,
        images_per_cluster=k,
        steps=steps,
        cameras=cameras,
        seed=seed,
    )


problems = given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=9),
    p=st.integers(1, 11),
    k=st.integers(1, 5),
    steps=st.integers(1, 12),
    seed=st.integers(0, 99),
)


@problems
def test_a_batch_is_p_distinct_clusters_of_k_images_in_blocks(sizes, p, k, steps, seed):
    labels = make_labels(sizes)
    sampler = make_sampler(labels, p, k, steps, seed=(seed,))
    batches = list(sampler)
    assert len(batches) == len(sampler) == steps
    lone = [label for label in set(labels.tolist()) - {-1} if (labels == label).sum() == 1]
    places = len(sizes) - len(lone) + -(-len(lone) // k)
    for batch in batches:
        blocks = labels[batch].reshape(min(p, places), k)
        for block in blocks:
            assert len(set(block)) == 1 or set(block) <= set(lone)
        assert sum(len(set(block)) for block in blocks) == len(set(blocks.reshape(-1)))
        assert (blocks >= 0).all()


@problems
def test_clusters_are_used_equally_to_within_one_at_every_step(sizes, p, k, steps, seed):
    labels = make_labels(sizes)
    used = Counter(dict.fromkeys(labels[labels >= 0].tolist(), 0))
    for batch in make_sampler(labels, p, k, steps, seed=(seed,)):
        used.update({*labels[batch].tolist()})
        assert max(used.values()) - min(used.values()) <= 1


@problems
def test_images_repeat_only_in_clusters_smaller_than_k_and_then_equally(sizes, p, k, steps, seed):
    labels = make_labels(sizes)
    for batch in make_sampler(labels, p, k, steps, seed=(seed,)):
        for images in batch.reshape(-1, k):
            members = np.flatnonzero(np.isin(labels, labels[images]))
            times = [int((images == member).sum()) for member in members]
            assert max(times) - min(times) <= 1


@given(
    sizes=st.lists(st.integers(1, 7), min_size=1, max_size=6),
    k=st.integers(1, 6),
    seed=st.integers(0, 99),
)
def test_partners_come_from_other_cameras_until_these_run_out(sizes, k, seed):
    labels = make_labels(sizes)
    cameras = np.random.default_rng(seed).integers(-1, 3, len(labels))
    for batch in make_sampler(labels, p=3, k=k, cameras=cameras, seed=(seed,)):
        for images in batch.reshape(-1, k):
            members = np.isin(labels, labels[images])
            camera = cameras[images[0]]
            other = members & ((cameras != camera) | (camera < 0))
            other[images[0]] = False
            wanted = min(int(other.sum()), k - 1)
            assert other[images[1 : 1 + wanted]].all()


def test_lone_images_share_places_and_are_not_copied():
    labels = np.array([0, 0, 0, *range(1, 9)])  # eight clusters of one image
    sampler = make_sampler(labels, p=3, k=4, steps=60)
    assert sampler.clusters_per_batch == 3  # one cluster, and two places of four lone images
    for batch in sampler:
        assert sorted(set(labels[batch].tolist())) == list(range(9))
        assert len(set(batch.tolist())) == 3 + 8


def test_lone_images_alone_are_batches_too():
    labels = np.arange(10)
    for batch in make_sampler(labels, p=2, k=3, steps=9):
        assert len(batch) == 6
        assert len(set(batch.tolist())) in (4, 5, 6)  # the places have three, three, two and two


def test_without_cameras_partners_come_from_any():
    labels = np.zeros(12, dtype=np.int64)
    batches = np.stack(list(make_sampler(labels, p=1, k=4, steps=200)))
    assert set(batches.ravel().tolist()) == set(range(12))
    share_below_six = (batches < 6).mean()
    assert 0.4 < share_below_six < 0.6


def test_first_images_are_drawn_evenly_though_cameras_are_not():
    labels, cameras = np.zeros(10, dtype=np.int64), np.array([0] * 9 + [1])
    first = [batch[0] for batch in make_sampler(labels, 1, 2, steps=2000, cameras=cameras)]
    counts = np.bincount(first, minlength=10)
    assert counts.min() > 140
    assert counts.max() < 260


def test_an_image_of_unknown_camera_takes_any_partner():
    """Another unknown camera might be another one: it stands behind no known camera."""
    labels, cameras = np.zeros(10, dtype=np.int64), np.array([-1] * 5 + [0] * 5)
    batches = np.stack(list(make_sampler(labels, 1, 2, steps=2000, cameras=cameras)))
    partners = cameras[batches[cameras[batches[:, 0]] == -1, 1]]
    assert (partners == -1).mean() == pytest.approx(4 / 9, abs=0.05)


def test_fewer_clusters_than_p_are_all_in_each_batch():
    labels = make_labels([4, 4, 4])
    for batch in make_sampler(labels, p=16, k=4):
        assert sorted(batch.tolist()) == np.flatnonzero(labels >= 0).tolist()


def test_the_same_seed_gives_the_same_batches_each_time():
    labels = make_labels([5] * 6)
    one, two = make_sampler(labels, seed=(3, 1)), make_sampler(labels, seed=(3, 1))
    batches = np.stack(list(one))
    assert np.array_equal(batches, np.stack(list(one)))
    assert np.array_equal(batches, np.stack(list(two)))


@pytest.mark.parametrize("other", [(3, 2), (4, 1), (1, 3)])
def test_another_seed_or_epoch_gives_other_batches(other):
    labels = make_labels([5] * 6)
    batches = np.stack(list(make_sampler(labels, seed=(3, 1))))
    assert not np.array_equal(batches, np.stack(list(make_sampler(labels, seed=other))))


def test_global_random_state_is_neither_read_nor_moved():
    labels = make_labels([5] * 6)
    np.random.seed(0)
    before = np.random.get_state()[1].tolist()
    batches = np.stack(list(make_sampler(labels)))
    assert np.random.get_state()[1].tolist() == before
    np.random.seed(1)
    assert np.array_equal(batches, np.stack(list(make_sampler(labels))))


def test_nothing_but_outliers_is_refused():
    with pytest.raises(ShapeError, match="no image has a cluster"):
        make_sampler(np.array([-1, -1]))


@pytest.mark.parametrize("wrong", [{"p": 0}, {"k": 0}, {"steps": 0}])
def test_sizes_below_one_are_refused(wrong):
    with pytest.raises(ShapeError, match="each must be at least 1"):
        make_sampler(np.array([0, 1]), **wrong)
