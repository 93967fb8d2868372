"""Images are decoded once, whatever they are, and what cannot be decoded is named."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from conftest import random_image, save_image
from faulty import without_permission
from gracl.data import store
from gracl.data.records import Box, Record, Records
from gracl.data.store import ImageStore, cache_folder, decode, open_store
from gracl.errors import DataError
from gracl.lock import held

SIZE = (16, 8)


def records_of(*paths: Path) -> Records:
    return Records(tuple(Record(path) for path in paths))


def folder_of_images(folder: Path, n: int = 3) -> Records:
    return records_of(*(save_image(folder / f"{i}.png", seed=i, size=SIZE) for i in range(n)))


def refuse_to_decode(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(record: Record, size: tuple[int, int]) -> None:
        raise AssertionError(f"{record.path} was decoded again")

    monkeypatch.setattr(store, "decode", refuse)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)


# -- once -----------------------------------------------------------------------------------------


def test_store_holds_the_decoded_images_in_record_order(tmp_path: Path) -> None:
    records = folder_of_images(tmp_path)
    opened = open_store(records, size=SIZE)
    assert (len(opened), opened.size, opened.images.dtype) == (3, SIZE, torch.uint8)
    assert opened.records == records
    for i, image in enumerate(opened.images):
        assert np.array_equal(image.numpy(), pixels(random_image(i, SIZE)))


def test_second_open_does_not_decode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    records = folder_of_images(tmp_path)
    first = open_store(records, size=SIZE)
    refuse_to_decode(monkeypatch)
    assert torch.equal(open_store(records, size=SIZE).images, first.images)


def test_identities_do_not_make_another_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_image(tmp_path / "a.png")
    open_store(records_of(path), size=SIZE)
    refuse_to_decode(monkeypatch)
    labelled = Records((Record(path, identity="7", camera="c1"),))
    assert open_store(labelled, size=SIZE).records == labelled


def test_changed_image_is_decoded_anew(tmp_path: Path) -> None:
    path = save_image(tmp_path / "a.png", seed=1, size=SIZE)
    open_store(records_of(path), size=SIZE)
    save_image(path, seed=2, size=SIZE)
    os.utime(path, ns=(0, 10**18))
    (image,) = open_store(records_of(path), size=SIZE).images
    assert np.array_equal(image.numpy(), pixels(random_image(2, SIZE)))


def test_size_box_and_order_each_make_another_store(tmp_path: Path, cache: Path) -> None:
    a, b = (Record(save_image(tmp_path / f"{n}.png", seed=n)) for n in (0, 1))
    boxed = Record(a.path, box=Box(0, 0, 4, 4))
    for records, size in [
        (Records((a, b)), SIZE),
        (Records((a, b)), (8, 16)),
        (Records((b, a)), SIZE),
        (Records((boxed, b)), SIZE),
    ]:
        open_store(records, size=size)
    assert len(list(cache.iterdir())) == 4


def test_store_lies_where_the_caller_or_the_environment_says(
    tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = folder_of_images(tmp_path / "data")
    open_store(records, size=SIZE, cache=tmp_path / "mine")
    assert len(list((tmp_path / "mine").iterdir())) == 1
    assert not list(cache.iterdir())
    assert cache_folder() == cache
    monkeypatch.delenv("GRACL_CACHE")
    monkeypatch.delenv("LOCALAPPDATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "gracl"


def test_progress_counts_every_image(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    records = folder_of_images(tmp_path)
    open_store(records, size=SIZE, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_writing_into_the_images_does_not_reach_the_store(tmp_path: Path) -> None:
    records = folder_of_images(tmp_path)
    open_store(records, size=SIZE).images.zero_()
    assert open_store(records, size=SIZE).images.any()


# -- kinds of images ------------------------------------------------------------------------------

KINDS = {
    "rgba.png": lambda image: image.convert("RGBA"),
    "palette.png": lambda image: image.quantize(256),
    "cmyk.tif": lambda image: image.convert("CMYK"),
    "cmyk.jpg": lambda image: image.convert("CMYK"),
    "grey.jpg": lambda image: image.convert("L"),
    "grey_alpha.png": lambda image: image.convert("LA"),
    "black_white.png": lambda image: image.convert("1"),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, name: str) -> None:
    image = KINDS[name](random_image(3, SIZE))
    image.save(tmp_path / name)
    decoded = decode(Record(tmp_path / name), SIZE)
    assert (decoded.shape, decoded.dtype) == ((3, *SIZE), np.uint8)
    if not name.endswith(".jpg"):
        assert np.array_equal(decoded, pixels(image))


def test_palette_with_translucent_colours_keeps_its_colours(tmp_path: Path) -> None:
    image = random_image(3, SIZE).quantize(16)
    image.save(tmp_path / "a.png", transparency=bytes([0, 128, *[255] * 14]))
    assert np.array_equal(decode(Record(tmp_path / "a.png"), SIZE), pixels(image))


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_grey_of_more_than_8_bits_is_spread_over_its_own_range(tmp_path: Path, kind: type) -> None:
    depth = np.linspace(1000, 3000, 128).reshape(SIZE).astype(kind)
    Image.fromarray(depth).save(tmp_path / "depth.tif")
    decoded = decode(Record(tmp_path / "depth.tif"), SIZE)
    assert (decoded.min(), decoded.max()) == (0, 255)
    assert abs(int(decoded[0, 8, 0]) - 128) < 3


def test_grey_of_16_bits_and_one_value_is_black(tmp_path: Path) -> None:
    Image.fromarray(np.full(SIZE, 700, dtype=np.uint16)).save(tmp_path / "flat.png")
    assert not decode(Record(tmp_path / "flat.png"), SIZE).any()


def test_rotated_photograph_stands_upright(tmp_path: Path) -> None:
    upright = random_image(3, SIZE)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn right by 90 degrees to look at it
    lying = upright.transpose(Image.Transpose.ROTATE_90)
    lying.save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(decode(Record(tmp_path / "a.png"), SIZE), pixels(upright))


def test_box_is_cut_from_the_upright_image(tmp_path: Path) -> None:
    upright = random_image(3, (20, 12))
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a.png", exif=exif)
    record = Record(tmp_path / "a.png", box=Box(2, 3, SIZE[1], SIZE[0]))
    assert np.array_equal(decode(record, SIZE), pixels(upright.crop((2, 3, 10, 19))))


def test_first_picture_of_an_animation_is_taken(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", SIZE[::-1], colour) for colour in ("red", "blue"))
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    assert decode(Record(tmp_path / "a.gif"), SIZE)[:, 0, 0].tolist() == [255, 0, 0]


def test_large_photograph_is_decoded_small_and_looks_the_same(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 512 * 256).reshape(512, 256).astype(np.uint8)
    Image.fromarray(ramp).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    small = Image.fromarray(ramp).resize(SIZE[::-1], Image.Resampling.BICUBIC)
    difference = decode(Record(tmp_path / "a.jpg"), SIZE).astype(int) - pixels(small)
    assert np.abs(difference).max() <= 4


# -- crop boxes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("box", "inside"),
    [
        (Box(1, 2, 5, 6), (1, 2, 6, 8)),
        (Box(-3, -4, 8, 10), (0, 0, 5, 6)),
        (Box(4, 6, 100, 100), (4, 6, 8, 12)),
        (Box(-5, -5, 100, 100), (0, 0, 8, 12)),
    ],
    ids=["within", "over the corner", "over the far edges", "larger than the image"],
)
def test_box_is_cut_to_what_lies_inside(
    tmp_path: Path, box: Box, inside: tuple[int, int, int, int]
) -> None:
    path = save_image(tmp_path / "a.png", size=(12, 8))
    cut = random_image(0, (12, 8)).crop(inside).resize(SIZE[::-1], Image.Resampling.BICUBIC)
    assert np.array_equal(decode(Record(path, box=box), SIZE), pixels(cut))


@pytest.mark.parametrize("box", [Box(8, 0, 4, 4), Box(0, 12, 4, 4), Box(-4, 0, 4, 4)])
def test_box_wholly_outside_is_a_bad_image(tmp_path: Path, box: Box) -> None:
    good = Record(save_image(tmp_path / "a.png", size=(12, 8)))
    opened = open_store(Records((Record(good.path, box=box), good)), size=SIZE)
    assert opened.records == Records((good,))
    assert "lies outside the image of 8 x 12 pixels" in opened.problems[0].reason


# -- bad images -----------------------------------------------------------------------------------


def make_bad(kind: str, path: Path) -> Path:
    save_image(path, seed=9, size=(64, 64))
    content = path.read_bytes()
    if kind == "missing":
        path.unlink()
    else:
        broken = {
            "empty": b"",
            "truncated": content[: len(content) // 2],
            "text": b"<html>404 not found</html>",
            "corrupt": content[:100] + bytes(100) + content[200:],
        }
        path.write_bytes(broken[kind])
    return path


@pytest.mark.parametrize("kind", ["empty", "truncated", "text", "corrupt", "missing"])
def test_bad_image_is_left_out_and_named(tmp_path: Path, kind: str) -> None:
    good = [save_image(tmp_path / f"{n}.png", seed=n, size=SIZE) for n in (0, 1)]
    suffix = ".png" if kind == "corrupt" else ".jpg"
    bad = make_bad(kind, tmp_path / f"bad{suffix}")
    opened = open_store(records_of(good[0], bad, good[1]), size=SIZE)
    assert [problem.path for problem in opened.problems] == [bad]
    assert opened.problems[0].reason
    assert opened.records == records_of(*good)


def test_records_and_images_stay_aligned_after_skipping(tmp_path: Path) -> None:
    paths = [
        make_bad("empty", tmp_path / f"{n}.png")
        if n in (0, 3, 4, 9)
        else save_image(tmp_path / f"{n}.png", seed=n, size=SIZE)
        for n in range(10)
    ]
    for _ in range(2):  # built, then opened
        opened = open_store(records_of(*paths), size=SIZE)
        assert [int(r.path.stem) for r in opened.records] == [1, 2, 5, 6, 7, 8]
        assert len(opened.images) == 6
        for record, image in zip(opened.records, opened.images, strict=True):
            seed = int(record.path.stem)
            assert np.array_equal(image.numpy(), pixels(random_image(seed, SIZE)))


def test_an_image_that_could_not_be_read_is_read_once_the_permission_is_there(tmp_path: Path) -> None:
    records = folder_of_images(tmp_path / "photos")
    place = tmp_path / "cache"

    def opened() -> ImageStore:
        return open_store(records, size=SIZE, cache=place)

    before = without_permission(records[1].path, opened, mode=0)
    assert [problem.path for problem in before.problems] == [records[1].path]
    assert len(opened()) == 3


def test_on_bad_refuse_names_the_image_and_the_way_out(tmp_path: Path) -> None:
    bad = make_bad("empty", tmp_path / "bad.jpg")
    records = records_of(save_image(tmp_path / "good.png"), bad)
    with pytest.raises(DataError, match=r"1 of 2 images cannot be used: .*bad.jpg.*data.on_bad"):
        open_store(records, size=SIZE, on_bad="refuse")
    assert len(open_store(records, size=SIZE)) == 1


def test_mended_image_is_taken_the_next_time(tmp_path: Path) -> None:
    path = make_bad("truncated", tmp_path / "b.jpg")
    records = records_of(save_image(tmp_path / "a.png"), path)
    assert len(open_store(records, size=SIZE)) == 1
    save_image(path)
    assert len(open_store(records, size=SIZE)) == 2


def test_oversize_image_is_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "MAX_PIXELS", 100)
    fits = save_image(tmp_path / "a.png", size=(10, 10))
    opened = open_store(records_of(fits, save_image(tmp_path / "b.png", size=(10, 11))), size=SIZE)
    assert opened.records == records_of(fits)
    assert opened.problems[0].reason == (
        "ValueError: 11 x 10 pixels; the largest that is decoded has 100, and no side of more than "
        "100,000"
    )


def test_a_side_that_is_too_long_to_resize_is_not_decoded(tmp_path: Path) -> None:
    Image.new("1", (100_001, 1)).save(tmp_path / "long.png")
    with pytest.raises(ValueError, match="no side of more than 100,000"):
        decode(Record(tmp_path / "long.png"), SIZE)
    Image.new("1", (100_000, 1)).save(tmp_path / "long.png")
    assert decode(Record(tmp_path / "long.png"), SIZE).shape == (3, *SIZE)


def test_a_bomb_is_an_error_of_the_kind_that_decode_promises(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save_image(tmp_path / "a.png", size=(10, 11))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50)  # Pillow's own limit, of an error of its own
    with pytest.raises(ValueError, match="DecompressionBombError"):
        decode(Record(path), SIZE)


def test_a_program_called_jpg_is_refused_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from PIL import EpsImagePlugin

    random_image().save(tmp_path / "a.jpg", "EPS")
    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_: pytest.fail("it was executed"))
    with pytest.raises(ValueError, match="EPS, which is a program"):
        decode(Record(tmp_path / "a.jpg"), SIZE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_picture_that_is_not_all_numbers_is_refused(tmp_path: Path, value: float) -> None:
    values = np.ones((9, 9), np.float32)
    values[3, 4] = value
    Image.fromarray(values).save(tmp_path / "heat.tif")
    with pytest.raises(ValueError, match="not all finite"):
        decode(Record(tmp_path / "heat.tif"), SIZE)


def test_many_grey_values_are_spread_as_one_whole_however_wide_the_picture() -> None:
    for shape in ((700, 9001), (2, 30_000), (30_000, 2), (1, 1)):
        values = np.random.default_rng(0).integers(20, 60_000, shape).astype(np.uint16)
        low, high = int(values.min()), int(values.max())
        expected = ((values - float(low)) * (255 / max(high - low, 1e-12))).astype(np.uint8)
        found = np.asarray(store.to_rgb(Image.fromarray(values)))
        assert (found == expected[:, :, None]).all(), shape


def test_error_of_any_type_from_a_reader_is_one_bad_image(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import struct

    def fail_on_b(record: Record, size: tuple[int, int]) -> np.ndarray:
        if record.path.name == "b.png":
            raise struct.error("required argument is not an integer")
        return decode(record, size)

    monkeypatch.setattr(store, "decode", fail_on_b)
    paths = [save_image(tmp_path / name) for name in ("a.png", "b.png")]
    assert [p.path for p in open_store(records_of(*paths), size=SIZE).problems] == [paths[1]]


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    bad = [make_bad("text", tmp_path / f"{n}.jpg") for n in range(2)]
    with pytest.raises(DataError, match=r"none of 2 images can be decoded; the first, .*0.jpg"):
        open_store(records_of(*bad), size=SIZE)


def test_no_records_is_an_error() -> None:
    with pytest.raises(DataError, match="the list of records is empty"):
        open_store(Records(), size=SIZE)


# -- the cache ------------------------------------------------------------------------------------


def test_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"cannot write the image store into .*GRACL_CACHE=FOLDER"):
        open_store(folder_of_images(tmp_path), size=SIZE, cache=tmp_path / "file")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("images.npy", None),
        ("images.npy", b"\x93NUMPY\x01\x00"),
        ("store.json", b""),
        ("store.json", b"\xc0"),
        ("store.json", b"[]"),
        ("store.json", b"{}"),
        ("store.json", b'{"bad": []}'),
        ("store.json", b'{"bad": {"x": "y"}}'),
        ("store.json", b'{"bad": {"999": "y"}}'),
        ("store.json", b'{"bad": {"0": "y"}}'),
        ("store.json", b"[" * 100_000),
    ],
)
def test_damaged_store_is_named_with_the_way_out(
    tmp_path: Path, cache: Path, name: str, content: bytes | None
) -> None:
    records = folder_of_images(tmp_path)
    open_store(records, size=SIZE)
    (damaged,) = cache.glob(f"*/{name}")
    damaged.unlink()
    if content is not None:
        damaged.write_bytes(content)
    with pytest.raises(DataError, match=r"is damaged .*Delete that folder"):
        open_store(records, size=SIZE)


def test_failure_while_decoding_leaves_nothing(tmp_path: Path, cache: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_store(folder_of_images(tmp_path), size=SIZE, progress=stop)
    assert not list(cache.iterdir())


def test_what_killed_processes_left_is_removed_and_what_others_make_is_not(
    tmp_path: Path, cache: Path
) -> None:
    for name in ("left", "made", "young", "finished"):
        (cache / f"{name}.unfinished").mkdir()
        if name != "young":  # not locked yet
            (cache / f"{name}.unfinished" / "images.npy").touch()
    (cache / "finished.unfinished" / "store.json").touch()  # about to be given its name
    with held(cache / "made.unfinished", doing="made"):
        open_store(folder_of_images(tmp_path), size=SIZE)
    left = sorted(path.name for path in cache.glob("*.unfinished"))
    assert left == ["finished.unfinished", "made.unfinished", "young.unfinished"]


def test_leftover_that_vanishes_meanwhile_is_no_error(tmp_path: Path, cache: Path) -> None:
    (cache / "gone.unfinished").symlink_to(cache / "finished by another process")
    assert len(open_store(folder_of_images(tmp_path), size=SIZE)) == 3


def test_second_to_finish_takes_the_store_of_the_first(tmp_path: Path, cache: Path) -> None:
    records = folder_of_images(tmp_path)
    first: list[ImageStore] = []

    def overtake(done: int, total: int) -> None:
        if not first:
            first.append(open_store(records, size=SIZE))

    second = open_store(records, size=SIZE, progress=overtake)
    assert torch.equal(first[0].images, second.images)
    assert len(list(cache.iterdir())) == 1


def build_when_all_are_ready(folder: Path, cache: Path, barrier: object, results: object) -> None:
    barrier.wait()
    opened = open_store(read_all(folder), size=SIZE, cache=cache)
    results.put(opened.images.sum().item())


def read_all(folder: Path) -> Records:
    return records_of(*sorted(folder.iterdir()))


def test_two_processes_at_once_give_one_store(tmp_path: Path, cache: Path) -> None:
    folder_of_images(tmp_path, 40)
    spawn = multiprocessing.get_context("spawn")
    barrier, results = spawn.Barrier(2), spawn.Queue()
    builders = [
        spawn.Process(target=build_when_all_are_ready, args=(tmp_path, cache, barrier, results))
        for _ in range(2)
    ]
    for builder in builders:
        builder.start()
    sums = [results.get(timeout=60) for _ in builders]
    for builder in builders:
        builder.join()
    assert [builder.exitcode for builder in builders] == [0, 0]
    expected = open_store(read_all(tmp_path), size=SIZE, cache=tmp_path / "other").images.sum().item()
    assert sums == [expected, expected]
    assert len(list(cache.iterdir())) == 1


BUILD_SLOWLY = """
import sys, time
from pathlib import Path
from gracl.data import store
from gracl.data.records import Record, Records
real = store.decode
def slow(record, size):
    if record.path.name == "2.png":
        print("decoding", flush=True)
        time.sleep(600)
    return real(record, size)
store.decode = slow
paths = sorted(Path(sys.argv[1]).iterdir())
store.open_store(Records(tuple(map(Record, paths))), size=(16, 8))
"""


def test_killed_builder_leaves_nothing_that_is_opened(tmp_path: Path, cache: Path) -> None:
    records = folder_of_images(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", BUILD_SLOWLY, str(tmp_path)], stdout=subprocess.PIPE
    ) as builder:
        assert builder.stdout is not None
        assert builder.stdout.readline() == b"decoding\n"
        builder.send_signal(signal.SIGKILL)
    assert builder.returncode == -signal.SIGKILL
    (left,) = cache.iterdir()
    assert left.suffix == ".unfinished"
    opened = open_store(records, size=SIZE)
    assert np.array_equal(opened.images[2].numpy(), pixels(random_image(2, SIZE)))
    assert not left.exists()  # its lock went with the process
