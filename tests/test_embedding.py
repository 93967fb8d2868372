"""Embedding: images in every form give the features of `extract`; files say whose they hold."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
import sys
import weakref
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import gracl
from conftest import random_image, save_image
from gracl import cli
from gracl.config import ModelConfig
from gracl.data.records import Box, Dataset, Problem, Record, Records
from gracl.data.synthetic import draw_people
from gracl.embedding import crops, embed, embed_batches
from gracl.errors import ConfigError, DataError, FingerprintError, RunError, ShapeError, WeightsError
from gracl.extraction import extract
from gracl.features import (
    Features,
    join_features,
    no_features,
    read_features,
    require_same_model,
    write_features,
)
from gracl.files import load_model, save_model
from gracl.models.embedder import Embedder, build_embedder
from gracl.models.fingerprint import fingerprint

DOC = (Path(__file__).parents[1] / "docs" / "embed.md").read_text(encoding="utf-8")
SIZE = (32, 16)
CLOSE = {"atol": 2e-6, "rtol": 0}
DIFFERENT = 1e-4
"""Other images' features are farther away than this, in their largest number."""


def make_model(seed: int = 0) -> Embedder:
    torch.manual_seed(seed)
    return build_embedder("test_resnet", size=SIZE).eval()


@pytest.fixture(scope="module")
def model() -> Embedder:
    return make_model()


def frame(seed: int = 0, size: tuple[int, int] = (40, 60)) -> NDArray[np.uint8]:
    return np.asarray(random_image(seed, size)).copy()


def records_of(*paths: Path) -> Records:
    return Records(tuple(Record(path) for path in paths))


def assert_same(a: torch.Tensor, b: torch.Tensor) -> None:
    torch.testing.assert_close(a, b, **CLOSE)


def assert_rows_differ(rows: torch.Tensor) -> None:
    """Else no comparison of rows could fail."""
    gaps = (rows[:, None] - rows[None]).abs().amax(dim=2) + torch.eye(len(rows))
    assert gaps.min() > DIFFERENT


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    return [save_image(tmp_path / "photos" / f"{n}.png", n, (40, 30)) for n in range(5)]


# -- the same as extract --------------------------------------------------------------------------


def with_exif(image: Image.Image, path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    image.save(path, exif=exif)


def clear_palette(image: Image.Image, path: Path) -> None:
    image.quantize(16).save(path, transparency=3)


def sixteen_bits(image: Image.Image, path: Path) -> None:
    Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 11 + 900).save(path)


KINDS: dict[str, Callable[[Image.Image, Path], None]] = {
    "plain.png": lambda image, path: image.save(path),
    "turned.jpg": with_exif,
    "turned.png": with_exif,
    "palette.png": lambda image, path: image.quantize(16).save(path),
    "clear.png": clear_palette,
    "rgba.png": lambda image, path: image.convert("RGBA").save(path),
    "grey.png": lambda image, path: image.convert("L").save(path),
    "grey_alpha.png": lambda image, path: image.convert("LA").save(path),
    "cmyk.tif": lambda image, path: image.convert("CMYK").save(path),
    "16bit.png": sixteen_bits,
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_and_its_picture_give_the_features_of_extract(
    kind: str, model: Embedder, tmp_path: Path
) -> None:
    path = tmp_path / kind
    KINDS[kind](random_image(1, (40, 60)), path)
    other = save_image(tmp_path / "other.png", 2, (40, 60))
    expected = extract(model, records_of(path, other))
    assert_rows_differ(expected)
    assert_same(embed(model, [path, other]).features, expected)
    with Image.open(path) as opened:
        found = embed(model, [opened, other])
    assert_same(found.features, expected)
    assert found.records == records_of(path, other)


def test_a_turned_picture_is_not_embedded_as_it_lies(model: Embedder, tmp_path: Path) -> None:
    with_exif(random_image(1, (40, 60)), tmp_path / "turned.png")
    lying, turned = random_image(1, (40, 60)), random_image(1, (40, 60)).rotate(-90, expand=True)
    found = embed(model, [tmp_path / "turned.png", turned, lying]).features
    assert_same(found[0], found[1])
    assert (found[0] - found[2]).abs().max() > DIFFERENT


def test_a_big_jpeg_is_drafted_as_in_the_store(model: Embedder, tmp_path: Path) -> None:
    y, x = np.mgrid[:600, :400]
    image = Image.fromarray(np.stack([x % 256, y % 256, (x * y) % 251], axis=2).astype(np.uint8))
    image.save(tmp_path / "big.jpg")
    records = records_of(tmp_path / "big.jpg")
    assert_same(embed(model, records).features, extract(model, records))


def test_rows_are_unit_float32_in_order(model: Embedder, files: list[Path]) -> None:
    found = embed(model, files)
    assert found.features.shape == (5, model.dim) == (len(found), found.dim)
    assert found.features.dtype == torch.float32
    assert_same(found.features.norm(dim=1), torch.ones(5))
    assert_rows_differ(found.features)
    assert_same(embed(model, files[::-1]).features, found.features.flip(0))
    assert found.records == records_of(*files)
    assert (found.fingerprint, found.backbone, found.size) == (fingerprint(model), "test_resnet", SIZE)


@pytest.mark.parametrize("batch_size", [1, 2, 4, 5, 64])
def test_features_do_not_depend_on_the_batch(
    batch_size: int, model: Embedder, files: list[Path]
) -> None:
    expected = extract(model, records_of(*files))
    found = embed(model, files, batch_size=batch_size)
    assert_same(found.features, expected)
    assert found.records == records_of(*files)


def test_the_model_keeps_its_mode_and_its_weights(model: Embedder, files: list[Path]) -> None:
    before = fingerprint(model)
    expected = embed(model, files).features
    model.train()
    try:
        assert_same(embed(model, files, device="cpu").features, expected)
        assert model.training
        for _ in embed_batches(model, files, batch_size=2):
            assert model.training
    finally:
        model.eval()
    assert fingerprint(model) == before
    assert not expected.requires_grad


# -- forms of images ------------------------------------------------------------------------------


def test_each_form_of_the_same_images(model: Embedder, files: list[Path]) -> None:
    expected = extract(model, records_of(*files))
    records = records_of(*files)
    arrays = [np.asarray(Image.open(path)).copy() for path in files]
    rgba = [np.dstack([array, np.full(array.shape[:2], 9, np.uint8)]) for array in arrays]
    forms: list[Any] = [
        files,
        [str(path) for path in files],
        np.array([str(path) for path in files]),
        files[0].parent,
        str(files[0].parent),
        records,
        list(records),
        Dataset(
            "mine", files[0].parent, "folder", train=records[:2], query=records[1:], gallery=records
        ),
        arrays,
        tuple(arrays),
        np.stack(arrays),
        rgba,
        [Image.fromarray(array) for array in arrays],
        iter(arrays),
        (path for path in files),
        [files[0], Image.open(files[1]), iter([arrays[2], records[3]]), [[arrays[4]]]],
        [records[:3], np.stack(arrays[3:])],
    ]
    for form in forms:
        assert_same(embed(model, form, batch_size=2).features, expected)


@pytest.mark.parametrize(
    "form", [str, Path, Record, Image.open, lambda path: np.asarray(Image.open(path))]
)
def test_one_image_is_one_row(form: Callable[[Any], Any], model: Embedder, files: list[Path]) -> None:
    assert_same(embed(model, form(files[2])).features, extract(model, records_of(files[2])))


def test_grey_arrays_are_read_as_grey_files(model: Embedder, tmp_path: Path) -> None:
    grey = np.asarray(random_image(3, (40, 30)).convert("L")).copy()
    deep = grey.astype(np.uint16) * 11 + 900
    Image.fromarray(grey).save(tmp_path / "8.png")
    Image.fromarray(deep).save(tmp_path / "16.png")
    expected = extract(model, records_of(tmp_path / "8.png", tmp_path / "16.png"))
    assert_same(embed(model, [grey, deep]).features, expected)
    assert_same(embed(model, [grey[:, :, None]]).features, expected[:1])


def test_a_table_names_images_and_what_is_known(model: Embedder, files: list[Path]) -> None:
    table = files[0].parent.parent / "table.csv"
    lines = "path,identity,camera,x,y,w,h\nphotos/0.png,lynx,c1,2,3,20,30\nphotos/1.png,,,,,,\n"
    table.write_text(lines, encoding="utf-8")
    found = embed(model, table)
    boxed = Record(files[0], identity="lynx", camera="c1", box=Box(2, 3, 20, 30))
    assert found.records == Records((boxed, Record(files[1])))
    assert_same(found.features, extract(model, found.records))


def test_pictures_without_a_file_are_called_by_their_place(model: Embedder, files: list[Path]) -> None:
    found = embed(model, iter([frame(1), files[0], Image.fromarray(frame(2))]), batch_size=1)
    assert [record.path for record in found.records] == [Path("image-0"), files[0], Path("image-2")]


def test_nothing_gives_no_rows(model: Embedder) -> None:
    for nothing in ([], iter([]), Records(), crops([frame()], [[]])):
        found = embed(model, nothing)
        assert found.features.shape == (0, model.dim)
        assert len(found) == 0
    assert list(embed_batches(model, [])) == []


def test_progress_counts_each_batch_with_a_total_where_it_is_known(
    model: Embedder, files: list[Path]
) -> None:
    def seen(images: Any) -> list[tuple[int, int | None]]:
        calls: list[tuple[int, int | None]] = []
        embed(model, images, batch_size=2, progress=lambda *call: calls.append(call))
        return calls

    known = [(2, 5), (4, 5), (5, 5)]
    for images in (files, records_of(*files), files[0].parent, [frame(n) for n in range(5)]):
        assert seen(images) == known
    assert seen(iter(files)) == [(2, None), (4, None), (5, None)]
    assert seen([files[0].parent]) == [(2, None), (4, None), (5, None)]
    assert seen(files[0]) == seen(frame()) == [(1, 1)]


# -- iterators ------------------------------------------------------------------------------------


def test_an_iterator_is_not_drained_ahead_of_its_batch(model: Embedder) -> None:
    drawn = 0

    def endless() -> Iterator[NDArray[np.uint8]]:
        nonlocal drawn
        while True:
            drawn += 1
            yield frame(drawn)

    batches = embed_batches(model, endless(), batch_size=3)
    assert drawn == 0
    for done in (3, 6, 9):
        assert len(next(batches)) == 3
        assert drawn == done


def test_memory_does_not_grow_with_the_length_of_an_iterator(model: Embedder) -> None:
    alive: set[int] = set()
    most = 0

    def frames() -> Iterator[NDArray[np.uint8]]:
        nonlocal most
        for n in range(20):
            array = frame(n)
            alive.add(n)
            weakref.finalize(array, alive.discard, n)
            most = max(most, len(alive))
            yield array

    assert len(embed(model, frames(), batch_size=4)) == 20
    assert most <= 4
    assert len(embed(model, crops(frames(), [[(0, 0, 9, 9)]] * 20), batch_size=4)) == 20
    assert most <= 4


def test_a_reader_may_use_the_memory_of_a_frame_again(model: Embedder) -> None:
    def reused() -> Iterator[NDArray[np.uint8]]:
        memory = np.empty((40, 60, 3), np.uint8)
        for n in range(4):
            memory[:] = frame(n)
            yield memory

    expected = embed(model, [frame(n) for n in range(4)]).features
    assert_rows_differ(expected)
    assert_same(embed(model, reused()).features, expected)
    whole = [[(0, 0, 60, 40)]] * 4
    assert_same(embed(model, crops(reused(), whole)).features, expected)


# -- crops ----------------------------------------------------------------------------------------


def test_a_crop_is_a_record_with_its_box_clipped_to_the_frame(model: Embedder, tmp_path: Path) -> None:
    path = save_image(tmp_path / "frame.png", 7, (40, 60))
    given = [(5, 4, 20, 30), (-6, -2, 20, 30), (50, 30, 90, 90), (0, 0, 60, 40)]
    clipped = [Box(5, 4, 20, 30), Box(0, 0, 14, 28), Box(50, 30, 10, 10), Box(0, 0, 60, 40)]
    expected = extract(model, Records(tuple(Record(path, box=Box(*box)) for box in given)))
    assert_rows_differ(expected)
    for picture in (path, str(path), Image.open(path), frame(7)):
        found = embed(model, crops([picture], [given]))
        assert_same(found.features, expected)
        assert [record.box for record in found.records] == clipped
    assert {record.path for record in found.records} == {Path("frame-0")}
    assert embed(model, crops([path], [given])).records[0].path == path


@pytest.mark.parametrize("kind", KINDS)
def test_a_crop_of_an_odd_frame_is_that_of_its_file(kind: str, model: Embedder, tmp_path: Path) -> None:
    path = tmp_path / kind
    KINDS[kind](random_image(1, (40, 60)), path)
    boxes = [(3, 2, 20, 30), (15, 9, 22, 28)]
    expected = extract(model, Records(tuple(Record(path, box=Box(*box)) for box in boxes)))
    assert_rows_differ(expected)
    with Image.open(path) as opened:
        found = embed(model, crops([path, opened], [boxes, boxes]))
    assert_same(found.features, expected.repeat(2, 1))


def test_boxes_belong_to_their_frames_in_order(model: Embedder) -> None:
    boxes: list[Any] = [[(0, 0, 30, 40)], [], np.array([[30.4, 0.0, 29.6, 40.0], [0, 0, 30, 40]])]
    found = embed(model, crops((frame(n) for n in range(3)), iter(boxes)), batch_size=2)
    parts = [frame(0)[:, :30], frame(2)[:, 30:], frame(2)[:, :30]]
    assert_same(found.features, embed(model, parts).features)
    assert [str(record.path) for record in found.records] == ["frame-0", "frame-2", "frame-2"]
    assert found.records[1].box == Box(30, 0, 30, 40)


BAD_BOXES = {
    (5, 5, 0, 9): "a crop box of 0 x 9 pixels is empty",
    (5, 5, 9, -3): "is empty",
    (60, 0, 9, 9): "lies outside the image of 60 x 40 pixels",
    (-9, 0, 9, 9): "lies outside",
    (1, 2, 3): "not enough values",
    (float("nan"), 0, 9, 9): "NaN",
    (0.1, 0.1, 0.2, 0.2): "look relative to the size of the image",
}


@pytest.mark.parametrize(("box", "said"), BAD_BOXES.items())
def test_a_box_without_pixels_is_refused_or_left_out(
    box: tuple[float, ...], said: str, model: Embedder
) -> None:
    boxes = [[(0, 0, 9, 9)], [box, (9, 9, 9, 9)]]
    with pytest.raises(DataError, match=re.compile(f"frame-1: .*{said}.*--on-bad skip", re.DOTALL)):
        embed(model, crops([frame(), frame()], boxes))
    found = embed(model, crops([frame(), frame()], boxes), on_bad="skip")
    assert len(found) == 2
    (left_out,) = found.left_out
    assert left_out.path == Path("frame-1")
    assert said in left_out.reason


def test_frames_and_boxes_must_be_as_many(model: Embedder) -> None:
    with pytest.raises(DataError, match="there are only 1 lists of boxes"):
        embed(model, crops([frame(), frame()], [[]]))
    with pytest.raises(DataError, match="there are only 1 frames"):
        embed(model, crops([frame()], [[], []]))


def test_a_frame_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"frame 1, .*gone.jpg, cannot be read: FileNotFoundError"):
        list(crops([frame(), tmp_path / "gone.jpg"], [[], []]))


# -- refusals -------------------------------------------------------------------------------------


@pytest.fixture
def spoilt(files: list[Path]) -> list[Path]:
    """Five good images with two bad ones between them."""
    folder = files[0].parent
    (folder / "2b.png").write_bytes(b"no image")
    return [*files[:3], folder / "2b.png", folder / "gone.jpg", *files[3:]]


def test_an_image_that_cannot_be_read_is_refused_with_its_name(
    model: Embedder, spoilt: list[Path]
) -> None:
    with pytest.raises(
        DataError, match=re.compile(r"2b\.png: Unid.*gone\.jpg: FileNotFound", re.DOTALL)
    ):
        embed(model, spoilt)
    with pytest.raises(DataError, match=r"2b\.png"):
        embed(model, spoilt[0].parent)


@pytest.mark.parametrize("batch_size", [1, 3, 64])
def test_skip_leaves_it_out_and_says_so(
    batch_size: int, model: Embedder, spoilt: list[Path], files: list[Path]
) -> None:
    found = embed(model, spoilt, on_bad="skip", batch_size=batch_size)
    assert found.records == records_of(*files)
    assert_same(found.features, extract(model, records_of(*files)))
    assert [problem.path for problem in found.left_out] == spoilt[3:5]
    assert all(problem.reason for problem in found.left_out)


def test_if_no_image_can_be_read_skip_is_no_help(model: Embedder, spoilt: list[Path]) -> None:
    with pytest.raises(DataError, match=r"none of 2 images can be used; the first, .*2b\.png"):
        embed(model, spoilt[3:5], on_bad="skip")


def test_what_a_reader_could_not_use_is_refused_before_the_work(
    model: Embedder, files: list[Path]
) -> None:
    problem = Problem(Path("lost.png"), "line 3 names a file that does not exist")
    dataset = Dataset("mine", Path(), "csv", train=records_of(*files), problems=(problem,))
    done: list[int] = []
    with pytest.raises(DataError, match=r"lost\.png: line 3 names"):
        embed(model, dataset, batch_size=1, progress=lambda n, _: done.append(n))
    assert done == []
    assert embed(model, dataset, on_bad="skip").left_out == (problem,)


ARRAYS = {
    "float of 0..1": (lambda a: a / 255, r"(255 * image).round().astype('uint8')"),
    "float of 0..255": (lambda a: a.astype(np.float32), "image.round().clip(0, 255).astype('uint8')"),
    "channels first": (lambda a: a.transpose(2, 0, 1), "Type image.transpose(1, 2, 0)"),
    "float, channels first": (
        lambda a: a.transpose(2, 0, 1) / 255,
        "Type (255 * image.transpose(1, 2, 0)).round().astype('uint8')",
    ),
    "int64": (lambda a: a.astype(np.int64), "of int64; expected (H, W, 3) in RGB"),
    "bool": (lambda a: a[:, :, 0] > 9, "of bool; expected"),
    "colour of 16 bits": (lambda a: a.astype(np.uint16), "of uint16; expected"),
    "two channels": (lambda a: a[:, :, :2], "(40, 60, 2) of uint8; expected"),
    "one row": (lambda a: a[0, :, 0], "(60,) of uint8; expected"),
    "no pixel": (lambda a: a[:0], "(0, 60, 3) of uint8; expected"),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("on_bad", ["refuse", "skip"])
def test_an_array_that_is_no_image_is_refused_with_what_to_type(
    kind: str, on_bad: Any, model: Embedder
) -> None:
    change, said = ARRAYS[kind]
    wrong = change(frame())
    with pytest.raises(ShapeError, match=re.escape(said)):
        embed(model, [frame(), wrong], on_bad=on_bad)
    with pytest.raises(ShapeError, match=re.escape(said)):
        list(crops([wrong], [[]]))


def test_what_is_typed_instead_of_a_float_array_gives_its_features(model: Embedder) -> None:
    image = frame().transpose(2, 0, 1) / 255
    typed = (255 * image.transpose(1, 2, 0)).round().astype("uint8")
    assert_same(embed(model, typed).features, embed(model, frame()).features)


@pytest.mark.parametrize("thing", [7, None, {"a": 1}, b"bytes", torch.zeros(1, 3, 8, 8)])
def test_what_is_no_image_is_refused(thing: Any, model: Embedder) -> None:
    with pytest.raises(ShapeError, match=f"found a {type(thing).__name__}; expected paths"):
        embed(model, thing)
    with pytest.raises(ShapeError, match=f"found a {type(thing).__name__}; expected paths"):
        embed(model, [frame(), thing], on_bad="skip")


def test_a_dataframe_is_told_where_to_go(model: Embedder) -> None:
    with pytest.raises(ShapeError, match=r"Type gracl\.from_dataframe\(table\)"):
        embed(model, SimpleNamespace(columns=["path"]))


def test_settings_that_cannot_be_are_refused_at_once(model: Embedder, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="batch_size is 0; expected 1 or more"):
        embed_batches(model, [frame()], batch_size=0)
    with pytest.raises(ConfigError, match="'gpu'"):
        embed_batches(model, [frame()], device="gpu")
    (tmp_path / "photos").mkdir()
    with pytest.raises(DataError, match=r"phtoos does not exist\. did you mean 'photos'"):
        embed(model, tmp_path / "phtoos")


# -- models ---------------------------------------------------------------------------------------


def test_load_model_takes_a_run_or_its_file_and_says_what_else_it_was_given(tmp_path: Path) -> None:
    model = make_model()
    save_model(tmp_path / "model.safetensors", model, ModelConfig(backbone="test_resnet", size=SIZE))
    for path in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        loaded = load_model(path)
        assert not loaded.training
        require_same_model(no_features(loaded), model)
        assert loaded.backbone_name == "test_resnet"
    with pytest.raises(WeightsError, match=r"gone is no model: there is no such file or folder\. Give"):
        load_model(tmp_path / "gone")
    (tmp_path / "begun").mkdir()
    with pytest.raises(WeightsError, match=r"begun is no model: it has no model\.safetensors"):
        load_model(tmp_path / "begun")
    (tmp_path / "begun" / "config.yaml").touch()
    with pytest.raises(
        WeightsError, match=r"begun has no model\.safetensors yet: the run is not finish"
    ):
        load_model(tmp_path / "begun")


def test_features_of_different_models_are_kept_apart(model: Embedder, files: list[Path]) -> None:
    other = make_model(seed=1)
    a, b = embed(model, files), embed(other, files)
    require_same_model(a, embed(model, files[0]))
    require_same_model(a, model)
    both = f"{fingerprint(model)[:12]} .*{fingerprint(other)[:12]} "
    for wrong in (b, other):
        with pytest.raises(FingerprintError, match=both):
            require_same_model(a, wrong)
    with pytest.raises(FingerprintError, match=both):
        join_features(a, b)
    with pytest.raises(FingerprintError, match=r"32 x 16.*64 x 32"):
        require_same_model(a, replace(a, size=(64, 32)))


def test_joined_features_stand_one_after_another(model: Embedder, spoilt: list[Path]) -> None:
    parts = [embed(model, spoilt[:2]), embed(model, spoilt[2:], on_bad="skip")]
    joined = join_features(*parts)
    whole = embed(model, spoilt, on_bad="skip")
    assert_same(joined.features, whole.features)
    assert (joined.records, joined.left_out) == (whole.records, whole.left_out)


# -- files ----------------------------------------------------------------------------------------

ENDINGS = [".parquet", ".npz", ".csv"]


def known_features(model: Embedder, files: list[Path]) -> Features:
    """Images of which some things are known, and a frame, which is no file."""
    facts = [
        Record(files[0], identity='Tara, "the" lynx', camera="c1", box=Box(1, 2, 9, 8)),
        Record(files[1], date="2024-05-01"),
        Record(files[2], camera="östlich"),
    ]
    found = embed(model, [facts, frame()])
    return replace(found, features=found.features / 3)  # numbers with many digits


@pytest.mark.parametrize("ending", ENDINGS)
def test_features_are_read_as_they_were_written(
    ending: str, model: Embedder, files: list[Path], tmp_path: Path
) -> None:
    found = known_features(model, files)
    path = write_features(tmp_path / f"features{ending}", found)
    again = read_features(str(path))
    assert torch.equal(again.features, found.features)
    assert again.features.dtype == torch.float32
    assert again.records == found.records
    assert again.version == gracl.__version__
    assert (again.fingerprint, again.backbone) == (fingerprint(model), "test_resnet")
    assert (again.size, again.dim) == (SIZE, model.dim)
    require_same_model(again, model)
    again.features.add_(1)  # one's own, not a view of a file
    assert write_features(path, found) == path  # its own file may be written over
    assert [p.name for p in tmp_path.iterdir() if p.is_file()] == [path.name]


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_plain_file_has_only_the_columns_that_are_known(
    ending: str, model: Embedder, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(files[0].parent)
    found = embed(model, [Path("0.png"), Path("1.png")])
    path = write_features(tmp_path / f"f{ending}", found)
    assert read_features(path).records == records_of(*files[:2])  # whole paths
    if ending == ".parquet":
        from pyarrow import parquet

        assert parquet.read_schema(path).names == ["path", "features"]
    elif ending == ".npz":
        with np.load(path) as held:
            assert {*held.files} == {"path", "features", "about"}
    else:
        with path.open(encoding="utf-8", newline="") as lines:
            head = next(csv.reader(lines))
        model_columns = ["fingerprint", "backbone", "height", "width", "gracl"]
        assert head == ["path", *model_columns, *(f"f{i}" for i in range(model.dim))]


def test_others_can_read_the_parquet(model: Embedder, files: list[Path], tmp_path: Path) -> None:
    import pandas
    import pyarrow
    from pyarrow import parquet

    found = known_features(model, files)
    path = write_features(tmp_path / "f.parquet", found)
    schema = parquet.read_schema(path)
    names = ["path", "x", "y", "w", "h", "identity", "camera", "date", "features"]
    assert schema.names == names
    assert schema.field("features").type == pyarrow.list_(pyarrow.float32(), model.dim)
    assert json.loads(schema.metadata[b"gracl"]) == {
        "fingerprint": fingerprint(model),
        "backbone": "test_resnet",
        "size": list(SIZE),
        "dim": model.dim,
        "version": gracl.__version__,
    }
    table = pandas.read_parquet(path)
    assert np.array_equal(np.stack(list(table["features"])), found.features.numpy())
    assert table["w"].tolist()[0] == 9


def test_others_can_read_the_csv(model: Embedder, files: list[Path], tmp_path: Path) -> None:
    import pandas

    found = known_features(model, files)
    table = pandas.read_csv(write_features(tmp_path / "f.csv", found))
    numbers = table[[f"f{i}" for i in range(model.dim)]].to_numpy(np.float32)
    assert np.array_equal(numbers, found.features.numpy())
    assert set(table["fingerprint"]) == {fingerprint(model)}


def someone_elses(ending: str) -> bytes:
    if ending == ".csv":
        return b"path,cluster\na.jpg,1\n"
    file = io.BytesIO()
    if ending == ".npz":
        np.savez(file, features=np.zeros((2, 3), np.float32))
    else:
        import pyarrow
        from pyarrow import parquet

        parquet.write_table(pyarrow.table({"path": ["a"], "features": [[1.0]]}), file)
    return file.getvalue()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"\x00\xff\xfe broken", None])
def test_a_file_of_someone_else_is_neither_read_nor_overwritten(
    ending: str, content: bytes | None, model: Embedder, tmp_path: Path
) -> None:
    path = tmp_path / f"f{ending}"
    held = someone_elses(ending) if content is None else content
    path.write_bytes(held)
    with pytest.raises(DataError, match=re.escape(f"{path} cannot be read as features: ")):
        read_features(path)
    with pytest.raises(
        ConfigError, match="holds no features that gracl wrote, so it is not overwritten"
    ):
        write_features(path, embed(model, frame()))
    assert path.read_bytes() == held


@pytest.mark.parametrize(
    "change",
    [
        {"about": "[" * 100_000},
        {"about": '{"dim": 1e400}'},
        {"identity": np.array(["a"])},
        {"features": np.zeros((3, 3))},
        {"path": np.array("a")},
    ],
)
def test_an_npz_that_contradicts_itself_is_refused(
    change: dict[str, Any], model: Embedder, files: list[Path], tmp_path: Path
) -> None:
    path = write_features(tmp_path / "f.npz", known_features(model, files))
    with np.load(path) as held:
        arrays = {name: held[name] for name in held.files}
    np.savez(path, **(arrays | change))
    with pytest.raises(DataError, match="cannot be read as features"):
        read_features(path)


def test_a_csv_without_rows_or_with_short_ones_is_refused(
    model: Embedder, files: list[Path], tmp_path: Path
) -> None:
    path = write_features(tmp_path / "f.csv", known_features(model, files))
    head, first, *_ = path.read_text(encoding="utf-8").splitlines()
    for rows in ([], [first[:5]], [first, "a"]):
        path.write_text("\n".join([head, *rows]), encoding="utf-8")
        with pytest.raises(DataError, match="cannot be read as features"):
            read_features(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_cut_file_is_refused(ending: str, model: Embedder, files: list[Path], tmp_path: Path) -> None:
    path = write_features(tmp_path / f"f{ending}", embed(model, files))
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match="cannot be read as features: "):
        read_features(path)


def test_a_csv_with_rows_of_two_models_is_refused(
    model: Embedder, files: list[Path], tmp_path: Path
) -> None:
    other = make_model(seed=1)
    a = write_features(tmp_path / "a.csv", embed(model, files)).read_text("utf-8")
    b = write_features(tmp_path / "b.csv", embed(other, files)).read_text("utf-8")
    (tmp_path / "a.csv").write_text(a + b.partition("\n")[2], "utf-8")
    with pytest.raises(FingerprintError, match=f"{fingerprint(model)} and {fingerprint(other)}"):
        read_features(tmp_path / "a.csv")


def test_places_that_cannot_be_written_are_refused(model: Embedder, tmp_path: Path) -> None:
    found = embed(model, frame())
    for path, said in (
        (tmp_path / "f.txt", "ends in '.txt'; expected one of .parquet, .npz, .csv"),
        (tmp_path / "no" / "f.csv", "expected a file in a folder that exists"),
        (tmp_path, "ends in ''"),
    ):
        with pytest.raises(ConfigError, match=re.escape(said)):
            write_features(path, found)
    with pytest.raises(DataError, match="there are no features to write"):
        write_features(tmp_path / "f.csv", no_features(model))
    with pytest.raises(DataError, match=r"gone\.npz does not exist"):
        read_features(tmp_path / "gone.npz")
    with pytest.raises(ConfigError, match=r"ends in '\.jpg'"):
        read_features(save_image(tmp_path / "a.jpg"))


def test_without_pyarrow_parquet_is_refused_and_the_others_work(
    model: Embedder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=re.escape("pip install 'gracl[parquet]', or take a name")):
        write_features(tmp_path / "f.parquet", embed(model, frame()))
    assert len(read_features(write_features(tmp_path / "f.npz", embed(model, frame())))) == 1


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_write_that_fails_leaves_the_old_file(
    ending: str, model: Embedder, files: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_features(tmp_path / f"f{ending}", embed(model, files))
    old = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        write_features(path, embed(model, files[:2]))
    assert path.read_bytes() == old


# -- the command ----------------------------------------------------------------------------------


def run(*words: object) -> int:
    with pytest.raises(SystemExit) as stopped:
        cli.main([str(word) for word in words])
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


QUICK = "--model.backbone test_resnet --model.weights none --model.size 32 16 --train.epochs 1 " + (
    "--train.steps 2 --method.eps 0.7 --method.min-samples 2 --method.k1 6 --train.threads 1"
)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with drawn people in photos/ and a run of them in runs/photos."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRACL_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.chdir(home)
        draw_people("photos", identities=8, test_identities=3, cameras=2, images_per_camera=3)
        assert run("train", "photos", "--out", "runs/photos", *QUICK.split()) == 0
    return home


@pytest.fixture
def at_home(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder: a new one that sees the run and the photos."""
    for name in ("photos", "runs"):
        (tmp_path / name).symlink_to(home / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("ending", ENDINGS)
def test_the_command_writes_the_features_of_the_run(
    ending: str, at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"features{ending}"
    words = ("embed", "runs/photos", "photos", "-o", out, "--batch-size", 7, "--threads", 1)
    assert run(*words, "--device", "cpu") == 0
    said = capsys.readouterr().out
    dataset = gracl.load_dataset("photos")
    model = load_model("runs/photos")
    found = read_features(out)
    expected = Records(tuple(dict.fromkeys((*dataset.train, *dataset.query, *dataset.gallery))))
    assert len(expected) == 66
    assert [r.path for r in found.records] == [r.path.absolute() for r in expected]
    assert found.records.values("identity") == expected.values("identity")
    assert found.records.values("camera") == expected.values("camera")
    assert_same(found.features, extract(model, expected))
    require_same_model(found, model)
    assert (
        f"66 images, {model.dim} features each, by test_resnet {fingerprint(model)[:12]}: {out}" in said
    )
    assert run(*words) == 0  # over its own file


def test_the_command_takes_one_image_and_a_model_file(at_home: Path) -> None:
    image = gracl.load_dataset("photos").train[0].path
    assert run("embed", "runs/photos/model.safetensors", image, "--out", "one.npz") == 0
    assert_same(
        read_features("one.npz").features, extract(load_model("runs/photos"), records_of(image))
    )


def test_the_command_refuses_or_skips_what_cannot_be_read(
    at_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(3):
        save_image(at_home / "mine" / f"{n}.png", n)
    (at_home / "mine" / "bad.png").write_bytes(b"")
    words = ("embed", "runs/photos", "mine", "-o", "f.csv")
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert "bad.png: UnidentifiedImageError" in said
    assert "--on-bad skip" in said
    assert not Path("f.csv").exists()
    assert run(*words, "--on-bad", "skip") == 0
    said = capsys.readouterr().out
    assert "left out: mine/bad.png: UnidentifiedImageError" in said
    assert "3 images" in said
    assert len(read_features("f.csv")) == 3


def test_the_command_refuses_before_the_work(at_home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("diary.csv").write_text("path,what\n", "utf-8")
    for words, said in (
        (("runs/photos", "photos", "-o", "diary.csv"), "diary.csv exists and holds no features"),
        (("runs/photos", "photos", "-o", "f.txt"), "ends in '.txt'"),
        (("runs/gone", "photos", "-o", "f.npz"), "runs/gone is no model"),
        (("runs/photos", "gone", "-o", "f.npz"), "gone does not exist"),
        (("runs/photos", "photos", "-o", "f.npz", "--batch-size", "0"), "batch_size is 0"),
        (("runs/photos", "photos", "-o", "f.npz", "--threads", "-1"), "threads is -1"),
        (("runs/photos", "photos", "-o", "f.npz", "--device", "gpu"), "'gpu'"),
    ):
        assert run("embed", *words) == 2
        assert said in capsys.readouterr().err.replace("\n", "")
    assert Path("diary.csv").read_text("utf-8") == "path,what\n"
    assert not Path("f.npz").exists()


def test_help_names_what_it_takes(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("embed", "--help") == 0
    said = capsys.readouterr().out
    for word in ("RUN", "IMAGES", "-o", "--out", ".parquet", "--batch-size", "--on-bad", "--device"):
        assert word in said


# -- the page -------------------------------------------------------------------------------------


class Video:
    """As much of OpenCV's reader as the page uses; frames are BGR."""

    def __init__(self, file: str) -> None:
        assert file == "street.mp4"
        self.left = [frame(n, (70, 90))[:, :, ::-1] for n in range(3)]

    def read(self) -> tuple[bool, NDArray[np.uint8] | None]:
        return (True, self.left.pop(0)) if self.left else (False, None)


def test_the_page_runs(
    at_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    save_image(Path("new/one.jpg"))
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(VideoCapture=Video))
    lines = [
        line
        for block in re.findall(r"```console\n(.*?)```", DOC, re.DOTALL)
        for line in block.split("\n")
    ]
    shown = [line.removeprefix("$ ").split("  #")[0] for line in lines if line]
    for command in shown:
        program, *words = shlex.split(command)
        assert program == "gracl"
        assert run(*words) == 0
    assert len(shown) == 3
    assert len(read_features("one.npz")) == 1
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", DOC, re.DOTALL):
        exec(block, names)
    assert names["similarity"].shape == (1, 66)
    assert len(names["part"]) == 6
    boxes = [[(10, 5, 24, 60), (40, 8, 20, 52)]] * 3
    rgb = crops([frame(n, (70, 90)) for n in range(3)], boxes)
    assert_same(names["part"].features, embed(names["model"], rgb).features)
    said = capsys.readouterr().out
    assert f"frame-0 Box(x=10, y=5, width=24, height=60) torch.Size([{names['model'].dim}])" in said
