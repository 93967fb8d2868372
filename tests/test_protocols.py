"""Named protocols: what each draws, what it takes for a match, and what it refuses."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gracl.data import protocols
from gracl.data.protocols import BENCHMARKS, PROTOCOLS, choose, draws, sides, why_not_stricter
from gracl.data.records import Record, Records
from gracl.errors import EvaluationError
from gracl.metrics import Side, has_match, junk

DRAWN = [name for name, protocol in BENCHMARKS.items() if protocol.draw is not None]


def records(*rows):
    """(identity, camera) each."""
    return Records(tuple(Record(Path(f"{n}"), *row[:1], camera=row[1]) for n, row in enumerate(rows)))


def random_sides(seed):
    """Query and gallery that share some images, with unknown identities and cameras."""
    random = np.random.default_rng(seed)
    n = random.integers(4, 40)
    pids, scenes = random.integers(-1, 5, n), random.integers(-1, 3, n)
    everything = Side(pids, np.arange(n), scenes)
    cut, end = sorted(random.integers(1, n, 2))
    return everything.take(np.arange(end)), everything.take(np.arange(cut, n))


@pytest.mark.parametrize("table", [PROTOCOLS, BENCHMARKS])
def test_tables_are_keyed_by_name_and_each_rule_is_one_sentence(table):
    for name, protocol in table.items():
        assert name == protocol.name
        assert str(protocol) == f"{name}@{protocol.version}"
        assert protocol.rule.endswith(".")
        assert ". " not in protocol.rule
        assert (protocol.draw is None) == (protocol.n_draws == 1)


def test_no_name_stands_for_two_protocols():
    assert not set(PROTOCOLS) & set(BENCHMARKS)


def test_versions_as_published():
    """A rule that is changed must get a new version here too."""
    known = {str(protocol) for protocol in (PROTOCOLS | BENCHMARKS).values()}
    assert known == {
        "any@1",
        "cross-camera@1",
        "cuhk03-single-shot@1",
        "date@1",
        "market1501+500k@1",
        "sequence@1",
        "vehicleid-10x@1",
    }


# -- draws ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", DRAWN)
@given(seed=st.integers(0, 9999))
def test_draws_are_the_same_by_seed_and_differ_by_number(name, seed):
    both = random_sides(seed)
    first, again = ([*draws(*both, BENCHMARKS[name], seed=seed)] for _ in range(2))
    assert len(first) == BENCHMARKS[name].n_draws
    for one, other in zip(first, again, strict=True):
        for part, same in zip(one, other, strict=True):
            assert [side.tolist() for side in part] == [side.tolist() for side in same]


@pytest.mark.parametrize("name", DRAWN)
def test_draws_differ_from_one_to_the_next_and_by_seed(name):
    pids = np.repeat(np.arange(20), 6)
    both = Side(pids, np.arange(120), np.tile([0, 1], 60))
    drawn = {
        tuple(columns.tolist())
        for seed in (0, 1)
        for parts in draws(both, both, BENCHMARKS[name], seed=seed)
        for _, columns in parts[:1]
    }
    assert len(drawn) == 20


def test_draws_as_first_published():
    """Scores stay comparable only as long as the same images are drawn."""
    both = Side(np.repeat(np.arange(3), 5), np.arange(15), np.tile([0, 1, 0, 1, 0], 3))
    first, second, *_ = draws(both, both, BENCHMARKS["vehicleid-10x"])
    assert [part[0][1].tolist() for part in (first, second)] == [[3, 8, 11], [4, 7, 10]]
    shots = next(draws(both, both, BENCHMARKS["cuhk03-single-shot"]))
    assert [columns.tolist() for _, columns in shots] == [[3, 8, 11], [4, 9, 12]]


@given(seed=st.integers(0, 9999))
def test_vehicleid_draws_one_image_an_identity_and_asks_for_all_others(seed):
    queries, gallery = random_sides(seed)
    for ((rows, columns),) in draws(queries, gallery, BENCHMARKS["vehicleid-10x"]):
        assert sorted(gallery.pids[columns]) == sorted(set(gallery.pids[gallery.pids >= 0]))
        drawn = set(gallery.images[columns].tolist())
        assert rows.tolist() == [
            q for q, image in enumerate(queries.images.tolist()) if image not in drawn
        ]


@given(seed=st.integers(0, 9999))
def test_single_shot_draws_one_image_an_identity_from_other_cameras(seed):
    queries, gallery = random_sides(seed)
    for parts in draws(queries, gallery, BENCHMARKS["cuhk03-single-shot"]):
        asked = np.concatenate([rows for rows, _ in parts])
        assert sorted(asked) == list(range(len(queries)))  # each query once, the unknown camera's too
        for rows, columns in parts:
            (camera,) = set(queries.scenes[rows].tolist())
            others = (gallery.scenes >= 0) & (gallery.scenes != camera)
            assert set(np.flatnonzero(others)) >= set(columns)
            able = gallery.pids[others]
            assert sorted(gallery.pids[columns]) == sorted(set(able[able >= 0]))


@given(seed=st.integers(0, 9999))
def test_whoever_has_a_match_by_another_camera_has_one_in_each_single_shot(seed):
    queries, gallery = random_sides(seed)
    able = has_match(queries, gallery)
    for parts in draws(queries, gallery, BENCHMARKS["cuhk03-single-shot"]):
        for rows, columns in parts:
            found = has_match(queries.take(rows), gallery.take(columns))
            assert found.tolist() == able[rows].tolist()


def test_one_identity_alone_is_drawn_once():
    both = Side(np.zeros(3, dtype=np.int64), np.arange(3))
    for ((rows, columns),) in draws(both, both, BENCHMARKS["vehicleid-10x"]):
        assert (len(rows), len(columns)) == (2, 1)


def test_every_image_of_an_identity_is_drawn_at_some_time():
    both = Side(np.zeros(2, dtype=np.int64), np.arange(2))
    found = {parts[0][1].item() for parts in draws(both, both, BENCHMARKS["vehicleid-10x"])}
    assert found == {0, 1}


# -- distractors ----------------------------------------------------------------------------------


def test_distractors_match_nobody_and_are_never_junk():
    query = records(("7", "1"), ("0", "1"), ("0000", "1"))
    gallery = records(
        ("x", "9"), ("x", "9"), ("x", "9"), ("7", "2"), ("0", "1"), ("0000", "2"), (None, None)
    )
    found = sides(query, gallery, "market1501+500k")
    assert found[1].pids[4:].tolist() == [-1, -1, -1]
    assert has_match(*found).tolist() == [True, False, False]
    assert not junk(*found, np.arange(3))[:, 4:].any()
    usual = sides(query, gallery, "cross-camera")  # there, 0 is an identity like any other
    assert junk(*usual, np.arange(3))[1, 4]


def test_an_identity_that_merely_holds_a_zero_is_no_distractor():
    gallery = records(("10", "1"), ("0x", "1"), ("00", "1"))
    assert (sides(gallery, gallery, "market1501+500k")[1].pids >= 0).tolist() == [True, True, False]


def test_a_gallery_of_distractors_alone_has_no_match():
    query, gallery = records(("7", "1")), records(("x", "1"), ("0", "2"), (None, "2"))
    assert not has_match(*sides(query, gallery[1:], "market1501+500k")).any()


def test_a_gallery_without_distractors_is_refused():
    both = records(("7", "1"), ("7", "2"))
    with pytest.raises(EvaluationError, match=r"needs distractors.* or use 'cross-camera'"):
        sides(both, both, "market1501+500k")


# -- choice ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["market1501+500k", "cuhk03-single-shot", "cross-camera"])
def test_cameras_are_asked_for_where_the_rule_needs_them(name):
    both = records(("7", None), ("7", None))
    with pytest.raises(EvaluationError, match=r"needs the camera .* Use 'any', or add a column"):
        sides(both, both, name)


def test_benchmarks_are_never_chosen_and_are_found_by_name():
    both = records(("7", "1"), ("7", "2"), ("0", "1"))
    assert choose(both, both) == "cross-camera"
    with pytest.raises(EvaluationError, match="did you mean 'vehicleid-10x'"):
        protocols.find("vehicleid")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([("7", "1"), ("7", "2")], ""),
        (
            [("7", None), ("7", None)],
            "fell to any: no camera known, no date known, no sequence known",
        ),
        (
            [("7", "1"), ("7", "1")],
            "fell to any: no match by another camera, no date known, no sequence known",
        ),
    ],
)
def test_why_a_stricter_rule_was_not_chosen(rows, reason):
    both = records(*rows)
    assert why_not_stricter(both, both, choose(both, both)) == reason
