"""Rank lists, against a loop over the gallery."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from gracl import metrics
from gracl.config import EvaluateConfig
from gracl.data import protocols
from gracl.data.records import Record, Records
from gracl.rank_lists import Searched, search


def crowd(seed, queries=6, gallery=14, ties=False):
    """Queries and gallery of three people by two cameras, and one of nobody known."""
    random = np.random.default_rng(seed)

    def side(name, count):
        return Records(
            tuple(
                Record(
                    Path(f"{name}{n}.png"),
                    identity=None if n == 3 else str(random.integers(3)),
                    camera=str(random.integers(2)),
                )
                for n in range(count)
            )
        )

    sides = side("q", queries), side("g", gallery)
    rows = [torch.tensor(random.normal(size=(len(s), 4)), dtype=torch.float32) for s in sides]
    features = [F.normalize(row.sign() if ties else row) for row in rows]
    found = protocols.sides(*sides, "cross-camera")
    return Searched(*sides, *features, found, protocols.find("cross-camera"))


def by_hand(searched, row):
    """(record, right, similarity) of a query's list, from the definition."""
    query = searched.query[row]
    listed = []
    for at, record in enumerate(searched.gallery):
        own = query.identity is not None and record.identity == query.identity
        if own and record.camera == query.camera:
            continue  # junk
        listed.append(
            (record, own, float(searched.query_features[row] @ searched.gallery_features[at]))
        )
    return sorted(listed, key=lambda item: (-item[2], item[1]))


@given(st.integers(0, 10_000), st.booleans())
def test_a_list_is_the_gallery_by_similarity_without_junk(seed, ties):
    searched = crowd(seed, ties=ties)
    rows = np.arange(len(searched.query))
    for row, found in zip(rows, searched.lists(rows, matches=99), strict=True):
        expected = by_hand(searched, row)
        assert found.query == searched.query[row]
        assert [m.right for m in found.matches] == [own for _, own, _ in expected]
        values = [value for *_, value in expected]
        assert np.allclose([m.similarity for m in found.matches], values, atol=1e-6)
        if not ties:
            assert [m.record for m in found.matches] == [record for record, *_ in expected]


@given(st.integers(0, 10_000))
def test_the_ranks_in_the_lists_give_the_average_precision(seed):
    searched = crowd(seed, ties=True)  # ties count against the query in both
    for row in searched.able.tolist():
        (found,) = searched.lists(np.array([row]), matches=99)
        places = np.flatnonzero([m.right for m in found.matches]) + 1
        precision = np.mean(np.arange(1, len(places) + 1) / places)
        assert searched.average_precision_of(row) == pytest.approx(precision)


@given(st.integers(0, 10_000))
def test_the_hardest_are_no_easier_than_any_other(seed):
    searched = crowd(seed)
    worst, best = searched.hardest(2), searched.easiest(2)
    of = searched.average_precision_of
    assert all(of(row) <= of(other) for row in worst[:1] for other in searched.able)
    assert all(of(row) >= of(other) for row in best[:1] for other in searched.able)
    assert [of(row) for row in worst] == sorted(of(row) for row in worst)


def test_a_list_is_no_longer_than_asked_and_as_long_as_there_are_images():
    searched = crowd(1)
    assert [len(one.matches) for one in searched.lists(searched.able, matches=3)] == [3] * len(
        searched.able
    )
    assert len(searched.lists(np.array([3]), matches=99)[0].matches) == 14  # nobody known: no junk


def test_known_features_are_not_extracted_again(small_run, monkeypatch):
    from gracl.data.readers import load_dataset
    from gracl.study import open_study

    study = open_study(small_run)
    folder = load_dataset("csv", study.dataset.root / "metadata.csv")
    alone = type(folder)(folder.name, folder.root, folder.layout, folder.train)
    expected = search(study.run.model, alone, EvaluateConfig())
    monkeypatch.setattr("gracl.rank_lists.extract", None)
    found = search(study.run.model, alone, EvaluateConfig(), features=study.features)
    assert found.query_features is found.gallery_features
    assert torch.allclose(found.query_features, expected.query_features, atol=1e-6)
    assert found.ranking.ranks.tolist() == expected.ranking.ranks.tolist()


def test_the_lists_stand_under_the_protocol_of_the_scores(small_run):
    from gracl.study import open_study

    study = open_study(small_run)
    found = search(study.run.model, study.dataset, study.config.evaluate)
    scores = study.run.after["scores"]
    assert str(found.protocol) == scores["protocol"]
    assert found.ranking.scores("").mAP == pytest.approx(scores["mAP"], abs=1e-6)
    assert metrics.has_match(*found.sides).sum() == scores["n_queries"] - scores["n_without_match"]
