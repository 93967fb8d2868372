"""Open-set scores against their definitions, thresholds chosen without the queries, and the tables."""

import csv

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import naive
from gracl.errors import DataError, EvaluationError, ShapeError
from gracl.metrics import Side, cosine
from gracl.openset import (
    NEW_INDIVIDUAL,
    Nearest,
    answers,
    choose_threshold,
    nearest,
    score_open_set,
    write_answers,
    write_clusters,
)


def given_similarity(matrix):
    tensor = torch.as_tensor(np.array(matrix), dtype=torch.float32)
    return lambda start, stop: tensor[start:stop]


def side(pids, first_image=0, scenes=None):
    scenes = None if scenes is None else np.array(scenes)
    return Side(np.array(pids, dtype=np.int64), first_image + np.arange(len(pids)), scenes)


def random_problem(seed):
    """Identities 0 to 5 are asked for, of which some are in the gallery, all similarities with ties."""
    random = np.random.default_rng(seed)
    query_pids = np.concatenate([[0, 5], random.integers(0, 6, random.integers(0, 15))])
    gallery_pids = np.concatenate([[0], random.integers(0, 5, random.integers(0, 12))])
    similarity = random.integers(0, 8, (len(query_pids), len(gallery_pids))) / 8
    return similarity, query_pids, gallery_pids


@given(
    seed=st.integers(0, 9999),
    threshold=st.sampled_from([-1.0, 0.25, 0.5, 0.8, 2.0]),
    memory=st.sampled_from([1, 2**20]),
)
def test_scores_equal_their_naive_twins(seed, threshold, memory):
    similarity, query_pids, gallery_pids = random_problem(seed)
    queries, gallery = side(query_pids), side(gallery_pids, first_image=100)
    found = nearest(given_similarity(similarity), queries, gallery, memory=memory)
    scores = score_open_set(found, queries, gallery, threshold=threshold)
    expected = naive.open_set_scores(similarity, query_pids.tolist(), gallery_pids.tolist(), threshold)
    assert (scores.baks, scores.baus, scores.auroc) == pytest.approx(expected)
    assert scores.geometric_mean == pytest.approx((expected[0] * expected[1]) ** 0.5)
    assert scores.n_known + scores.n_new == len(query_pids)


@given(seed=st.integers(0, 9999))
def test_order_of_queries_does_not_change_scores(seed):
    similarity, query_pids, gallery_pids = random_problem(seed)
    gallery = side(gallery_pids, first_image=100)
    order = np.random.default_rng(seed).permutation(len(query_pids))
    results = []
    for rows in (np.arange(len(order)), order):
        queries = side(query_pids[rows])
        found = nearest(given_similarity(similarity[rows]), queries, gallery)
        results.append(vars(score_open_set(found, queries, gallery, threshold=0.5)))
    assert results[0] == pytest.approx(results[1])


@pytest.mark.parametrize(("sign", "auroc"), [(1, 1), (-1, 0)])
def test_perfect_and_worst(sign, auroc):
    queries, gallery = side([0, 1, 7, 7]), side([0, 1], first_image=9)
    similarity = sign * np.array([[0.9, 0.1], [0.1, 0.9], [0.2, 0.1], [0.1, 0.3]])
    found = nearest(given_similarity(similarity), queries, gallery)
    scores = score_open_set(found, queries, gallery, threshold=sign * 0.5)
    if sign > 0:
        assert (scores.baks, scores.baus, scores.auroc) == (1, 1, 1)
    else:
        assert (scores.baks, scores.baus) == (0, 0)
        assert scores.auroc == 0.5  # all nearest are equally near: -0.1


def test_calling_everything_new_scores_nothing():
    queries, gallery = side([0, 7]), side([0], first_image=9)
    found = nearest(given_similarity([[0.9], [0.1]]), queries, gallery)
    scores = score_open_set(found, queries, gallery, threshold=2.0)
    assert (scores.baks, scores.baus, scores.geometric_mean) == (0, 1, 0)


def test_individuals_count_alike_however_many_queries_they_have():
    queries, gallery = side([0, 0, 0, 1, 7, 7, 7, 8]), side([0, 1], first_image=9)
    found = Nearest(
        np.array([0, 0, 0, 0, 0, 0, 0, 0]), np.array([0.9, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.9])
    )
    scores = score_open_set(found, queries, gallery, threshold=0.5)
    assert (scores.baks, scores.baus) == pytest.approx(((2 / 3 + 0) / 2, (2 / 3 + 0) / 2))


def test_a_similarity_at_the_threshold_is_accepted():
    queries, gallery = side([0, 7]), side([0], first_image=9)
    found = Nearest(np.array([0, 0]), np.array([0.5, 0.4]))
    assert score_open_set(found, queries, gallery, threshold=0.5).baks == 1
    assert answers(found, ["Ada"], threshold=0.5) == ["Ada", NEW_INDIVIDUAL]


def test_of_images_as_near_the_first_answers():
    found = nearest(given_similarity([[0.5, 0.5]]), side([0]), side([1, 0], first_image=9))
    assert found.rows.tolist() == [0]


def test_the_own_image_junk_and_nameless_images_do_not_answer():
    queries = Side(np.array([0, 0]), np.array([0, 1]), np.array([3, 3]))
    gallery = Side(np.array([0, 0, -1, 0, 1]), np.array([0, 5, 6, 7, 8]), np.array([4, 3, 4, 4, 3]))
    found = nearest(given_similarity([[0.9, 0.8, 0.7, 0.2, 0.1]] * 2), queries, gallery)
    assert found.rows.tolist() == [3, 0]


@pytest.mark.parametrize("gallery_pids", [[], [-1, -1]])
def test_where_nothing_may_answer_the_query_is_called_new(gallery_pids):
    gallery = side(gallery_pids, first_image=9)
    found = nearest(given_similarity(np.ones((2, len(gallery_pids)))), side([0, 1]), gallery)
    assert (found.rows.tolist(), found.similarities.tolist()) == ([-1, -1], [-np.inf, -np.inf])
    assert answers(found, [None] * len(gallery_pids), threshold=-np.inf) == [NEW_INDIVIDUAL] * 2


def test_a_query_left_without_an_answer_is_new_at_any_threshold():
    queries = Side(np.array([0, 7]), np.array([0, 1]))
    gallery = Side(np.array([0, 7]), np.array([5, 1]))  # the second query's own image
    found = Nearest(np.array([0, -1]), np.array([0.3, -np.inf]))
    scores = score_open_set(found, queries, gallery, threshold=-np.inf)
    assert (scores.baks, scores.baus, scores.auroc) == (1, 1, 1)


def test_queries_of_unknown_identity_are_left_out():
    queries, gallery = side([0, 7, -1]), side([0], first_image=9)
    found = Nearest(np.array([0, 0, 0]), np.array([0.9, 0.1, 0.9]))
    scores = score_open_set(found, queries, gallery, threshold=0.5)
    assert (scores.baus, scores.n_known, scores.n_new) == (1, 1, 1)


@pytest.mark.parametrize(("pids", "counts"), [([0, 0], "2 and 0"), ([7], "0 and 1"), ([-1], "0 and 0")])
def test_known_and_new_queries_are_both_needed(pids, counts):
    queries, gallery = side(pids), side([0], first_image=9)
    found = nearest(given_similarity(np.ones((len(pids), 1))), queries, gallery)
    with pytest.raises(EvaluationError, match=f"found {counts}"):
        score_open_set(found, queries, gallery, threshold=0.5)


def test_nan_is_refused():
    similarity = given_similarity([[0.1], [np.nan]])
    with pytest.raises(ShapeError, match="queries 1 to 1 hold NaN"):
        nearest(similarity, side([0, 1]), side([0], first_image=9), memory=1)


# -- thresholds -----------------------------------------------------------------------------------


def random_gallery(seed):
    random = np.random.default_rng(seed)
    pids = np.concatenate([[0, 0, 1], random.integers(0, 4, random.integers(0, 12))])
    similarity = random.integers(0, 12, (len(pids), len(pids))) / 12
    return (similarity + similarity.T) / 2, pids


@given(seed=st.integers(0, 9999), memory=st.sampled_from([1, 2**20]))
def test_no_threshold_serves_the_gallery_better_than_the_chosen(seed, memory):
    similarity, pids = random_gallery(seed)
    chosen = choose_threshold(given_similarity(similarity), side(pids), memory=memory)
    similarity = similarity.astype(np.float32).astype(np.float64)
    best = max(naive.calibration(similarity, pids, t) for t in np.arange(-0.02, 1.1, 1 / 48))
    assert naive.calibration(similarity, pids, chosen) == pytest.approx(best)


def test_the_threshold_lies_midway_between_what_it_separates():
    similarity = [[1, 0.9, 0.1, 0.2], [0.9, 1, 0.2, 0.1], [0.1, 0.2, 1, 0.8], [0.2, 0.1, 0.8, 1]]
    chosen = choose_threshold(given_similarity(similarity), side([0, 0, 1, 1]))
    assert chosen == pytest.approx((0.2 + 0.8) / 2)


def test_a_match_that_ties_with_a_stranger_counts_as_wrong():
    """The third image's: were it right, 0.15 would serve as well as 0.25."""
    similarity = [
        [0.9, 0.3, 0.2, 0.1],
        [0.3, 0.9, 0.2, 0.4],
        [0.2, 0.2, 0.9, 0.2],
        [0.1, 0.4, 0.2, 0.9],
    ]
    chosen = choose_threshold(given_similarity(similarity), side([0, 0, 0, 1]))
    assert chosen == pytest.approx(0.25)


def test_nameless_gallery_images_have_no_part_in_the_threshold():
    random = np.random.default_rng(0)
    features = torch.nn.functional.normalize(torch.tensor(random.normal(size=(12, 4))))
    pids = np.array([0, 0, 0, 1, 1, 1, 2, 2, -1, -1, -1, -1])
    named = choose_threshold(cosine(features[:8], features[:8]), side(pids[:8]))
    assert choose_threshold(cosine(features, features), side(pids)) == named


def test_constant_similarities_still_give_a_threshold():
    assert choose_threshold(given_similarity(np.ones((3, 3))), side([0, 0, 1])) == 1


@pytest.mark.parametrize("pids", [[], [0, 0, 0], [0, 1, 2], [-1, -1], [0, 0, -1]])
def test_a_gallery_that_tells_nothing_is_refused(pids):
    similarity = given_similarity(np.eye(len(pids)))
    with pytest.raises(EvaluationError, match="Give a threshold"):
        choose_threshold(similarity, side(pids))


# -- tables ---------------------------------------------------------------------------------------


def read(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_answers_are_written_in_order(tmp_path):
    write_answers(tmp_path / "a.csv", [7, 3], ["LynxID2025_lynx,ü", NEW_INDIVIDUAL])
    expected = [["image_id", "identity"], ["7", "LynxID2025_lynx,ü"], ["3", "new_individual"]]
    assert read(tmp_path / "a.csv") == expected


def test_each_outlier_is_written_as_a_cluster_of_its_own(tmp_path):
    labels = np.array([4, -1, 4, -1, 0])
    write_clusters(tmp_path / "c.csv", range(5), labels, prefix="cluster_LynxID2025")
    rows = read(tmp_path / "c.csv")
    assert rows[0] == ["image_id", "cluster"]
    assert [row[1] for row in rows[1:]] == [f"cluster_LynxID2025_{n}" for n in (0, 1, 0, 2, 3)]


def test_no_images_make_a_table_of_no_rows(tmp_path):
    write_clusters(tmp_path / "c.csv", [], np.zeros(0, dtype=np.int64))
    assert read(tmp_path / "c.csv") == [["image_id", "cluster"]]


def test_what_is_wrong_with_a_table_is_said(tmp_path):
    with pytest.raises(ShapeError, match="1 image ids for 2 rows"):
        write_answers(tmp_path / "a.csv", [1], ["x", "y"])
    with pytest.raises(DataError, match="image_id '1' stands twice"):
        write_answers(tmp_path / "a.csv", [1, "1"], ["x", "y"])
    with pytest.raises(DataError, match="cannot write"):
        write_answers(tmp_path / "none" / "a.csv", [1], ["x"])
