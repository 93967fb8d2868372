"""Fingerprints of images, and groups of those that nearly are the same picture."""

from __future__ import annotations

import threading
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from conftest import random_image, save_image
from gracl.data import duplicates, store
from gracl.data.duplicates import each_crop, fingerprints, grey_values, near_duplicates
from gracl.data.records import Box, Record
from gracl.data.store import decode
from gracl.errors import ConfigError, ShapeError


def one(path: Path, box: Box | None = None) -> duplicates.Fingerprint:
    prints, problems = fingerprints([Record(path, box=box)])
    assert problems == {}
    return prints[path, box]


# -- fingerprints ---------------------------------------------------------------------------------


def test_digest_follows_pixels_and_not_the_file(tmp_path: Path) -> None:
    first = one(save_image(tmp_path / "a.png"))
    assert one(save_image(tmp_path / "b.bmp")).digest == first.digest
    assert one(save_image(tmp_path / "c.png", seed=1)).digest != first.digest


def test_digest_knows_a_row_from_a_column(tmp_path: Path) -> None:
    for size in ((4, 6), (6, 4)):
        Image.fromarray(np.zeros((*size, 3), np.uint8)).save(tmp_path / f"{size[0]}.png")
    assert one(tmp_path / "4.png").digest != one(tmp_path / "6.png").digest


def test_one_changed_pixel_is_another_digest(tmp_path: Path) -> None:
    pixels = np.asarray(random_image()).copy()
    save_image(tmp_path / "a.png")
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(tmp_path / "b.png")
    assert one(tmp_path / "a.png").digest != one(tmp_path / "b.png").digest


def test_grey_values_are_the_means_of_their_cells() -> None:
    image = random_image(size=(32, 48))
    grey = np.asarray(image.convert("L"), dtype=float)
    cells = [[grey[2 * r : 2 * r + 2, 3 * c : 3 * c + 3].mean() for c in range(16)] for r in range(16)]
    assert np.abs(grey_values(image) - np.ravel(cells)).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (5, 300), (16, 16), (1000, 3)])
def test_image_of_any_size_has_as_many_grey_values(size: tuple[int, int]) -> None:
    assert grey_values(random_image(size=size)).shape == (256,)


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "RGBA", "LA", "1", "CMYK", "I;16", "I"])
@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_images_are_what_the_store_decodes(tmp_path: Path, mode: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / {"CMYK": "a.jpg", "I": "a.tif"}.get(mode, "a.png")  # PNG has neither
    source = random_image(size=(9, 7))
    deep = Image.fromarray(np.arange(63, dtype=np.uint16).reshape(9, 7) * 900)
    image = {"I;16": deep, "I": deep.convert("I")}.get(mode) or source.convert(mode)
    image.save(path, exif=exif)
    size = (7, 9) if orientation == 6 else (9, 7)
    whole, part = Record(path), Record(path, box=Box(1, 2, 3, 4))
    seen, problems = each_crop([whole, part], lambda _, image: np.asarray(image).transpose(2, 0, 1))
    assert problems == {}
    assert np.array_equal(seen[path, None], decode(whole, size))
    assert np.array_equal(seen[path, part.box], decode(part, (4, 3)))


def test_file_is_opened_once_however_many_crops_it_holds(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png")
    crops = [Record(path, box=Box(n, 0, 2, 2)) for n in range(5)]
    with mock.patch.object(duplicates.Image, "open", wraps=Image.open) as opened:
        prints, _ = fingerprints([*crops, *crops, Record(path)])
    assert opened.call_count == 1
    assert len(prints) == 6


def test_bad_files_and_bad_boxes_are_problems_of_their_own(tmp_path: Path) -> None:
    good, bad = save_image(tmp_path / "a.png"), tmp_path / "b.png"
    bad.write_bytes(b"no image")
    records = [Record(good), Record(good, box=Box(99, 0, 1, 1)), Record(bad), Record(tmp_path / "none")]
    prints, problems = fingerprints(records)
    assert list(prints) == [(good, None)]
    reasons = [problem.reason.split(":")[0] for problem in problems.values()]
    assert reasons == ["ValueError", "UnidentifiedImageError", "FileNotFoundError"]


def test_image_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_PIXELS", 95)
    _, problems = fingerprints([Record(save_image(tmp_path / "a.png"))])
    assert "12" in problems[tmp_path / "a.png", None].reason
    assert "the largest that is decoded has 95" in problems[tmp_path / "a.png", None].reason


def test_progress_counts_images_across_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duplicates, "FILES_AT_ONCE", 2)
    records = [Record(save_image(tmp_path / f"{n}.png", seed=n)) for n in range(5)]
    seen: list[tuple[int, int]] = []
    prints, _ = fingerprints(records, lambda done, total: seen.append((done, total)))
    assert seen == [(n, 5) for n in range(1, 6)]
    assert [path for path, _ in prints] == [record.path for record in records]


def test_error_of_the_work_is_the_callers(tmp_path: Path) -> None:
    def fail(record: Record, image: Image.Image) -> None:
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        each_crop([Record(save_image(tmp_path / "a.png"))], fail)


def test_work_is_done_in_threads(tmp_path: Path) -> None:
    records = [Record(save_image(tmp_path / "a.png"))]
    names, _ = each_crop(records, lambda *_: threading.current_thread().name)
    assert threading.current_thread().name not in names.values()


# -- near duplicates ------------------------------------------------------------------------------


def naive_groups(grey: NDArray[np.uint8], near: float) -> list[set[int]]:
    """Pairs by numpy's own correlation, joined until nothing changes."""
    groups = [{n} for n in range(len(grey))]
    for a in range(len(grey)):
        for b in range(a):
            x, y = grey[a].astype(float), grey[b].astype(float)
            if x.std() and y.std() and np.corrcoef(x, y)[0, 1] >= near:
                merged = next(g for g in groups if a in g) | next(g for g in groups if b in g)
                groups = [g for g in groups if not g & merged] + [merged]
    return groups


@given(
    st.integers(0, 10**6), st.integers(0, 14), st.sampled_from([0.5, 0.8, 0.95]), st.integers(1, 400)
)
def test_near_duplicates_agree_with_their_definition(
    seed: int, n: int, near: float, memory: int
) -> None:
    random = np.random.default_rng(seed)
    scenes = random.integers(0, 256, (4, 9))
    grey = scenes[random.integers(0, 4, n)] + random.normal(0, 30, (n, 9))
    grey = grey.clip(0, 255).astype(np.uint8)
    found = near_duplicates(grey, near, memory=memory)
    expected = {frozenset(group) for group in naive_groups(grey, near)}
    assert {frozenset(np.flatnonzero(found == g).tolist()) for g in set(found.tolist())} == expected
    firsts = [found.tolist().index(g) for g in range(found.max(initial=-1) + 1)]
    assert firsts == sorted(firsts)


def test_brightness_and_contrast_do_not_matter() -> None:
    ramp = np.arange(16, dtype=np.uint8)
    assert near_duplicates(np.stack([ramp, 10 * ramp, ramp + 200]), 0.999).tolist() == [0, 0, 0]


def test_near_is_inclusive_of_exact_copies() -> None:
    grey = np.repeat(np.random.default_rng(0).integers(0, 256, (1, 256), dtype=np.uint8), 50, axis=0)
    assert set(near_duplicates(grey, 1.0, memory=1000).tolist()) == {0}


def test_chain_of_near_frames_is_one_group() -> None:
    wave = np.sin(np.linspace(0, 6, 256) + np.linspace(0, 3, 30)[:, None])
    grey = (127 + 120 * wave).astype(np.uint8)
    assert set(near_duplicates(grey).tolist()) == {0}
    assert set(near_duplicates(grey[[0, 29]]).tolist()) == {0, 1}


def test_flat_images_are_like_none() -> None:
    assert near_duplicates(np.full((3, 256), 7, dtype=np.uint8)).tolist() == [0, 1, 2]


def test_no_images_have_no_groups() -> None:
    assert near_duplicates(np.zeros((0, 256), dtype=np.uint8)).shape == (0,)


@pytest.mark.parametrize("near", [0.0, -0.5, 1.01, float("nan")])
def test_correlation_out_of_range_is_refused(near: float) -> None:
    with pytest.raises(ConfigError, match="expected a correlation above 0 and up to 1"):
        near_duplicates(np.zeros((2, 4), dtype=np.uint8), near)


def test_grey_values_of_another_shape_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"have shape \(4,\); expected \(N, D\)"):
        near_duplicates(np.zeros(4, dtype=np.uint8))
