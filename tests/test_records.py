"""Records, their codes, held-out identities, and what each protocol needs to know."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from pathlib import Path

import numpy as np
import pytest

from gracl.data import protocols
from gracl.data.records import Box, Dataset, Record, Records, codes
from gracl.errors import EvaluationError
from gracl.metrics import has_match


def people(*facts: tuple[str | None, str | None]) -> Records:
    """A record for each (identity, camera)."""
    return Records(
        tuple(Record(Path(f"{n}.jpg"), identity=i, camera=c) for n, (i, c) in enumerate(facts))
    )


def dataset_of(train: Records) -> Dataset:
    return Dataset(name="drawn", root=Path(), layout="folder", train=train)


# -- records --------------------------------------------------------------------------------------


def test_records_are_a_sequence_that_cannot_change() -> None:
    records = people(("1", "a"), ("2", "b"), ("3", "c"))
    assert len(records) == 3
    assert [r.identity for r in records] == ["1", "2", "3"]
    assert records[-1].identity == "3"
    assert isinstance(records[1:], Records)
    assert records[1:].values("identity") == ["2", "3"]
    with pytest.raises(FrozenInstanceError):
        records[0].identity = "9"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        records.items = ()  # type: ignore[misc]


def test_take_keeps_the_order_that_is_asked_for() -> None:
    records = people(("1", None), ("2", None), ("3", None))
    assert records.take([2, 0, 0]).values("identity") == ["3", "1", "1"]
    assert records.take(np.array([1])).values("identity") == ["2"]


def test_unlabelled_keeps_all_but_the_identity() -> None:
    full = Record(Path("a"), "1", "c1", "monday", "walk", Box(0, 0, 1, 1))
    (bare,) = Records((full,)).unlabelled()
    assert bare == Record(Path("a"), None, "c1", "monday", "walk", Box(0, 0, 1, 1))


def test_has_asks_whether_any_record_knows() -> None:
    assert people((None, None), (None, "c1")).has("camera")
    assert not people((None, None), (None, "c1")).has("identity")
    assert not Records().has("camera")


def test_codes_agree_across_sides_and_mark_the_unknown() -> None:
    query = people(("0002", None), ("2", None), (None, None))
    gallery = people(("2", None), ("new", None), ("0002", None))
    q, g = codes("identity", query, gallery)
    assert q[0] == g[2]
    assert q[1] == g[0]
    assert q[2] == -1
    assert len({*q.tolist(), *g.tolist()} - {-1}) == 3  # "2" and "0002" are two identities
    assert q.dtype == np.int64


def test_codes_of_nothing_are_empty() -> None:
    (none,) = codes("camera", Records())
    assert none.shape == (0,)


def test_test_part_falls_back_to_the_training_images() -> None:
    records = people(("1", "a"), ("1", "b"))
    alone = dataset_of(records)
    assert alone.tests_on_training_images
    assert alone.test == (records, records)
    held_out = Dataset("x", Path(), "csv", train=records[:1], query=records[:1], gallery=records[1:])
    assert not held_out.tests_on_training_images
    assert held_out.test == (records[:1], records[1:])


# -- protocols ------------------------------------------------------------------------------------


def both(**facts: str) -> Records:
    """Two images of one identity that differ in the facts given, as (first, second)."""
    sides = [{name: value.split()[n] for name, value in facts.items()} for n in (0, 1)]
    return Records(tuple(Record(Path(f"{n}"), "1", **side) for n, side in enumerate(sides)))


@pytest.mark.parametrize(
    ("records", "protocol"),
    [
        (both(), "any"),
        (both(camera="a b"), "cross-camera"),
        (both(date="a b"), "date"),
        (both(sequence="a b"), "sequence"),
        (both(sequence="a b", date="a b"), "date"),
        (both(sequence="a b", date="a b", camera="a b"), "cross-camera"),
        (both(camera="a a"), "any"),
        (both(camera="a a", date="a b"), "date"),
    ],
)
def test_strictest_protocol_with_a_match_is_chosen(records: Records, protocol: str) -> None:
    assert protocols.choose(records, records) == protocol
    assert has_match(*protocols.sides(records, records, protocol)).all()


def test_fact_must_be_known_on_both_sides_to_be_chosen() -> None:
    query, gallery = people(("1", "a")), people(("1", None))
    assert protocols.choose(query, gallery) == "any"


def test_sides_know_an_image_that_is_on_both() -> None:
    records = people(("1", "a"), ("1", "b"), ("2", "a"))
    query, gallery = protocols.sides(records[1:], records, "any")
    assert gallery.images[1:].tolist() == query.images.tolist()
    assert len(set(gallery.images.tolist())) == 3


def test_two_crops_of_one_file_are_two_images() -> None:
    crops = Records(tuple(Record(Path("a"), "1", box=Box(x, 0, 5, 5)) for x in (0, 9)))
    query, gallery = protocols.sides(crops, crops, "any")
    assert len(set(query.images.tolist())) == 2
    assert has_match(query, gallery).tolist() == [True, True]


def test_sides_name_the_fact_that_is_missing_and_the_protocol_to_use() -> None:
    records = people(("1", None), ("1", None))
    with pytest.raises(EvaluationError, match=r"needs the camera .*Use 'any', or add a column"):
        protocols.sides(records, records, "cross-camera")


def test_unknown_protocol_is_refused_with_the_nearest() -> None:
    records = people(("1", "a"))
    with pytest.raises(EvaluationError, match="did you mean 'cross-camera'"):
        protocols.sides(records, records, "cross_camera")
