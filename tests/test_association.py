"""Tracklets to individuals: who is known to be apart, thresholds without labels, identities, IDF1."""

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import naive
from gracl.agreement import score_identification
from gracl.association import (
    THRESHOLD,
    TrackletFeatures,
    associate,
    choose_threshold,
    gather_tracklets,
)
from gracl.errors import ConfigError, LinkConflict, ShapeError
from gracl.links import Links, number_by_first
from gracl.presence import known_apart

ALGORITHMS = ["cosine", "jaccard", "dbscan"]


def people(seed=0, identities=12, tracklets=5, noise=0.35):
    """Tracklets of people: (TrackletFeatures, who each is), each person once at a time and place."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(identities, 16))
    pids = np.repeat(np.arange(identities), tracklets)
    n = len(pids)
    images = centres[pids, None] + noise * random.normal(size=(n, 4, 16))
    rows = torch.nn.functional.normalize(torch.tensor(images, dtype=torch.float32), dim=2)
    cameras = [f"c{k % tracklets}" for k in range(n)]
    starts = random.uniform(0, 100, n)
    seen = [(cameras[k], k, float(starts[k]) + step) for k in range(n) for step in range(4)]
    return gather_tracklets(seen, rows.flatten(0, 1)), pids


# -- who is known to be apart ---------------------------------------------------------------------


@st.composite
def visits(draw):
    n = draw(st.integers(0, 9))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    cameras = [[None, "a", "b", "c"][k] for k in random.integers(0, 4, n)]
    first = random.integers(0, 12, n).astype(float)
    last = first + random.integers(0, 5, n)
    first[random.random(n) < 0.1] = math.nan
    seen = {camera for camera in cameras if camera}
    ways = [(a, b) for a in seen for b in seen if a != b and random.random() < 0.5]
    return cameras, first, last, {way: float(random.integers(0, 6)) for way in ways}


@given(visits())
def test_pairs_known_to_be_apart_are_the_twins(visit):
    cameras, first, last, travel = visit
    found = known_apart(len(cameras), cameras=cameras, first=first, last=last, travel=travel)
    assert found.tolist() == naive.known_apart(cameras, first, last, travel)


def test_one_frame_in_common_is_overlap_and_the_least_time_exactly_is_enough():
    assert len(known_apart(2, cameras=["a", "a"], first=[0, 9], last=[9, 12])) == 1
    assert len(known_apart(2, cameras=["a", "a"], first=[0, 10], last=[9, 12])) == 0
    way = {("a", "b"): 10.0}
    assert len(known_apart(2, cameras=["a", "b"], first=[0, 19], last=[9, 30], travel=way)) == 0
    assert len(known_apart(2, cameras=["b", "a"], first=[0, 10], last=[9, 30], travel=way)) == 0


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"cameras": ["a"]}, "1 cameras for 2 tracklets"),
        ({"first": [0.0], "last": [1.0]}, r"shapes \(1,\) and \(1,\)"),
        ({"first": [0, 5], "last": [1, 4]}, "tracklet 1 ends at 4, before it begins at 5"),
        ({"cameras": ["a", "b"], "travel": {("a", "x"): 3}}, "no tracklet is of x"),
        ({"cameras": ["a", "b"], "travel": {("a", "b"): -3}}, "expected 0 or more"),
    ],
)
def test_facts_that_do_not_fit_are_refused(facts, message):
    with pytest.raises(ShapeError, match=message):
        known_apart(2, **facts)


# -- identities -----------------------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_people_are_found_again(algorithm):
    seen, pids = people()
    found = associate(seen, algorithm=algorithm, k1=6)
    assert score_identification(found.identities, pids).idf1 > 0.9
    assert found.algorithm == algorithm
    assert (found.threshold is not None) == (algorithm == "cosine")


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_who_is_seen_side_by_side_is_never_one(algorithm):
    seen, _ = people(noise=3)
    alike = replace(seen, features=torch.ones_like(seen.features) / 4)
    for tracklets in (seen, alike):
        found = associate(tracklets, algorithm=algorithm)
        apart = known_apart(len(seen), cameras=seen.cameras, first=seen.first, last=seen.last)
        assert len(apart) > 20
        assert (found.identities[apart[:, 0]] != found.identities[apart[:, 1]]).all()


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_links_of_a_user_are_kept_and_contradictions_named(algorithm):
    seen, _ = people()
    must, cannot = np.array([[0, 7], [7, 12]]), np.array([[1, 2], [3, 4]])
    free = replace(seen, first=None, last=None)
    found = associate(free, algorithm=algorithm, links=Links(must, cannot)).identities
    assert found[0] == found[7] == found[12]
    assert found[1] != found[2]
    assert found[3] != found[4]
    both = replace(seen, first=np.zeros(60), last=np.ones(60))
    with pytest.raises(LinkConflict, match="track 0 of c0"):
        associate(both, algorithm=algorithm, links=Links(must=np.array([[0, 5]])))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_identities_do_not_depend_on_the_order_and_are_numbered_by_it(algorithm):
    seen, _ = people(noise=0.8)
    found = associate(seen, algorithm=algorithm)
    order = np.random.default_rng(5).permutation(len(seen))
    turned = TrackletFeatures(
        seen.features[order],
        cameras=[seen.cameras[k] for k in order],
        first=seen.first[order],
        last=seen.last[order],
        halves=seen.halves[order],
    )
    again = associate(turned, algorithm=algorithm)
    assert (again.identities - 1).tolist() == number_by_first(found.identities[order]).tolist()
    assert again.sizes.tolist() == found.sizes[order].tolist()
    assert found.n_identities == len(set(found.identities.tolist()))


def test_similarities_are_means_to_the_others_of_the_identity():
    seen, _ = people(noise=0.8)
    found = associate(seen)
    rows = seen.features.numpy()
    for row in range(len(seen)):
        others = np.flatnonzero(found.identities == found.identities[row])
        others = others[others != row]
        assert found.sizes[row] == len(others) + 1
        if len(others):
            assert found.similarities[row] == pytest.approx((rows[others] @ rows[row]).mean(), abs=1e-5)
        else:
            assert math.isnan(found.similarities[row])


def test_a_threshold_is_a_number_or_whatever_has_one():
    seen, _ = people()
    number = associate(seen, threshold=0.55)
    calibrated = associate(seen, threshold=SimpleNamespace(threshold=0.55, fingerprint="x"))
    assert number.identities.tolist() == calibrated.identities.tolist()
    assert number.algorithm == calibrated.algorithm == "cosine"
    with pytest.raises(ConfigError, match="expected a cosine similarity"):
        associate(seen, threshold=55)
    with pytest.raises(ConfigError, match="'jaccard' has no threshold"):
        associate(seen, threshold=0.5, algorithm="jaccard")
    with pytest.raises(ConfigError, match="did you mean 'cosine'"):
        associate(seen, algorithm="cosin")


def test_no_tracklet_and_one_are_what_they_are():
    assert len(associate(torch.zeros(0, 4))) == 0
    assert associate(torch.zeros(0, 4)).n_identities == 0
    for algorithm in ALGORITHMS:
        found = associate(torch.eye(4)[:1], algorithm=algorithm)
        assert (found.identities.tolist(), found.sizes.tolist()) == ([1], [1])


def test_without_cameras_only_looks_count():
    rows = torch.eye(3)[[0, 0, 1]]
    found = associate(TrackletFeatures(rows, first=[0, 0, 0], last=[9, 9, 9]), threshold=0.5)
    assert found.identities.tolist() == [1, 1, 2]


def test_when_all_overlap_all_are_different():
    rows = torch.eye(3)[[0, 0, 0, 0]]
    seen = TrackletFeatures(rows, cameras=["a"] * 4, first=[0] * 4, last=[9] * 4)
    assert associate(seen, threshold=0.5).identities.tolist() == [1, 2, 3, 4]


def test_a_tracklet_without_an_image_is_alone():
    rows = torch.cat([torch.eye(3)[[0, 0]], torch.zeros(2, 3)])
    for algorithm in ALGORITHMS:
        assert associate(rows, algorithm=algorithm).identities.tolist() == [1, 1, 2, 3]


# -- gathering and thresholds ---------------------------------------------------------------------


def test_tracklets_are_gathered_from_images():
    rows = torch.nn.functional.normalize(torch.randn(7, 5, generator=torch.Generator().manual_seed(0)))
    seen = [
        ("a", 1, 3),
        ("b", 1, 9),
        ("a", 1, 4),
        ("a", 1, 8),
        ("b", 1, 2),
        ("a", 2, math.nan),
        ("a", 1, 5),
    ]
    found = gather_tracklets(seen, rows)
    assert list(zip(found.cameras, found.tracks, strict=True)) == [("a", 1), ("b", 1), ("a", 2)]
    assert found.images.tolist() == [4, 2, 1]
    assert found.first.tolist()[:2] == [3, 2]
    assert found.last.tolist()[:2] == [8, 9]
    assert math.isnan(found.first[2])
    unit = torch.nn.functional.normalize
    torch.testing.assert_close(found.features[0], unit(rows[[0, 2, 3, 6]].mean(0), dim=0))
    torch.testing.assert_close(found.halves[0, 0], unit(rows[[0, 2]].mean(0), dim=0))
    torch.testing.assert_close(found.halves[0, 1], unit(rows[[3, 6]].mean(0), dim=0))
    assert found.halves[2].tolist() == [[0] * 5, [0] * 5]
    with pytest.raises(ShapeError, match="7 rows of features for 6 images"):
        gather_tracklets(seen[:6], rows)


def test_a_threshold_lies_between_halves_and_those_known_apart():
    seen, pids = people(noise=0.2, tracklets=8)
    apart = known_apart(len(seen), cameras=seen.cameras, first=seen.first, last=seen.last)
    level, words = choose_threshold(seen, Links(cannot=apart))
    similarity = (seen.features @ seen.features.T).numpy()
    different = similarity[pids[:, None] != pids]
    halves = (seen.halves[:, 0] * seen.halves[:, 1]).sum(1).numpy()
    assert np.quantile(different, 0.97) < level < np.quantile(halves, 0.03)
    assert f"96 tracklets of two halves and {len(apart)} pairs known to be apart" in words
    assert len(apart) >= 30
    assert "all 4560 pairs" in choose_threshold(seen)[1]


def test_where_nothing_can_be_learnt_the_threshold_is_the_default():
    level, words = choose_threshold(TrackletFeatures(torch.eye(5)))
    assert level == THRESHOLD
    assert "0 tracklets have two images" in words
    assert choose_threshold(TrackletFeatures(torch.zeros(0, 5)))[0] == THRESHOLD


# -- IDF1 -----------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(0, 14))
def test_idf1_is_that_of_the_twin(seed, n):
    random = np.random.default_rng(seed)
    labels, pids = random.integers(-1, 4, n), random.integers(-1, 4, n)
    boxes = random.integers(1, 9, n)
    found = score_identification(labels, pids, boxes)
    expected = naive.identification(labels.tolist(), pids.tolist(), boxes.tolist())
    assert (found.idf1, found.idp, found.idr) == pytest.approx(expected)


def test_perfect_identities_score_1_whatever_their_numbers():
    pids = np.array([4, 4, 2, 9])
    assert score_identification(np.array([1, 1, 3, 2]), pids).idf1 == 1
    assert score_identification(np.array([1, 1, 1, 1]), pids).idf1 == 0.5
    with pytest.raises(ShapeError, match="expected the same"):
        score_identification(pids, pids, pids[:2])
