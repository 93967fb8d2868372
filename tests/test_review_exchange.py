"""Who is who as tables: written, read by gracl and by others, and taken back."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest

import gracl
from conftest import save_image
from gracl.data.records import Box, Record, Records
from gracl.errors import DataError, ReviewError
from gracl.review.review import Review
from gracl.study import Study
from test_review import EACH, TRUTH, study_of


@pytest.fixture
def study(tmp_path):
    found = study_of(tmp_path / "run", TRUTH)
    for row, record in enumerate(found.records):
        save_image(record.path, seed=row, size=(12, 8))
    return found


@pytest.fixture
def review(study):
    with Review.open(study, by="Ann") as opened:
        opened.name(0, "Ada")
        opened.eject([5])
        yield opened


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def showing(study, records):
    """The same clusters, of other images."""
    dataset = replace(study.dataset, train=records)
    return Study(study.run, dataset, type(study.images)(records), study.labels, study.found)


def fresh(study, tmp_path):
    """The same run, not yet reviewed."""
    return Review.open(study, by="Bea", at=tmp_path / "other.sqlite")


def test_the_table_says_who_each_is_and_who_said_so(review, tmp_path):
    rows = rows_of(review.export(tmp_path / "who.csv"))
    assert [row["identity"] for row in rows[:7]] == ["Ada"] * 5 + ["", "cluster-1"]
    assert {row["confirmed_by"] for row in rows[:5]} == {"Ann"}
    assert rows[6]["confirmed_by"] == rows[6]["confirmed_at"] == ""
    assert rows[0]["confirmed_at"] == review.history()[-1].time


def test_gracl_reads_the_table_as_data_of_known_identities(review, tmp_path):
    dataset = gracl.load_dataset(review.export(tmp_path / "who.csv"))
    assert [record.identity for record in dataset.train][:6] == ["Ada"] * 5 + [None]
    assert dataset.train[0].path == review.study.records[0].path
    told = "an identity with nothing in 'confirmed_by' counts as one all the same: 24 times, first "
    assert f"{told}'cluster-1'" in dataset.notes


def test_only_what_was_confirmed_is_written_where_that_is_asked_for(study, review, tmp_path):
    rows = rows_of(review.export(tmp_path / "who.csv", only_confirmed=True))
    assert [(row["identity"], row["confirmed_by"]) for row in rows] == [("Ada", "Ann")] * 5
    boxes = json.loads(review.export(tmp_path / "who.json", only_confirmed=True).read_text())
    assert len(boxes["images"]) == len(boxes["annotations"]) == len(rows)
    with pytest.raises(ReviewError, match="AnimalCLEF takes all images"):
        review.export(tmp_path / "ids.csv", form="animalclef", only_confirmed=True)
    with fresh(study, tmp_path) as other, pytest.raises(ReviewError, match="nobody has confirmed"):
        other.export(tmp_path / "none.csv", only_confirmed=True)


@pytest.mark.parametrize("name", ["who.csv", "who.json"])
def test_what_was_known_of_the_images_is_written_too(study, tmp_path, name):
    known = [
        replace(record, camera=f"c{row % 2}", date="2024-05-01" if row else None, sequence=f"s{row}")
        for row, record in enumerate(study.records)
    ]
    study = showing(study, Records(tuple(known)))
    with Review.open(study, by="Ann") as opened:
        opened.name(0, "Ada")
        path = opened.export(study.dataset.root / name)
    found = gracl.load_dataset(path).train
    for fact in ("camera", "date", "sequence"):
        assert found.values(fact) == study.records.values(fact)


@pytest.mark.parametrize("form", ["table", "animalclef", "coco"])
def test_what_is_written_is_read_back(review, study, tmp_path, form):
    path = review.export(tmp_path / ("who.json" if form == "coco" else "who.csv"), form=form)
    with fresh(study, tmp_path) as other:
        other.merge([2, 3])  # which the table knows better
        other.read(path, overrule=True)
        labels = review.labels
        for row in range(len(labels)):
            for column in np.flatnonzero(labels >= 0):
                if labels[row] >= 0:
                    same = labels[row] == labels[column]
                    assert (other.labels[row] == other.labels[column]) == same
        assert other.names == ({} if form == "animalclef" else {int(other.labels[0]): "Ada"})
        assert other.undo().kind == "import"
        assert other.labels[10] == other.labels[15]


def test_coco_has_boxes_sizes_and_identities_that_gracl_reads(review, study, tmp_path):
    path = review.export(study.dataset.root / "who.json")
    content = json.loads(path.read_text())
    assert content["images"][0]["width"] == 8
    assert content["images"][0]["height"] == 12
    assert content["annotations"][0]["bbox"] == [0, 0, 8, 12]
    dataset = gracl.load_dataset(path)
    assert [record.identity for record in dataset.train][:6] == ["Ada"] * 5 + [None]


def test_crops_of_one_picture_are_told_apart_by_their_boxes(study, tmp_path):
    picture = save_image(tmp_path / "photos" / "herd.png", size=(20, 200))
    crops = Records(tuple(Record(picture, box=Box(6 * n, 0, 6, 20)) for n in range(len(study.records))))
    herd = showing(study, crops)
    with Review.open(herd, by="Ann") as review:
        review.name(2, "Bob")
        table = review.export(tmp_path / "who.csv")
        boxes = review.export(tmp_path / "who.json")
    for path in (table, boxes):
        with fresh(herd, tmp_path) as other:
            other.read(path)
            assert (other.labels[10:15] == other.labels[10]).all()
            assert other.names == {int(other.labels[10]): "Bob"}
        (tmp_path / "other.sqlite").unlink()


def test_a_table_of_others_is_not_overwritten(review, tmp_path):
    (tmp_path / "mine.csv").write_text("name,age\n")
    with pytest.raises(ReviewError, match="so it stays"):
        review.export(tmp_path / "mine.csv")
    assert (tmp_path / "mine.csv").read_text() == "name,age\n"
    review.export(tmp_path / "who.csv")
    review.export(tmp_path / "who.csv")  # its own is


def test_images_of_one_name_have_no_id_for_animalclef(tmp_path):
    found = study_of(tmp_path / "run", TRUTH)
    records = Records(tuple(replace(r, path=r.path.with_name("same.jpg")) for r in found.records))
    twins = Study(found.run, found.dataset, type(found.images)(records), found.labels, found.found)
    with (
        Review.open(twins, by="Ann") as review,
        pytest.raises(ReviewError, match="30 are called 'same'"),
    ):
        review.export(tmp_path / "who.csv", form="animalclef")


def test_a_picture_that_is_gone_is_named(review, tmp_path):
    review.study.records[3].path.unlink()
    with pytest.raises(DataError, match="cannot be read any more"):
        review.export(tmp_path / "who.json")
    assert not (tmp_path / "who.json").exists()


def test_images_of_other_data_are_left_out_and_counted(review, tmp_path):
    (tmp_path / "in.csv").write_text("path,identity\n1/6.jpg,Cem\n1/7.jpg,Cem\nelsewhere.jpg,Cem\n")
    decision = review.read(tmp_path / "in.csv")
    assert "read 2 images from in.csv (1 of other images left out)" in decision.text
    assert review.names[int(review.labels[6])] == "Cem"
    assert review.labels[6] == review.labels[8]  # of which the table says nothing


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("a.csv", "file,who\n", "columns file, who"),
        ("a.csv", "path,identity\nnowhere.jpg,Ada\n", "names no image of this run"),
        ("a.csv", "path,identity\n0/0.jpg,\n", "names no image of this run"),
        ("a.csv", "path,identity\n0/0.jpg,Ada\n0/0.jpg,Bob\n", "both Ada and Bob"),
        ("a.csv", "path,identity,x,y,w,h\n0/0.jpg,Ada,1,2,many,4\n", "cannot be read"),
        ("a.json", "{", "cannot be read"),
        ("a.json", "[1]", "cannot be read"),
        (
            "a.json",
            '{"images": [], "annotations": [{"bbox": [1, 2], "image_id": 3}]}',
            "cannot be read",
        ),
        ("nowhere.csv", None, "cannot be read"),
        ("a.csv", "identity,path\nAda\n", "line 2 has too few cells"),
        ("a.csv", "cluster,image_id\n3\n", "line 2 has too few cells"),
        ("a.json", '{"images": [{"id": 1, "file_name": {}}], "annotations": []}', "a file_name is"),
        ("a.json", '{"images": ' + "[" * 100_000, "cannot be read"),
        (
            "a.json",
            '{"images": [{"id": 1, "file_name": "a"}], "annotations": '
            '[{"image_id": 1, "bbox": [Infinity, 1, 1, 1]}]}',
            "cannot be read",
        ),
    ],
)
def test_a_broken_table_is_refused_in_words_and_changes_nothing(review, tmp_path, name, text, words):
    if text is not None:
        (tmp_path / name).write_text(text)
    before = review.labels.tolist()
    with pytest.raises(ReviewError, match=words):
        review.read(tmp_path / name)
    assert review.labels.tolist() == before


def test_a_table_that_contradicts_what_was_said_is_refused_unless_it_overrules(review, tmp_path):
    review.different(0 + EACH * 2, EACH * 3)
    (tmp_path / "in.csv").write_text("path,identity\n2/10.jpg,Cem\n3/15.jpg,Cem\n")
    with pytest.raises(ReviewError, match="different by Ann"):
        review.read(tmp_path / "in.csv")
    review.read(tmp_path / "in.csv", overrule=True)
    assert review.labels[10] == review.labels[15]
