"""A review: what each decision does, what it says of pairs, and that it survives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gracl.clustering import OUTLIER
from gracl.config import Config
from gracl.data.records import Dataset, Record, Records
from gracl.doubt import doubts
from gracl.errors import Contradiction, ReviewError
from gracl.features import Features
from gracl.review.ledger import Ledger
from gracl.review.review import Review
from gracl.study import Study, open_study

PEOPLE = 6
EACH = 5


class Stub:
    """A run as a review reads it: its folder and what it was trained on."""

    def __init__(self, folder, **about):
        self.folder = folder
        self.data = {"fingerprint": "abc", **about}
        self.config = Config().replace({"method": {"k1": 5, "k2": 2}})


class Held:
    """An image store as a review reads it."""

    def __init__(self, records):
        self.records = records

    def __len__(self):
        return len(self.records)


def study_of(folder, labels, seed=0, **about):
    """People of some images each, near each other, with any clusters."""
    folder.mkdir(parents=True, exist_ok=True)
    draws = torch.Generator().manual_seed(seed)
    people = torch.randn(PEOPLE, 16, generator=draws).repeat_interleave(EACH, 0)
    rows = torch.nn.functional.normalize(people + 0.4 * torch.randn(people.shape, generator=draws))
    root = folder.parent / "photos"
    records = Records(tuple(Record(root / f"{n // EACH}/{n}.jpg") for n in range(len(rows))))
    dataset = Dataset("photos", root, "folder", records)
    found = Features(rows, records, "f", "", (64, 32), "")
    return Study(Stub(folder, **about), dataset, Held(records), np.array(labels), found)


TRUTH = np.repeat(np.arange(PEOPLE), EACH)


@pytest.fixture
def review(tmp_path):
    with Review.open(study_of(tmp_path / "run", TRUTH), by="Ann") as opened:
        yield opened


def together(review, *rows):
    labels = review.labels[list(rows)]
    return bool((labels == labels[0]).all() and labels[0] != OUTLIER)


def holds(review):
    """What must be true after whatever was decided."""
    links, labels = review.links(), review.labels
    for a, b in links.must:
        assert labels[a] == labels[b] != OUTLIER
    for a, b in links.cannot:
        assert labels[a] != labels[b] or labels[a] == OUTLIER
    fresh = doubts(review.study.features, labels)
    listed = review.clusters()
    assert [c.doubt for c in listed] == sorted((c.doubt for c in listed), reverse=True)
    for cluster in listed:
        assert sorted(cluster.rows) == np.flatnonzero(labels == cluster.number).tolist()
        assert cluster.doubt == pytest.approx(fresh.cluster[cluster.number], abs=1e-4)
    assert set(review.names) <= {cluster.number for cluster in listed}


# -- what decisions do ----------------------------------------------------------------------------


def test_merged_clusters_are_the_first_and_linked_by_their_typical_images(review):
    decision = review.merge([4, 1])
    assert decision.clusters == (1, 4)
    assert together(review, *range(5, 10), *range(20, 25))
    assert review.cluster(4).changed
    assert len(review.links().must) == 1
    with pytest.raises(ReviewError, match="no cluster 1"):
        review.cluster(1)
    holds(review)


def test_split_images_are_not_the_rest_and_nobody_said_that_they_are_one(review):
    review.split([0, 1])
    assert together(review, 0, 1)
    assert review.labels[0] == 6
    assert not together(review, 0, 2)
    links = review.links()
    assert not len(links.must)
    apart = {frozenset(pair) for pair in links.cannot.tolist()}
    assert {frozenset({0, n}) for n in (2, 3, 4)} < apart
    assert len({pair for pair in apart if 1 in pair}) == 1
    assert not review.cluster(6).confirmed
    assert not review.confirmed()
    holds(review)


def test_images_that_are_gathered_from_several_clusters_are_one_individual(review):
    review.split([0, 5])
    assert review.links().must.tolist() == [[0, 5]]
    assert review.cluster(6).confirmed
    holds(review)


def test_an_image_alone_is_confirmed_by_name_or_by_itself(review):
    review.split([0])
    review.name(6, "Dora")
    assert review.cluster(6).confirmed
    assert review.confirmed()[0].by == "Ann"
    assert not len(review.links().must)  # a training is asked nothing
    assert review.progress().n_confirmed_images == 1
    with pytest.raises(Contradiction, match="was confirmed as an individual by Ann"):
        review.eject([0])
    review.undo()
    assert not review.confirmed()
    review.confirm(6)
    assert review.cluster(6).confirmed


def test_ejected_images_are_in_no_cluster_and_different_from_its_typical_ones(review):
    review.eject([0])
    assert review.outliers() == [0]
    assert sorted(review.links().cannot[:, 1].tolist()) == [1, 2, 3, 4]
    holds(review)


def test_a_moved_image_is_of_the_other_cluster_and_not_of_its_own(review):
    review.move([0], 3)
    assert together(review, 0, 15)
    assert review.links().must.tolist()[0][0] == 0
    assert review.links().cannot.tolist()[0][0] == 0
    holds(review)


def test_an_outlier_is_moved_without_leaving_anybody(tmp_path):
    labels = TRUTH.copy()
    labels[0] = OUTLIER
    with Review.open(study_of(tmp_path / "run", labels), by="Ann") as review:
        review.move([0], 0)
        assert together(review, 0, 1)
        assert not len(review.links().cannot)


def test_a_confirmed_cluster_stays_as_it_is_and_its_images_belong_together(review):
    before = review.labels
    assert not review.cluster(2).confirmed
    review.confirm(2)
    assert review.labels.tolist() == before.tolist()
    assert review.cluster(2).confirmed
    assert not review.cluster(2).changed
    assert {review.confirmed()[row].by for row in range(10, 15)} == {"Ann"}
    assert review.progress().n_confirmed_images == 5


def test_a_name_confirms_and_holds_clusters_of_other_names_apart(review):
    review.name(0, "Ada")
    review.name(1, " Bob ")
    assert review.names == {0: "Ada", 1: "Bob"}
    assert review.cluster(0).confirmed
    assert len(review.links().cannot) == 1
    with pytest.raises(ReviewError, match="Ada and Bob are different names"):
        review.merge([0, 1])
    with pytest.raises(ReviewError, match="called Ada already"):
        review.name(0, "Ada")
    review.merge([0, 1], overrule=True)
    assert review.names == {0: "Ada"}
    holds(review)


def test_a_name_that_a_cluster_has_joins_the_two(review):
    review.name(0, "Ada")
    decision = review.name(3, "Ada")
    assert "joined it with cluster 0" in decision.text
    assert together(review, 0, 15)
    assert review.names == {3: "Ada"}
    holds(review)


def test_a_name_can_be_taken_away(review):
    review.name(0, "Ada")
    review.name(0, None)
    assert review.names == {}
    with pytest.raises(ReviewError, match="no name already"):
        review.name(0, "")


def test_the_same_joins_clusters_and_outliers(tmp_path):
    labels = TRUTH.copy()
    labels[[0, 5, 6]] = OUTLIER
    with Review.open(study_of(tmp_path / "run", labels), by="Ann") as review:
        review.same(0, 1)
        assert together(review, 0, 1)
        review.same(5, 6)
        assert together(review, 5, 6)
        assert not together(review, 5, 7)
        review.same(7, 5)
        assert together(review, 5, 7, 6)
        holds(review)


def test_different_images_of_one_cluster_part_it_by_who_is_nearer(tmp_path):
    labels = TRUTH.copy()
    labels[5:10] = 0
    with Review.open(study_of(tmp_path / "run", labels), by="Ann") as review:
        review.different(0, 9)
        assert together(review, *range(5))
        assert together(review, *range(5, 10))
        assert not together(review, 0, 5)
        holds(review)


def test_images_that_were_linked_leave_as_a_whole(tmp_path):
    labels = TRUTH.copy()
    labels[5:10] = 0
    with Review.open(study_of(tmp_path / "run", labels), by="Ann") as review:
        review.same(1, 9)  # wrongly, but it was said
        review.different(0, 9)
        assert together(review, 1, 9)
        assert not together(review, 0, 1)
        holds(review)


def test_who_is_who_from_elsewhere_is_one_decision(review):
    known = {
        0: "Ada",
        1: "Ada",
        7: "Ada",
        10: "Bob",
        11: "Bob",
        12: "Bob",
        20: "cluster-9",
        0 + 2: "Cem",
    }
    review.assign(known, text="read a table")
    assert together(review, 0, 1, 7)
    assert together(review, 10, 11, 12)
    assert not together(review, 0, 2)
    assert sorted(review.names.values()) == ["Ada", "Bob", "Cem"]
    assert review.names[int(review.labels[10])] == "Bob"
    assert int(review.labels[10]) == 2  # it was that cluster already
    holds(review)
    review.undo()
    assert review.labels.tolist() == TRUTH.tolist()


# -- contradictions -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (lambda r: r.split([0, 1]), lambda r: r.merge([0, 6])),
        (lambda r: r.confirm(0), lambda r: r.eject([3])),
        (lambda r: r.confirm(0), lambda r: r.split([3, 4])),
        (lambda r: r.confirm(0), lambda r: r.move([3], 2)),
        (lambda r: r.confirm(0), lambda r: r.different(0, 4)),
        (lambda r: r.same(0, 1), lambda r: r.different(1, 0)),
        (lambda r: r.different(0, 5), lambda r: r.same(5, 0)),
        (lambda r: r.different(0, 5), lambda r: r.merge([0, 1])),
        (lambda r: r.confirm(0) and r.different(0, 5), lambda r: r.same(1, 5)),
    ],
)
def test_a_contradiction_is_named_and_changes_nothing_unless_it_overrules(review, first, then):
    first(review)
    labels, links, n = review.labels.tolist(), review.links(), review.progress().n_decisions
    with pytest.raises(
        ReviewError, match=r"said to be (the same|different) by Ann on 20.*decision [12]"
    ):
        then(review)
    assert review.labels.tolist() == labels
    assert review.progress().n_decisions == n
    assert review.links().must.tolist() == links.must.tolist()


def test_the_same_joins_only_linked_images_where_others_are_different(review):
    review.different(0, 5)
    review.same(1, 2)
    review.same(1, 6)
    assert together(review, 1, 2, 6)
    assert not together(review, 0, 5)
    holds(review)


@settings(max_examples=30)
@given(
    st.integers(0, 999),
    st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 29), st.integers(0, 29))), max_size=40),
)
def test_answers_by_the_truth_never_contradict_each_other(tmp_path_factory, seed, pairs):
    folder = tmp_path_factory.mktemp("r") / "run"
    labels = np.random.default_rng(seed).integers(-1, 6, PEOPLE * EACH)
    with Review.open(study_of(folder, labels), by="Ann") as review:
        for pair in pairs:
            question = review.question() if pair is None else None
            if question is not None:
                review.answer(question, bool(TRUTH[question.first] == TRUTH[question.second]))
            elif pair is not None and pair[0] != pair[1]:
                (review.same if TRUTH[pair[0]] == TRUTH[pair[1]] else review.different)(*pair)
        holds(review)
        assert (TRUTH[review.links().must[:, 0]] == TRUTH[review.links().must[:, 1]]).all()


def test_overruled_links_do_not_hold_and_come_back_with_undo(review):
    review.confirm(0)
    before = review.links().must.tolist()
    review._decide(review._drafts.eject([0]), overrule=True)
    assert [0, 1] not in review.links().must.tolist()
    holds(review)
    review.undo()
    assert review.links().must.tolist() == before
    review.redo()
    assert [0, 1] not in review.links().must.tolist()
    holds(review)


def test_links_are_overruled_again_after_the_first_that_did_was_taken_back(review):
    review.confirm(0)
    review.eject([0], overrule=True)
    review.undo()
    review.eject([0], overrule=True)
    assert [0, 1] not in review.links().must.tolist()
    holds(review)
    review.undo()
    assert [0, 1] in review.links().must.tolist()


ROWS = st.lists(st.integers(0, PEOPLE * EACH - 1), min_size=1, max_size=5)
DECISIONS = st.lists(
    st.one_of(
        st.tuples(st.just("merge"), st.lists(st.integers(0, 9), min_size=2, max_size=3)),
        st.tuples(st.just("split"), ROWS),
        st.tuples(st.just("eject"), ROWS),
        st.tuples(st.just("move"), ROWS, st.integers(0, 9)),
        st.tuples(st.just("confirm"), st.integers(0, 9)),
        st.tuples(st.just("name"), st.integers(0, 9), st.sampled_from(["Ada", "Bob", None])),
        st.tuples(st.just("same"), st.integers(0, 29), st.integers(0, 29)),
        st.tuples(st.just("different"), st.integers(0, 29), st.integers(0, 29)),
        st.tuples(st.just("undo")),
        st.tuples(st.just("redo")),
        st.tuples(st.just("answer"), st.booleans()),
    ),
    max_size=12,
)


@settings(max_examples=40)
@given(DECISIONS, st.booleans(), st.integers(0, 3))
def test_whatever_is_decided_links_hold_and_a_second_opening_agrees(
    tmp_path_factory, decisions, overrule, seed
):
    folder = tmp_path_factory.mktemp("r") / "run"
    labels = np.random.default_rng(seed).integers(-1, 6, PEOPLE * EACH)
    with Review.open(study_of(folder, labels), by="Ann") as review:
        for kind, *words in decisions:
            with suppress(ReviewError):  # what means nothing, or contradicts, changes nothing
                if kind in ("undo", "redo"):
                    getattr(review, kind)()
                elif kind == "answer":
                    question = review.question()
                    if question is not None:
                        review.answer(question, words[0], overrule=overrule)
                else:
                    getattr(review, kind)(*words, overrule=overrule)
            holds(review)
        kept = review.labels.tolist(), review.names, review.links().must.tolist(), review.progress()
    with Review.open(study_of(folder, labels), by="Bea") as again:
        assert kept == (
            again.labels.tolist(),
            again.names,
            again.links().must.tolist(),
            again.progress(),
        )
        while again.undo() is not None:
            pass
        assert again.labels.tolist() == labels.tolist()
        assert again.names == {}
        assert len(again.links()) == 0


def test_a_decision_after_undo_takes_the_place_of_what_was_undone(review):
    review.merge([0, 1])
    review.undo()
    review.merge([2, 3])
    assert review.redo() is None
    assert [d.state for d in review.history()] == ["done", "dropped"]
    assert review.progress().n_decisions == 1


def test_nothing_to_undo_is_nothing(review):
    assert review.undo() is None
    assert review.redo() is None
    assert review.version == 0


# -- looking and asking ---------------------------------------------------------------------------


def test_similar_images_are_of_the_same_person_and_never_the_image_itself(review):
    found = review.similar(7, k=4)
    assert {row // EACH for row, _ in found} == {1}
    assert 7 not in [row for row, _ in found]
    assert review.similar(review.study.features[7], k=1)[0][0] == 7
    assert len(review.similar(0, k=999)) == PEOPLE * EACH - 1


@pytest.mark.parametrize("rows", [[], [-1], [99]])
def test_rows_that_are_not_there_are_refused(review, rows):
    with pytest.raises(ReviewError, match="was chosen; there are 30 images"):
        review.split(rows)


def test_an_image_is_not_compared_with_itself(review):
    with pytest.raises(ReviewError, match="with itself"):
        review.same(3, 3)


def test_a_reviewer_has_a_name(tmp_path):
    with pytest.raises(ReviewError, match="--by NAME"):
        Review.open(study_of(tmp_path / "run", TRUTH), by=" ")


# -- on disk --------------------------------------------------------------------------------------


def test_two_processes_do_not_review_one_run(review, tmp_path):
    with pytest.raises(ReviewError, match=rf"being reviewed by process {os.getpid()} of .*Ctrl\+C"):
        Review.open(study_of(tmp_path / "run", TRUTH), by="Bea")


def test_a_review_of_other_images_is_refused(review, tmp_path):
    review.close()
    with pytest.raises(ReviewError, match="other images"):
        Review.open(study_of(tmp_path / "run", TRUTH, fingerprint="xyz"), by="Ann")


def test_a_file_that_is_no_review_is_refused_and_stays(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "review.sqlite").write_text("my notes, at some length " * 99)
    with pytest.raises(ReviewError, match="no review that gracl wrote"):
        Review.open(study_of(tmp_path / "run", TRUTH), by="Ann")
    assert "my notes" in (tmp_path / "run" / "review.sqlite").read_text()


def test_a_decision_that_cannot_be_written_did_not_happen(review):
    review.merge([0, 1])
    review._ledger._database.execute("PRAGMA query_only = ON")
    before = review.labels.tolist()
    with pytest.raises(ReviewError, match="what was decided before stands"):
        review.merge([2, 3])
    assert review.labels.tolist() == before
    assert review.version == 1


def test_what_is_decided_before_a_kill_is_there(tmp_path):
    script = f"""
        import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})
        from pathlib import Path
        from test_review import TRUTH, study_of
        from gracl.review.review import Review
        review = Review.open(study_of(Path({str(tmp_path / "run")!r}), TRUTH), by="Ann")
        review.merge([0, 1]); review.name(2, "Ada"); review.eject([29])
        print("decided", flush=True)
        import time; time.sleep(60)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "decided\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    with Review.open(study_of(tmp_path / "run", TRUTH), by="Ann") as review:
        assert together(review, 0, 5)
        assert review.names == {2: "Ada"}
        assert review.outliers() == [29]
        assert review.progress().n_decisions == 3


# -- carried over ---------------------------------------------------------------------------------


def test_what_was_said_holds_for_the_clusters_of_the_next_run(review, tmp_path):
    review.name(0, "Ada")
    review.different(10, 15)
    review.merge([4, 5])
    review.eject([9])
    review.close()
    fresh = TRUTH[::-1].copy()  # other numbers, and two people mixed
    fresh[TRUTH == 3] = fresh[TRUTH == 2][0]
    with Review.open(
        study_of(tmp_path / "next", fresh, continues=str(tmp_path / "run")), by="Bea"
    ) as then:
        assert then.names == {int(then.labels[0]): "Ada"}
        assert not together(then, 10, 15)
        assert together(then, 20, 25)
        assert not together(then, 9, 8)
        assert [d.state for d in then.history()] == ["carried"] * 4
        assert {d.by for d in then.history()} == {"Ann"}
        assert then.undo() is None
        assert then.cluster(int(then.labels[0])).confirmed
        holds(then)
        with pytest.raises(ReviewError, match="by Ann"):
            then.same(10, 15)


def test_a_run_that_was_trained_further_keeps_what_was_said(review, tmp_path):
    review.name(0, "Ada")
    review.close()
    other = np.roll(TRUTH, 1)
    other[other == other[0]] = OUTLIER
    with Review.open(study_of(tmp_path / "run", other), by="Ann") as then:
        assert set(then.names.values()) == {"Ada"}
        assert together(then, *range(5))
        holds(then)


def test_images_that_are_gone_take_their_words_with_them(review, tmp_path):
    from gracl.review.carrying import corrections

    review.same(0, 1)
    review.different(0, 5)
    review.close()
    records = review.study.records.take([5, 1, 0])
    links = corrections(tmp_path / "run", records, tmp_path / "photos")
    assert links.must.tolist() == [[2, 1]]
    assert links.cannot.tolist() == [[2, 0]]
    assert not len(corrections(tmp_path / "run", records.take([0]), tmp_path / "photos"))
    assert not len(corrections(tmp_path / "nowhere", records, tmp_path / "photos"))


# -- on a real run --------------------------------------------------------------------------------


def test_a_real_run_is_reviewed(small_run, tmp_path):
    folder = shutil.copytree(small_run, tmp_path / "run")
    with Review.open(open_study(folder), by="Ann") as review:
        for _ in range(10):
            question = review.question()
            if question is None:
                break
            pids = review.study.pids
            review.answer(question, bool(pids[question.first] == pids[question.second]))
            holds(review)
        assert review.progress().n_decisions > 0
    with closing(Ledger(folder / "review.sqlite")) as ledger:
        told = json.loads((folder / "data.json").read_text())["fingerprint"]
        assert ledger.about("fingerprint") == told


@pytest.mark.parametrize(
    "spoilt",
    [
        "DROP TABLE links",
        "DROP TABLE images",
        'DELETE FROM images WHERE "row" = 29',
        'DELETE FROM images WHERE "row" = 2',
        "UPDATE images SET base = 'x'",
        "UPDATE images SET base = 4611686018427387904",
        "UPDATE images SET path = CAST(x'ff' AS TEXT)",
        "UPDATE decisions SET change = '[]'",
        "UPDATE decisions SET change = '" + "[" * 100_000 + "'",
        'UPDATE decisions SET change = \'{"rows": [999], "before": [0], "after": [1], "names": []}\'',
        'UPDATE decisions SET change = \'{"rows": [0], "before": [7], "after": [1], "names": []}\'',
        "UPDATE links SET first = 'x'",
        "UPDATE links SET second = 30",
        "UPDATE decisions SET similarity = 'x'",
        "UPDATE about SET value = '[[1]]' WHERE key = 'names'",
    ],
)
def test_a_damaged_review_is_told_at_once_and_left_as_it_is(tmp_path, spoilt):
    study = study_of(tmp_path / "run", TRUTH)
    with Review.open(study, by="Ann") as opened:
        opened.merge([0, 1])
    file = tmp_path / "run" / "review.sqlite"
    with closing(sqlite3.connect(file)) as database:
        database.execute(spoilt)
        database.commit()
    with pytest.raises(ReviewError):
        Review.open(study, by="Ann")
    with closing(sqlite3.connect(file)) as database:  # let go of
        assert database.execute("SELECT count(*) FROM decisions").fetchone() == (1,)
