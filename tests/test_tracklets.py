"""Sequences as rows: what is known of them, their features, and the links within them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import naive
from gracl.data.pairs import links_of
from gracl.data.records import Box, Record, Records
from gracl.errors import DataError, ShapeError
from gracl.tracklets import group


def mars(*names):
    """Records of MARS's file names: 0003C4T0003F001 is identity, camera, tracklet, frame."""
    return Records(
        tuple(
            Record(
                Path(f"bbox_test/{name[:4]}/{name}.jpg"),
                name[:4],
                camera=name[5],
                sequence=f"{name[:4]}-{name[4:6]}-{name[6:11]}",
            )
            for name in names
        )
    )


MARS = mars(
    "0003C4T0003F001", "0003C4T0003F002", "0003C1T0001F001", "0005C4T0003F001", "0003C4T0003F009"
)


@given(seed=st.integers(0, 9999))
def test_features_are_the_naive_means_whatever_the_order(seed):
    random = np.random.default_rng(seed)
    names = [f"s{n}" for n in random.integers(0, 5, random.integers(1, 20))]
    records = Records(tuple(Record(Path(str(n)), sequence=name) for n, name in enumerate(names)))
    features = torch.nn.functional.normalize(torch.tensor(random.normal(size=(len(names), 4))))
    expected = naive.mean_features(features.numpy(), names)
    for order in (np.arange(len(names)), random.permutation(len(names))):
        found = group(records.take(order))
        means = dict(zip(found.records.values("sequence"), found.mean(features[order]), strict=True))
        assert set(means) == set(expected)
        for name, row in means.items():
            torch.testing.assert_close(row, torch.tensor(expected[name]))


def test_sequences_stand_in_the_order_of_their_first_image():
    found = group(MARS)
    assert found.members.tolist() == [0, 0, 1, 2, 0]
    assert found.records.items == MARS.take([0, 2, 3]).items


def test_images_of_no_sequence_stand_for_themselves():
    loose = Records(tuple(Record(Path(name), "x") for name in "ab"))
    found = group(loose)
    assert found.members.tolist() == [0, 1]
    assert found.records == loose
    features = torch.nn.functional.normalize(torch.randn(2, 4))
    torch.testing.assert_close(found.mean(features), features)


def test_nothing_gives_nothing():
    found = group(Records())
    assert (len(found.records), found.mean(torch.zeros(0, 4)).shape) == (0, (0, 4))


def test_opposite_features_have_no_direction_and_no_nan():
    pair = group(Records(tuple(Record(Path(n), sequence="s") for n in "ab")))
    assert pair.mean(torch.tensor([[1.0, 0], [-1, 0]])).tolist() == [[0, 0]]


def test_what_any_image_knows_is_known_of_the_sequence():
    facts = [{}, {"identity": "x", "date": "1 May"}, {"camera": "c1", "date": "2 May"}]
    records = Records(
        tuple(Record(Path(str(n)), sequence="s", **known) for n, known in enumerate(facts))
    )
    (found,) = group(records).records
    assert found == Record(Path("0"), "x", camera="c1", date=None, sequence="s")
    assert group(records[:2]).records[0].date == "1 May"


@pytest.mark.parametrize("fact", ["identity", "camera"])
def test_a_sequence_of_two_individuals_or_cameras_is_named(fact):
    mixed = Records(
        tuple(Record(Path(value), sequence="T0001", **{fact: value}) for value in ("b", "a"))
    )
    with pytest.raises(DataError, match=f"sequence 'T0001' holds images of {fact} a, b; expected one"):
        group(mixed)


@pytest.mark.parametrize("shape", [(4, 8), (5,)])
def test_features_of_other_images_are_refused(shape):
    with pytest.raises(ShapeError, match=r"expected \(5, D\)"):
        group(MARS).mean(torch.zeros(shape))


def test_tracklets_of_mars_are_must_linked_and_no_more():
    links = links_of(MARS, sequences=True)
    assert links.must.tolist() == [[0, 1], [1, 4]]
    assert len(links.cannot) == 0


def test_crops_of_one_frame_cannot_be_linked_where_the_frame_is_one_picture():
    """MARS cuts its frames into files and numbers them within each tracklet, so none can be told."""
    frame = Path("c1/frame_000017.jpg")
    crops = Records(
        tuple(Record(frame, sequence=f"t{n}", box=Box(n * 50, 0, 40, 90)) for n in range(3))
    )
    links = links_of(crops, sequences=True, boxes=True)
    assert sorted(map(sorted, links.cannot.tolist())) == [[0, 1], [0, 2], [1, 2]]
    assert len(links_of(MARS, boxes=True).cannot) == 0
