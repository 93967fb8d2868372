"""A finished run, opened to be looked at."""

from __future__ import annotations

import gc
import shutil
import sqlite3

import numpy as np
import pytest
import torch

from conftest import save_image
from gracl.data import thumbnails
from gracl.data.readers import load_dataset
from gracl.data.records import Box, Record, Records
from gracl.data.thumbnails import Thumbnails, thumbnail
from gracl.errors import DataError, RunError
from gracl.extraction import extract
from gracl.study import FEATURES, open_study


@pytest.fixture
def finished(small_run, tmp_path):
    """A copy of a finished run that a test may change."""
    return shutil.copytree(small_run, tmp_path / "run")


def test_rows_are_the_models_features_and_the_runs_labels(finished):
    found = open_study(finished)
    assert torch.equal(found.features, extract(found.run.model, found.images))
    assert found.labels.tolist() == [cluster for _, cluster in found.run.labels]
    assert [str(r.path.absolute()) for r in found.records] == [path for path, _ in found.run.labels]


def test_records_hold_no_identity_and_the_truth_is_asked_for_by_name(finished):
    found = open_study(finished)
    assert not found.records.has("identity")
    assert found.knows_truth
    names = [record.identity for record in found.dataset.train]
    assert [names[0] == name for name in names] == (found.pids == found.pids[0]).tolist()


def test_a_second_look_reads_the_kept_features(finished, monkeypatch):
    first = open_study(finished)
    monkeypatch.setattr("gracl.study.extract", None)
    assert torch.equal(open_study(finished).features, first.features)


def test_kept_features_of_another_model_are_made_anew(finished):
    right = open_study(finished).features
    content = dict(np.load(finished / FEATURES))
    content["features"] = content["features"][::-1].copy()
    content["about"] = np.array(str(content["about"]).replace('"fingerprint": "', '"fingerprint": "0'))
    np.savez(finished / FEATURES, **content)
    assert torch.equal(open_study(finished).features, right)


def test_broken_kept_features_are_made_anew(finished):
    right = open_study(finished).features
    (finished / FEATURES).write_bytes(b"PK broken")
    assert torch.equal(open_study(finished).features, right)


def test_other_images_are_refused(finished, small_data, tmp_path):
    other = shutil.copytree(small_data, tmp_path / "other")
    victim = load_dataset(other).train[0].path
    save_image(victim, seed=99, size=(32, 64))
    with pytest.raises(RunError, match="not the same"):
        open_study(finished, data=other)


def test_images_that_moved_are_found_where_it_is_said(finished, small_data, tmp_path):
    moved = shutil.copytree(small_data, tmp_path / "moved")
    found = open_study(finished, data=moved)
    assert found.records[0].path.is_relative_to(moved)


def test_images_that_vanished_are_named(finished):
    text = (finished / "data.json").read_text().replace("people", "nowhere")
    (finished / "data.json").write_text(text)
    with pytest.raises(DataError, match="--data FOLDER"):
        open_study(finished)


def test_the_distance_is_what_the_clusters_were_made_from(finished):
    from gracl.clustering import cluster

    found = open_study(finished)
    method = found.config.method
    assert cluster(found.distance, eps=method.eps, min_samples=method.min_samples).tolist() == (
        found.labels.tolist()
    )


# -- thumbnails -----------------------------------------------------------------------------------


def test_a_thumbnail_is_made_once(tmp_path, monkeypatch):
    save_image(tmp_path / "a.png", size=(60, 30))
    small = Thumbnails(Records((Record(tmp_path / "a.png"),)), height=20)
    first = small.jpeg(0)
    monkeypatch.setattr(thumbnails, "thumbnail", None)
    assert small.jpeg(0) == first
    assert Thumbnails(small.records, height=20).jpeg(0) == first


def test_a_changed_file_is_another_thumbnail(tmp_path):
    save_image(tmp_path / "a.png", size=(60, 30))
    small = Thumbnails(Records((Record(tmp_path / "a.png"),)), height=20)
    first = small.jpeg(0)
    save_image(tmp_path / "a.png", seed=5, size=(60, 31))
    assert small.jpeg(0) != first


def test_boxes_of_one_picture_are_thumbnails_of_their_own(tmp_path):
    save_image(tmp_path / "a.png", size=(60, 60))
    boxes = Box(0, 0, 30, 60), Box(30, 0, 30, 60)
    small = Thumbnails(Records(tuple(Record(tmp_path / "a.png", box=box) for box in boxes)), height=20)
    assert small.jpeg(0) != small.jpeg(1)


def test_preparing_names_what_cannot_be_read_and_makes_the_rest(tmp_path):
    save_image(tmp_path / "a.png", size=(60, 30))
    (tmp_path / "b.png").write_text("no picture")
    small = Thumbnails(
        Records(tuple(Record(tmp_path / name) for name in ("a.png", "b.png"))), height=20
    )
    told = []
    assert small.prepare(range(2), progress=lambda *at: told.append(at)) == [1]
    assert told == [(2, 2)]
    with pytest.raises(DataError, match=r"b.png cannot be shown"):
        small.jpeg(1)


def test_a_panorama_is_no_wider_than_twice_its_height(tmp_path):
    import io

    from PIL import Image

    save_image(tmp_path / "a.png", size=(30, 900))
    assert Image.open(io.BytesIO(thumbnail(Record(tmp_path / "a.png"), height=20))).size == (40, 20)


def test_no_metadata_leaves_with_a_thumbnail(tmp_path):
    import io

    from PIL import Image

    exif = Image.Exif()
    exif[0x010E] = "secret place"
    Image.new("RGB", (40, 40)).save(tmp_path / "a.jpg", exif=exif)
    jpeg = thumbnail(Record(tmp_path / "a.jpg"), height=20)
    assert not Image.open(io.BytesIO(jpeg)).getexif()
    assert b"secret" not in jpeg


def test_a_cache_that_nobody_closed_lets_go_by_itself(tmp_path):
    small = Thumbnails(Records((Record(save_image(tmp_path / "a.png")),)), height=20)
    database = small._database
    small.jpeg(0)
    del small
    gc.collect()
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        database.execute("SELECT 1")
