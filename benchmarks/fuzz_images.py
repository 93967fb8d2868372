"""Pictures that are damaged, odd, or not pictures at all, for fuzz.py."""

from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from fuzz_watch import Case, Ending
from gracl.data.check import check_dataset
from gracl.data.readers import load_dataset
from gracl.data.records import Box, Dataset, Record, Records
from gracl.data.store import decode, open_store
from gracl.errors import DataError

Rng = np.random.Generator
SIZE = (32, 16)

MODES = {
    "JPEG": ("L", "RGB", "CMYK", "YCbCr"),
    "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
    "BMP": ("1", "L", "P", "RGB", "RGBA"),
    "TIFF": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "I", "I;16", "F"),
    "WEBP": ("L", "RGB", "RGBA"),
    "GIF": ("1", "L", "P", "RGB", "RGBA"),
    "PPM": ("1", "L", "RGB", "I", "I;16"),
}
Image.init()  # fills Image.SAVE
OTHERS = tuple(
    kind
    for kind in (
        "AVIF", "DDS", "EPS", "ICNS", "ICO", "IM", "JPEG2000", "MPO", "PCX", "QOI", "SGI", "TGA", "XBM"
    )
    if kind in Image.SAVE
)  # fmt: skip
"""What Pillow writes too, old ones not all: a file is told by its content, whatever it is called."""
ENDINGS = {"JPEG": ".jpg", "TIFF": ".tif", "PPM": ".ppm"}
LENGTHS = (0, 1, 2**15, 30_000, 2**16 - 1, 2**24, 2**31 - 1, 2**32 - 1)


# -- valid ones -----------------------------------------------------------------------------------


def picture(rng: Rng, mode: str, size: tuple[int, int]) -> Image.Image:
    """Random pixels of (width, height)."""
    width, height = size
    if mode in ("I", "I;16"):
        kind = np.int32 if mode == "I" else np.uint16
        return Image.fromarray(rng.integers(0, 60_000, (height, width)).astype(kind))
    if mode == "F":
        values = rng.normal(0, 1e3, (height, width)).astype(np.float32)
        if rng.random() < 0.3:
            values[0, 0] = rng.choice([np.nan, np.inf, -np.inf, 3e38])
        return Image.fromarray(values)
    bands = len(Image.new(mode, (1, 1)).getbands())
    if mode == "1":
        return Image.fromarray(rng.integers(0, 256, (height, width), dtype=np.uint8)).convert("1")
    if mode == "P":
        return picture(rng, "RGB", size).convert("P", palette=Image.Palette.ADAPTIVE, colors=16)
    pixels = rng.integers(0, 256, (height, width, bands), dtype=np.uint8)
    return Image.frombytes(mode, size, pixels.tobytes())


def valid(rng: Rng) -> tuple[str, str, bytes]:
    """(what it is, its format, the file)."""
    kind = str(rng.choice([*MODES]))
    mode = str(rng.choice(MODES[kind]))
    sides = [(1, 1), (1, int(rng.integers(2, 400))), (30_000, 1), (1, 30_000), (30_000, 4)]
    size = sides[rng.integers(len(sides))] if rng.random() < 0.1 else _small(rng)
    if kind == "WEBP":
        size = (min(size[0], 16_383), min(size[1], 16_383))
    how: dict[str, object] = {}
    words = [kind, mode]
    if mode == "P" and kind in ("PNG", "GIF") and rng.random() < 0.6:
        how["transparency"] = (
            int(rng.integers(16)) if kind == "GIF" or rng.random() < 0.5 else b"\0\x80"
        )
        words.append("transparent")
    if kind == "TIFF" and mode in ("RGB", "L", "I;16", "F") and rng.random() < 0.6:
        names = ["tiff_lzw", "tiff_adobe_deflate", "packbits", *(["jpeg"] if mode == "RGB" else [])]
        how["compression"] = str(rng.choice(names))
        words.append(str(how["compression"]))
    if kind == "JPEG" and rng.random() < 0.3:
        how["progressive"] = True
    if kind in ("JPEG", "PNG", "WEBP", "TIFF") and rng.random() < 0.3:
        how["exif"] = _exif(rng)
        words.append("EXIF")
    if (
        kind in ("PNG", "WEBP", "GIF", "TIFF")
        and rng.random() < 0.2
        and max(size) < 400
        and "transparency" not in how
    ):
        how |= {"save_all": True, "append_images": [picture(rng, mode, size) for _ in range(3)]}
        words.append("moving")
    try:
        return " ".join(words), kind, _file(picture(rng, mode, size), kind, **how)
    except Exception:  # what this Pillow does not write, and of damaged EXIF
        return valid(rng)


def _small(rng: Rng) -> tuple[int, int]:
    return int(rng.integers(1, 90)), int(rng.integers(1, 90))


def _file(image: Image.Image, kind: str, **how: object) -> bytes:
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(file, kind, **how)
    return file.getvalue()


def _exif(rng: Rng) -> bytes:
    """A camera's, turned; or damaged."""
    exif = Image.Exif()
    exif[0x0112] = int(rng.choice([*range(1, 9), 0, 9, 65_535]))
    exif[0x010F] = "camera"
    content = exif.tobytes()
    if rng.random() < 0.5:
        content = content[:6] + damaged(rng, content[6:])[1]
    return content[:60_000]


# -- damage ---------------------------------------------------------------------------------------


def damaged(rng: Rng, content: bytes) -> tuple[str, bytes]:
    """(what was done, the bytes)."""
    what = str(rng.choice([*DAMAGES]))
    return what, DAMAGES[what](rng, content) if content else content


def _truncated(rng: Rng, content: bytes) -> bytes:
    return content[: int(rng.integers(len(content)))]


def _flipped(rng: Rng, content: bytes, within: int | None = None) -> bytes:
    changed = bytearray(content)
    for _ in range(int(rng.integers(1, 20))):
        changed[rng.integers(min(len(changed), within or len(changed)))] = rng.integers(256)
    return bytes(changed)


def _head_flipped(rng: Rng, content: bytes) -> bytes:
    return _flipped(rng, content, 80)


def _stretch(rng: Rng, content: bytes) -> tuple[int, int]:
    first, behind = sorted(int(place) for place in rng.integers(len(content), size=2))
    return first, behind


def _cut_out(rng: Rng, content: bytes) -> bytes:
    first, behind = _stretch(rng, content)
    return content[:first] + content[behind:]


def _repeated(rng: Rng, content: bytes) -> bytes:
    first, behind = _stretch(rng, content)
    return content[:behind] + content[first:behind] * int(rng.integers(1, 4)) + content[behind:]


def _blanked(rng: Rng, content: bytes) -> bytes:
    first, behind = _stretch(rng, content)
    return content[:first] + bytes([int(rng.choice([0, 255]))]) * (behind - first) + content[behind:]


def _longer(rng: Rng, content: bytes) -> bytes:
    return content + rng.bytes(int(rng.integers(1, 500)))


DAMAGES: dict[str, Callable[[Rng, bytes], bytes]] = {
    "truncated": _truncated,
    "bytes flipped": _flipped,
    "head flipped": _head_flipped,
    "a stretch cut out": _cut_out,
    "a stretch repeated": _repeated,
    "a stretch blanked": _blanked,
    "something appended": _longer,
}


def bomb(rng: Rng, kind: str, content: bytes) -> bytes:
    """The same file, which says that it is of another size."""
    width, height = (int(rng.choice(LENGTHS)) for _ in range(2))
    changed = bytearray(content)
    if kind == "PNG":
        changed[16:24] = struct.pack(">II", width, height)
        changed[29:33] = struct.pack(">I", zlib.crc32(bytes(changed[12:29])))
    elif kind == "GIF":
        place = 6 if rng.random() < 0.5 else max(content.find(b"\x2c"), 5) + 5
        changed[place : place + 4] = struct.pack("<HH", width % 2**16, height % 2**16)
    elif kind == "BMP":
        changed[18:26] = struct.pack("<II", width, height)
    elif kind == "JPEG":
        place = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
        changed[place + 5 : place + 9] = struct.pack(">HH", height % 2**16, width % 2**16)
    elif kind == "PPM":
        magic, _, rest = content.partition(b"\n")
        return b"%s\n%d %d\n" % (magic, width, height) + rest.partition(b"\n")[2]
    elif kind == "WEBP":
        changed[20:32] = rng.bytes(12)
    else:  # a number in the directory of a TIFF
        place = int.from_bytes(content[4:8], "little") + 2 + 12 * int(rng.integers(12))
        changed[place + 8 : place + 12] = struct.pack("<I", width)
    return bytes(changed)


def bad_content(rng: Rng) -> tuple[str, str, bytes]:
    """(what it is, the ending of its name, the file)."""
    draw = rng.random()
    if draw < 0.03:
        texts = [b"", b"\0", b"hello", b"<svg/>", b"GIF89a", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"]
        return "a text", ".jpg", texts[rng.integers(len(texts))] * int(rng.integers(1, 50))
    if draw < 0.05:
        return "noise", ".png", rng.bytes(int(rng.integers(1, 4000)))
    if draw < 0.17:
        kind = str(rng.choice(OTHERS))
        content = _file(picture(rng, "1" if kind == "XBM" else "RGB", (16, 16)), kind)
        what, content = damaged(rng, content) if rng.random() < 0.7 else ("whole", content)
        return f"{kind} under another name, {what}", ".jpg", content
    words, kind, content = valid(rng)
    ending = ENDINGS.get(kind, f".{kind.lower()}")
    if draw < 0.32:
        return words, ending, content
    if draw < 0.45:
        return f"{words}, a bomb", ending, bomb(rng, kind, content)
    what, content = damaged(rng, content)
    return f"{words}, {what}", ending, content


# -- fed ------------------------------------------------------------------------------------------


def one_image(rng: Rng, folder: Path) -> Case:
    """A file by itself, through `decode`, `check_dataset` and `open_store`."""
    what, ending, content = bad_content(rng)
    path = folder / f"x{ending}"
    odd = rng.random()
    if odd < 0.005:
        what = "a directory"
        path.mkdir()
    elif odd < 0.01:
        what = "a link to itself"
        path.symlink_to(path)
    else:
        path.write_bytes(content)
    box = None
    if rng.random() < 0.1:
        box = Box(*(int(rng.choice([-(2**40), -3, 0, 1, 5, 30, 2**40])) for _ in range(4)))
    record = Record(path, identity="a", box=box)
    return Case(what, lambda: _fed(record, folder))


def _fed(record: Record, folder: Path) -> Ending:
    endings: list[Ending] = []
    try:
        decode(record, SIZE)
        endings.append("read")
    except (OSError, ValueError) as error:
        if isinstance(error, MemoryError) or not str(error):
            raise
        endings.append("refused")
    report = check_dataset(Dataset("x", folder, "folder", Records((record,))))
    str(report)
    if report.problems and not report.problems[0].reason:
        raise AssertionError("a problem without a reason")
    try:
        store = open_store(Records((record,)), size=SIZE, cache=folder / "cache")
        assert len(store) == 1
        endings.append("read")
    except DataError:
        endings.append("refused")
    if len(set(endings)) > 1:
        raise AssertionError(f"decode, open_store: {endings}")
    return endings[0]


def folder_of_images(rng: Rng, folder: Path) -> Case:
    """Good files and bad ones together: the good ones are all read."""
    data, good = folder / "data", 0
    for who in ("a", "b"):
        (data / who).mkdir(parents=True)
        for at in range(10):
            if rng.random() < 0.3:
                good += 1
                picture(rng, "RGB", (20, 20)).save(data / who / f"good-{at}.png")
            else:
                _, ending, content = bad_content(rng)
                (data / who / f"bad-{at}{ending}").write_bytes(content)

    def feed() -> Ending:
        dataset = load_dataset(data)
        report = check_dataset(dataset)
        store = open_store(dataset.train, size=SIZE, cache=folder / "cache")
        kept = {record.path for record in store.records}
        assert sum(path.name.startswith("good") for path in kept) == good
        refused = {problem.path for problem in store.problems}
        assert len(kept) + len(refused) == len(dataset.train) + len(dataset.query)
        assert {problem.path for problem in report.problems} >= refused
        return "read"

    return Case("a folder", feed)


LARGE = [
    (kind, mode, size)
    for kind, mode, size in (
        ("PNG", "1", (10_000, 10_000)),
        ("PNG", "L", (10_000, 10_000)),
        ("PNG", "P", (10_000, 10_000)),
        ("PNG", "LA", (10_000, 10_000)),
        ("PNG", "RGB", (10_000, 10_000)),
        ("PNG", "RGBA", (10_000, 10_000)),
        ("PNG", "I;16", (10_000, 10_000)),
        ("PNG", "RGB", (10_001, 10_000)),
        ("PNG", "L", (100_000_000, 1)),
        ("PNG", "L", (1, 100_000_000)),
        ("PNG", "L", (14_000, 14_000)),
        ("JPEG", "RGB", (10_000, 10_000)),
        ("JPEG", "CMYK", (10_000, 10_000)),
        ("TIFF", "F", (10_000, 10_000)),
        ("TIFF", "I", (10_000, 10_000)),
        ("TIFF", "CMYK", (10_000, 10_000)),
        ("TIFF", "LAB", (10_000, 10_000)),
        ("GIF", "P", (10_000, 10_000)),
        ("WEBP", "RGB", (10_000, 10_000)),
        ("PPM", "1", (10_000, 10_000)),
    )
]


def large_image(rng: Rng, folder: Path) -> Case:
    """Files of a few hundred kilobytes, each one flat colour, that are large pictures in memory."""
    kind, mode, size = LARGE[int(rng.integers(len(LARGE)))]
    turned = kind in ("PNG", "JPEG", "TIFF") and rng.random() < 0.5
    exif = Image.Exif()
    exif[0x0112] = 6
    how: dict[str, object] = {"exif": exif.tobytes()} if turned else {}
    if kind == "TIFF":
        how["compression"] = "tiff_adobe_deflate"
    path = folder / f"x{ENDINGS.get(kind, f'.{kind.lower()}')}"
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    Image.new(mode, size).save(path, kind, **how)
    Image.MAX_IMAGE_PIXELS = limit
    record = Record(path)

    def feed() -> Ending:
        try:
            decode(record, SIZE)
        except (OSError, ValueError):
            return "refused"
        return "read"

    return Case(f"{kind} {mode} of {size[0]} x {size[1]}{', turned' if turned else ''}", feed)
