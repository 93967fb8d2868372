"""What guided.py feeds: a target for each family of readers, with seeds and changes of their own kind.

An input of most targets is one byte that says which reader, and then the file: so what is found can be
looked at with any editor. A change keeps the form (cells of a table, values of a tree, the header of
safetensors), as a byte changed anywhere would rarely get beyond the parser. Requests, folders and
pictures are built from the bytes instead, word for word, by `atheris.FuzzedDataProvider`.
"""

from __future__ import annotations

import csv
import io
import json
import os
import struct
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import atheris
import numpy as np
import torch
import yaml
from PIL import Image

import fuzz_files
from fuzz_files import HOSTILE, N, TABLES, TREES, YAMLS, good
from fuzz_images import damaged
from fuzz_watch import Ending
from gracl.card import training_of
from gracl.comparison import Comparison, Outcome, read_comparison, to_json
from gracl.config import Config
from gracl.data.boxes import read_header
from gracl.data.check import check_dataset
from gracl.data.huggingface import from_huggingface
from gracl.data.layouts import LAYOUTS
from gracl.data.readers import load_dataset
from gracl.data.records import Box, Record
from gracl.data.store import decode
from gracl.data.synthetic import draw_people
from gracl.data.thumbnails import thumbnail
from gracl.data.tracks import frame_number, read_tracks, tracks_text
from gracl.errors import DataError
from gracl.features import read_features, require_writable
from gracl.files import load_model, load_snapshot, read_calibration, read_description, save_snapshot
from gracl.gallery.entries import Where
from gracl.logbook import curves_of, ends_of
from gracl.models.weights import read_weights
from gracl.profiling import profile_run
from gracl.report.training_curves import training_charts
from gracl.runs import Run, train
from gracl.training import Snapshot
from gracl.web.search_app import search_application
from gracl.web.search_desk import Desk
from gracl.web.serving import guarded
from gracl.web.uploads import BadPicture, read_picture

Rng = np.random.Generator
Provider = Any  # atheris.FuzzedDataProvider
Change = Callable[[Rng, str, bytes], bytes]
TOKEN = "t"


@dataclass(frozen=True)
class Target:
    """A family of readers."""

    feed: Callable[[bytes], Ending]
    """Hands an input over; raises whatever the reader does."""
    seeds: Sequence[bytes]
    change: Callable[[Rng, bytes], bytes] | None = None
    """A change that keeps the form; None where bytes are what the input is built from."""


# -- inputs that are files ------------------------------------------------------------------------


def of_files(
    names: Sequence[str],
    content: Callable[[str], bytes | Sequence[bytes]],
    read: Callable[[str, bytes], None],
    change: Change,
) -> Target:
    """A target whose inputs are a byte for the reader's name, and the file."""

    def feed(given: bytes) -> Ending:
        if given:
            read(names[given[0] % len(names)], given[1:])
        return "read"

    def changed(rng: Rng, given: bytes) -> bytes:
        first = given[:1] or b"\0"
        name = names[first[0] % len(names)]
        if rng.random() < 0.2:
            return first + damaged(rng, given[1:] or b"\0")[1]
        try:
            return first + change(rng, name, given[1:])
        except Exception:  # what was damaged before may have no form to keep
            return first + damaged(rng, given[1:] or b"\0")[1]

    seeds = []
    for place, name in enumerate(names):
        found = content(name)
        for one in [found] if isinstance(found, bytes) else found:
            seeds.append(bytes([place]) + one)
    return Target(feed, seeds, changed)


def _cells(rng: Rng, name: str, content: bytes) -> bytes:
    """Another cell, row or column of a CSV, or of a text that is split by commas or by blanks."""
    apart = " " if name == "ultralytics" else ","
    try:
        text = content.decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=apart))
    except (UnicodeDecodeError, csv.Error):
        return damaged(rng, content or b"\0")[1]
    rows = [row for row in rows if row]
    has_head = name not in ("mot", "ultralytics")
    head, body = (rows[0], rows[1:]) if has_head and rows else ([], rows)
    if not body:
        return content + b"\n1,1,1,1,1,1"
    head, body, _ = fuzz_files.cells_changed(rng, head, [list[object](row) for row in body])
    out = io.StringIO(newline="")
    csv.writer(out, delimiter=apart).writerows([head, *body] if has_head else body)
    return out.getvalue().encode(errors="surrogatepass")


def _values(rng: Rng, _: str, content: bytes) -> bytes:
    """Another value in a JSON file."""
    try:
        return json.dumps(fuzz_files.value_changed(rng, json.loads(content))[0]).encode()
    except (ValueError, RecursionError):
        return damaged(rng, content or b"\0")[1]


def _lines(rng: Rng, name: str, content: bytes) -> bytes:
    """Another value in one line of JSON, or lines in another order."""
    lines = content.split(b"\n")
    at = int(rng.integers(len(lines)))
    draw = rng.random()
    if draw < 0.7:
        lines[at] = _values(rng, name, lines[at])
    elif draw < 0.85:
        del lines[at]
    else:
        lines.insert(int(rng.integers(len(lines))), lines[at])
    return b"\n".join(lines)


def _setting(rng: Rng, name: str, content: bytes) -> bytes:
    """Another value in a YAML file, or a line of a hostile one."""
    if rng.random() < 0.3:
        lines = content.split(b"\n")
        other = YAMLS[rng.integers(len(YAMLS))].encode(errors="replace")[:2000]
        lines.insert(int(rng.integers(len(lines) + 1)), other)
        return b"\n".join(lines)
    try:
        held, _ = fuzz_files.value_changed(rng, yaml.safe_load(content))
        return yaml.safe_dump(held, allow_unicode=True).encode(errors="surrogatepass")
    except Exception:  # PyYAML raises what it likes
        return damaged(rng, content or b"\0")[1]


def _header(rng: Rng, name: str, content: bytes) -> bytes:
    """Another value in the header of safetensors, which stays whole; of other files bytes at the start."""
    if not name.endswith(".safetensors"):
        cut = int(rng.integers(16, 4000))
        return damaged(rng, content[:cut] or b"\0")[1] + content[cut:]
    try:
        (length,) = struct.unpack("<Q", content[:8])
        about = json.loads(content[8 : 8 + length])
        own = about.get("__metadata__", {})
        if "gracl" in own and rng.random() < 0.5:
            own["gracl"] = _values(rng, name, own["gracl"].encode()).decode()
        else:
            about, _ = fuzz_files.value_changed(rng, about)
        header = json.dumps(about).encode()
    except (struct.error, ValueError, AttributeError, TypeError, RecursionError):
        return damaged(rng, content or b"\0")[1]
    header += b" " * (-len(header) % 8)
    return struct.pack("<Q", len(header)) + header + content[8 + length :]


def _arrays(rng: Rng, name: str, content: bytes) -> bytes:
    """Another array in a .npz; cells of a CSV; the foot of a parquet file, where it says what it holds."""
    if name.endswith(".csv"):
        return _cells(rng, name, content)
    if name.endswith(".parquet"):
        cut = int(rng.integers(1, 3000))
        return content[:-cut] + damaged(rng, content[-cut:] or b"\0")[1]
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as held:
            arrays: dict[str, Any] = {key: held[key] for key in held.files}
        key = str(rng.choice([*arrays]))
        if key == "about" and rng.random() < 0.7:
            arrays[key] = np.array(_values(rng, name, str(arrays[key]).encode()).decode())
        elif rng.random() < 0.5:
            arrays[key] = arrays[key].reshape(-1)[: int(rng.integers(3 * N))]
        else:
            arrays[key] = arrays[key].astype(str(rng.choice(["f8", "f2", "i8", "u1", "U3", "?", "c8"])))
        file = io.BytesIO()
        np.savez(file, **arrays)
        return file.getvalue()
    except Exception:  # numpy raises what it likes at what it had damaged itself
        return damaged(rng, content or b"\0")[1]


# -- tables and trees -----------------------------------------------------------------------------


def _of_table(name: str) -> bytes:
    columns, rows = TABLES[name]
    text = fuzz_files.csv_text(columns, rows) if columns else fuzz_files.csv_text(rows[0], rows[1:])
    return (text.replace(",", " ") if name == "ultralytics" else text).encode()


def _of_tree(name: str) -> bytes:
    return json.dumps(TREES[name](np.random.default_rng(0))).encode()


def _seed(name: str) -> bytes:
    return _of_table(name) if name in TABLES else _of_tree(name)


def _shared(folder: Path, *names: str) -> Target:
    """Readers that fuzz.py feeds too."""
    records = fuzz_files.draw_images(folder)
    (folder / "texts").mkdir()

    def read(name: str, content: bytes) -> None:
        ending = "json" if name in TREES else "txt" if name == "mot" else "csv"
        path = folder / ("texts/f_1.txt" if name == "ultralytics" else f"x.{ending}")
        path.write_bytes(content)
        fuzz_files.read_as(name, path if name != "ultralytics" else folder / "x.none", records)

    def change(rng: Rng, name: str, content: bytes) -> bytes:
        return (_values if name in TREES else _cells)(rng, name, content)

    return of_files(names, _seed, read, change)


def tables(folder: Path) -> Target:
    """Images with what is known of them."""
    return _shared(folder, "metadata", "metadata with sides")


def pairs(folder: Path) -> Target:
    """Links, judged pairs, links of tracklets, travel times."""
    return _shared(folder, "links", "pairs", "tracklet links", "travel")


def boxes(folder: Path) -> Target:
    """COCO and MegaDetector."""
    return _shared(folder, "coco", "megadetector")


def reviews(folder: Path) -> Target:
    """Who is who, from other programs."""
    return _shared(folder, "review", "animalclef", "review coco")


def tracks(folder: Path) -> Target:
    """What trackers write; read, and written again as it was, with and without identities."""
    (folder / "texts").mkdir()

    def read(name: str, content: bytes) -> None:
        ending = {"mot": "txt", "track csv": "csv", "track json": "json"}.get(name)
        path = folder / "texts" if ending is None else folder / f"x.{ending}"
        (path if ending else path / "f_1.txt").write_bytes(content)
        for found in read_tracks(path, size=(480, 640)):
            given = {track: 7 for track in found.spans()}
            tracks_text(path, found, given)
            again = folder / "again"
            again.mkdir(exist_ok=True)
            out = again if ending is None else again / path.name
            for file, text in tracks_text(out, found).items():
                file.write_text(text, encoding="utf-8", newline="")
            back = [one for one in read_tracks(out, size=(480, 640)) if one.camera == found.camera]
            if ending == "csv" or ending == "json":
                _require_same(found.detections, [seen for one in back for seen in one.detections])

    def change(rng: Rng, name: str, content: bytes) -> bytes:
        return (_values if name in TREES else _cells)(rng, name, content)

    return of_files(("mot", "track csv", "track json", "ultralytics"), _seed, read, change)


def _require_same(before: Sequence[object], after: Sequence[object]) -> None:
    if [*before] != [*after]:
        raise AssertionError("what was written is not what was read")


def hugging_face(folder: Path) -> Target:
    """Image folders with metadata, and parquet with the images in it."""
    import pyarrow
    from pyarrow import parquet

    fuzz_files.draw_images(folder)
    os.environ["GRACL_CACHE"] = str(folder / "cache")
    lines = [{"file_name": f"{at}.png", "identity": "a", "split": "train"} for at in range(N)]
    image = (folder / "0.png").read_bytes()
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    held = pyarrow.table({"image": [{"bytes": image, "path": "0.png"}] * 3, "label": [0, 1, -1]})
    about = json.dumps({"info": {"features": features}})
    file = io.BytesIO()
    parquet.write_table(held.replace_schema_metadata({"huggingface": about}), file)

    def read(name: str, content: bytes) -> None:
        path = folder / name
        path.write_bytes(content)
        from_huggingface(path if name == "x.parquet" else folder)
        path.unlink()

    def change(rng: Rng, name: str, content: bytes) -> bytes:
        if name == "metadata.jsonl":
            return _lines(rng, name, content)
        if name == "metadata.csv":
            return _cells(rng, name, content)
        return _tagged(rng, content)

    def clean(name: str, content: bytes) -> None:
        for other in ("metadata.jsonl", "metadata.csv", "x.parquet"):
            (folder / other).unlink(missing_ok=True)
        read(name, content)

    def _tagged(rng: Rng, content: bytes) -> bytes:
        if rng.random() < 0.5:
            return _arrays(rng, "x.parquet", content)
        try:
            table = parquet.read_table(io.BytesIO(content))
            told = (table.schema.metadata or {}).get(b"huggingface", about.encode())
            out = io.BytesIO()
            told = _values(rng, "", told)
            parquet.write_table(table.replace_schema_metadata({"huggingface": told}), out)
            return out.getvalue()
        except Exception:  # pyarrow raises what it likes at what was damaged before
            return damaged(rng, content or b"\0")[1]

    seeds = {
        "metadata.jsonl": "\n".join(map(json.dumps, lines)).encode(),
        "metadata.csv": fuzz_files.csv_text(
            ["file_name", "identity"], [[f"{at}.png", "a"] for at in range(N)]
        ).encode(),
        "x.parquet": file.getvalue(),
    }
    return of_files([*seeds], seeds.__getitem__, clean, change)


# -- settings, runs and descriptions --------------------------------------------------------------


def settings(folder: Path) -> Target:
    """YAML."""
    path = folder / "x.yaml"

    def read(_: str, content: bytes) -> None:
        path.write_bytes(content)
        config = Config.load(path)
        _require_same([Config().replace(yaml.safe_load(config.to_yaml()))], [config])

    hostile = [text.encode(errors="replace") for text in YAMLS if len(text) < 2000]
    whole = [Config().to_yaml().encode(), b"recipe: market1501\nmethod: {name: ice, eps: 0.4}\n"]
    return of_files(("settings",), lambda _: [*whole, *hostile], read, _setting)


def runs(folder: Path) -> Target:
    """The files of a run, one of them damaged."""
    os.environ["GRACL_CACHE"] = str(folder / "cache")
    draw_people(
        folder / "people", identities=6, test_identities=3, cameras=2, images_per_camera=3
    )
    small = {
        "model": {"backbone": "test_resnet", "size": [64, 32], "weights": "none"},
        "method": {"eps": 0.6, "min_samples": 3, "k1": 8, "k2": 2},
        "sampler": {"clusters_per_batch": 2, "images_per_cluster": 2},
        "train": {"epochs": 2, "steps": 1, "batchnorm_group": 4, "threads": 1},
        "evaluate": {"every": 1},
    }
    config = Config.load("demo").replace(small)
    run = train(config, load_dataset(folder / "people"), folder / "run")
    outcomes = tuple(
        Outcome(name, seed, {"mAP": 0.5, "ARI": 0.5}, {"mAP": ((0, 0.1), (2, 0.5))}, "any@1", False, {})
        for name in "ab"
        for seed in (0, 1)
    )
    found = Comparison("x", ("a", "b"), (0, 1), {"a": {"method.eps": 0.5}, "b": {}}, outcomes)
    (run.folder / "comparison.json").write_text(to_json(found))
    names = ("log.jsonl", "data.json", "labels.csv", "config.yaml", "comparison.json")
    whole = {name: (run.folder / name).read_bytes() for name in names}
    whole["labels.csv"] = b"\n".join(whole["labels.csv"].split(b"\n")[:12]) + b"\n"

    def read(name: str, content: bytes) -> None:
        (run.folder / name).write_bytes(content)
        try:
            if name == "comparison.json":
                compared = read_comparison(run.folder)
                str(compared.rows)
                compared.paired("a", "b")
                str(compared.failures)
            elif name == "labels.csv":
                str(run.labels)
            else:
                _look_at(run)
        finally:
            (run.folder / name).write_bytes(whole[name])

    def change(rng: Rng, name: str, content: bytes) -> bytes:
        kinds = {".jsonl": _lines, ".json": _values, ".csv": _cells, ".yaml": _setting}
        return kinds[Path(name).suffix](rng, name, content)

    return of_files(names, whole.__getitem__, read, change)


def _look_at(run: Run) -> None:
    """All that reports, cards and profiles ask a run for."""
    training_of(run)
    str([run.left_out, run.epochs])
    curves_of(run.log)
    ends_of(run.before, run.after)
    training_charts(run)
    profile_run(run)


def descriptions(folder: Path) -> Target:
    """JSON beside models: calibrations, and what a model on the hub says of itself."""

    def read(name: str, content: bytes) -> None:
        (folder / name).write_bytes(content)
        if name == "config.json":
            read_description(folder)
        else:
            str(read_calibration(folder / name))

    described = {"gracl": {"fingerprint": "f" * 64, "backbone": "test_resnet", "size": [64, 32]}}
    seeds = {"config.json": json.dumps(described).encode(), "calibration.json": _of_tree("calibration")}
    return of_files([*seeds], seeds.__getitem__, read, _values)


# -- tensors --------------------------------------------------------------------------------------


def weights(folder: Path) -> Target:
    """Models, checkpoints, and weights of others: the heads of their files, before the same tensors."""
    save_snapshot(folder / "x", Snapshot(3, {"model": {"a": torch.zeros(4)}}, np.arange(N)))
    torch.save({"state_dict": {"a.weight": torch.zeros(4)}}, folder / "y")
    heads, tensors = {}, {"others.pt": b""}
    for name, content in (
        ("model.safetensors", good("model.safetensors")),
        ("checkpoint.safetensors", (folder / "x").read_bytes()),
        ("others.safetensors", good("model.safetensors")),
    ):
        cut = 8 + struct.unpack("<Q", content[:8])[0]
        heads[name], tensors[name] = content[:cut], content[cut:]
    heads["others.pt"] = (folder / "y").read_bytes()

    def read(name: str, content: bytes) -> None:
        path = folder / name
        path.write_bytes(content + tensors[name])
        if name == "model.safetensors":
            load_model(path)
        elif name == "checkpoint.safetensors":
            load_snapshot(path)
        else:
            read_weights(path)

    return of_files([*heads], heads.__getitem__, read, _header)


def features(folder: Path) -> Target:
    """Files of features, read, and asked whether they are ours."""

    def read(name: str, content: bytes) -> None:
        path = folder / name
        path.write_bytes(content)
        found = read_features(path)
        require_writable(path)
        if found.features.shape != (len(found.records), found.dim):
            raise AssertionError("features and images differ in number")

    return of_files(("features.npz", "features.csv", "features.parquet"), good, read, _arrays)


# -- inputs that are built ------------------------------------------------------------------------


def _built(build: Callable[[Provider], Ending | None], seeds: int = 40) -> Target:
    """A target whose inputs are what a case is built from."""
    rng = np.random.default_rng(0)

    def feed(given: bytes) -> Ending:
        return build(atheris.FuzzedDataProvider(given)) or "read"

    return Target(feed, [rng.bytes(int(rng.integers(8, 400))) for _ in range(seeds)])


def _word(data: Provider, known: Sequence[str]) -> str:
    """One of the known words, a hostile one, or any."""
    draw = data.ConsumeIntInRange(0, 9)
    if draw < 6:
        return str(data.PickValueInList([*known]))
    if draw < 8:
        return str(data.PickValueInList(HOSTILE))[:5000]
    return str(data.ConsumeUnicode(30))


def pictures(folder: Path) -> Target:
    """Pictures of all modes, sizes and orientations, with boxes; files, and what is sent."""
    kinds = {
        "JPEG": ("L", "RGB", "CMYK"),
        "PNG": ("1", "L", "LA", "P", "RGB", "RGBA", "I;16"),
        "TIFF": ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I", "I;16", "F"),
        "WEBP": ("RGB", "RGBA"),
        "GIF": ("L", "P", "RGB"),
        "BMP": ("1", "L", "RGB"),
    }

    def build(data: Provider) -> Ending:
        kind = str(data.PickValueInList([*kinds]))
        mode = str(data.PickValueInList([*kinds[kind]]))
        size = data.ConsumeIntInRange(1, 60), data.ConsumeIntInRange(1, 60)
        how: dict[str, Any] = {}
        if data.ConsumeBool() and kind in ("JPEG", "PNG", "TIFF", "WEBP"):
            how["exif"] = _exif(data)
        if data.ConsumeBool() and kind in ("PNG", "GIF") and mode == "P":
            how["transparency"] = data.ConsumeIntInRange(0, 255)
        sides = [data.ConsumeIntInRange(low, 60) for low in (-9, -9, 0, 0)]
        if data.ConsumeIntInRange(0, 9) == 0:
            sides = [data.ConsumeInt(9) for _ in range(4)]
        box = Box(*sides) if data.ConsumeBool() else None
        wanted = data.ConsumeIntInRange(1, 40), data.ConsumeIntInRange(1, 40)
        pixels = data.ConsumeBytes(400)
        file = io.BytesIO()
        try:
            picture = Image.new(mode, size)
            bytes_needed = len(picture.tobytes())
            if pixels:
                picture.frombytes((pixels * (bytes_needed // len(pixels) + 1))[:bytes_needed])
            picture.save(file, kind, **how)
        except Exception:  # what Pillow does not write is no input
            return "refused"
        content = bytearray(file.getvalue())
        for _ in range(data.ConsumeIntInRange(0, 4)):
            content[data.ConsumeIntInRange(0, len(content) - 1)] = data.ConsumeIntInRange(0, 255)
        return _see(bytes(content), folder / "x.png", wanted, box)

    return _built(build)


def _exif(data: Provider) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = data.PickValueInList([1, 2, 3, 4, 5, 6, 7, 8, 0, 9, 65535, "6", b"\6"])
    try:
        made = exif.tobytes()
    except Exception:  # what Pillow does not write
        return b"Exif"
    cut = data.ConsumeIntInRange(0, len(made))
    return made if cut % 4 else made[:cut]


def _see(content: bytes, path: Path, size: tuple[int, int], box: Box | None) -> Ending:
    """All who look at a picture agree on whether it is one; none raises but what it says it does."""
    path.write_bytes(content)
    record, ending = Record(path, box=box), "read"
    read_header(path)
    try:
        found = decode(record, size)
        if found.shape != (3, *size) or found.dtype != np.uint8:
            raise AssertionError(f"decoded as {found.dtype} {found.shape}")
    except (OSError, ValueError):
        ending = "refused"
    try:
        thumbnail(record)
    except DataError:
        ending = "refused"
    try:
        sent = read_picture(content, size, box)
        if sent.pixels.shape != (3, *size) or min(sent.width, sent.height) < 1:
            raise AssertionError(f"read as {sent.pixels.shape} of {sent.width} x {sent.height}")
    except BadPicture:
        ending = "refused"
    return ending  # type: ignore[return-value]


_SHAPES = {
    "market": ("{a}_c{b}s1_{b}51_00.jpg", "{a}_c{b}_{b}.jpg", "-1_c{b}s1_000001_00.jpg"),
    "veri": ("{a}_c00{b}_0001_0.jpg", "{a}_c{b}.jpg"),
    "msmt": ("0000_000_0{b}_0303morning_0008_0.jpg", "{a}_{b}_{a}_.jpg"),
    "mars": ("{a}C{b}T0001F001.jpg", "00-1C{b}T{b}F{a}.jpg", "0000C1T{b}F1.jpg"),
    "any": ("{a}.png", "{a}_{b}.JPG", ".{a}.jpg", "{a}", "frame {a}.webp"),
}
_LISTS = ("list_train.txt", "list_val.txt", "list_query.txt", "list_gallery.txt", "metadata.csv",
          "train_test_split/train_list.txt", "train_test_split/test_list_800.txt",
          "info/test_name.txt", "info/tracks_test_info.mat", "info/query_IDX.mat")  # fmt: skip


def names(folder: Path) -> Target:
    """Folders of images: what layouts, identities and cameras are read from their names."""
    source = sorted({source.folder for layout in LAYOUTS for source in layout.sources})
    tops = [*source, "train", "query", "gallery", "test", "a", "Ada", "detected", "labeled", "market1501"]

    def build(data: Provider) -> Ending:
        with tempfile.TemporaryDirectory(dir=folder) as held:
            top = Path(held) / _safe(_word(data, ["data", "market", "msmt17", "personx", "detected"]))
            top.mkdir(exist_ok=True)
            shapes = _SHAPES[str(data.PickValueInList([*_SHAPES]))]
            chosen = [_safe(_word(data, tops)) for _ in range(data.ConsumeIntInRange(1, 4))]
            if data.ConsumeBool():  # all that one layout needs
                layout = LAYOUTS[data.ConsumeIntInRange(0, len(LAYOUTS) - 1)]
                chosen += [source.folder for source in layout.sources]
                for source in layout.sources:
                    if source.listing is not None:
                        _list(top / source.listing, data)
            for name in dict.fromkeys(chosen):
                for _ in range(data.ConsumeIntInRange(0, 4)):
                    a, b = _word(data, ["0001", "0002", "-1", "0000"]), _word(data, ["1", "2", "3"])
                    shape = str(data.PickValueInList([*shapes, *_SHAPES["any"]]))
                    path = top / name / _safe(shape.format(a=a, b=b))
                    frame_number(path)
                    _write(path, b"")
            if data.ConsumeIntInRange(0, 3) == 0:
                _list(top / str(data.PickValueInList([*_LISTS])), data)
            known = [None, *(layout.name for layout in LAYOUTS), "folder", "csv", "huggingface"]
            named = data.PickValueInList(known)
            dataset = load_dataset(top) if named is None else load_dataset(named, root=top)
            check_dataset(dataset)
        return "read"

    return _built(build)


def _list(path: Path, data: Provider) -> None:
    lines = [
        _word(data, ["0001/a.jpg 1", "a.jpg 2", "path,identity", "a.jpg", "0001_c1_a.jpg,3"])
        for _ in range(data.ConsumeIntInRange(0, 4))
    ]
    _write(path, "\n".join(lines).encode(errors="surrogatepass" if data.ConsumeBool() else "replace"))


def _safe(name: str) -> str:
    """A name that the file system takes."""
    name = name.replace("/", "_").replace("\0", "_")
    kept = name.encode(errors="replace")[:200].decode(errors="ignore")
    return kept if kept not in ("", ".", "..") else "_"


def _write(path: Path, content: bytes) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    except OSError:
        return  # there is a folder, or a file, of this name already


_FIELDS: Mapping[str, Sequence[str]] = {
    "k": ("5", "1", "100", "0", "101"),
    "limit": ("5", "1000", "10000", "0"),
    "after": ("0", "3", str(2**63 - 1), str(2**63)),
    "since": ("2025", "2025-01", "2025-01-01", "2025-01-01T09:30", "2025-01-01T09:30:00.5+01:00"),
    "until": ("2025", "2024-12-31", "2025-02-30", "2025-01-01 09"),
    "identity": ("a", "b", "nobody"),
    "camera": ("c", "gate"),
    "site": ("s",),
    "contains": ("a", "ß", "%", "_"),
    "box": ("0,0,5,5", "1,1,999999,1", "0,0,0,0"),
    "token": (TOKEN,),
}
_PATHS = ("/api/search", "/api/entries", "/api/identities", "/api/about", "/api/entries/1/thumbnail",
          "/", "/docs", "/openapi.json", "/static/gracl.css", "/api/entries/99/thumbnail",
          "/static/../../x", "//x", "/api/entries/-1/thumbnail")  # fmt: skip
_HEADS: Mapping[str, Sequence[str]] = {
    "host": ("127.0.0.1:8000", "localhost", "[::1]:80", "evil.example", "localhost:99999"),
    "origin": ("http://127.0.0.1:8000", "null", "http://evil.example"),
    "cookie": (f"gracl-token-8000={TOKEN}", "a=b; gracl-token-80=", "=;=;"),
    "authorization": (f"Bearer {TOKEN}", f"bearer  {TOKEN}", "Basic x", "Bearer"),
    "content-length": ("3", "-1", "99999999999", "x"),
    "content-type": ("multipart/form-data; boundary=b", "multipart/form-data", "application/json", "x"),
    "expect": ("100-continue",),
    "sec-fetch-site": ("same-origin", "cross-site"),
    "sec-fetch-mode": ("navigate", "cors"),
    "accept": ("text/html", "*/*"),
}


def requests(folder: Path) -> Target:
    """What is asked of the search page, behind its guard: no answer is a 5xx, none without its head."""
    from starlette.testclient import TestClient

    place = folder / "x.gallery"
    place.write_bytes(good("x.gallery"))
    app = guarded(search_application(Desk(place, device="cpu")), TOKEN)
    client = TestClient(app, raise_server_exceptions=True, base_url="http://127.0.0.1:8000")
    client.follow_redirects = False
    file = io.BytesIO()
    Image.new("RGB", (8, 16), "red").save(file, "png")
    image = file.getvalue()

    def build(data: Provider) -> Ending:
        _where(data)
        sent = [(name, _word(data, _FIELDS[name])) for name in _names(data, _FIELDS)]
        heads = {name: _ascii(_word(data, _HEADS[name])) for name in _names(data, _HEADS)}
        if data.ConsumeIntInRange(0, 3):
            heads |= {"authorization": f"Bearer {TOKEN}", "host": "127.0.0.1:8000"}
        path = _word(data, _PATHS)
        how: dict[str, Any] = {"headers": heads}
        if path == "/api/search" or data.ConsumeIntInRange(0, 7) == 0:
            path = "/api/search"
            heads.pop("content-length", None)
            if data.ConsumeIntInRange(0, 3) == 0:
                heads.setdefault("content-type", "multipart/form-data; boundary=b")
                how["content"] = _body(data, sent)
            else:
                heads.pop("content-type", None)
                picture = data.ConsumeBytes(40) if data.ConsumeBool() else image
                how |= {"files": {"picture": ("x.png", picture)}, "data": _lists(sent)}
            method = "POST"
        else:
            how["params"] = sent
            method = str(data.PickValueInList(["GET", "GET", "GET", "HEAD", "POST", "DELETE"]))
        try:
            request = client.build_request(method, _url(path), **how)
        except Exception:  # what httpx does not send is no input
            return "refused"
        answer = client.send(request)
        if answer.status_code >= 500:
            raise AssertionError(f"{answer.status_code}: {answer.text[:200]}")
        if answer.headers.get("x-content-type-options") != "nosniff":
            raise AssertionError("an answer without the guard's headers")
        return "read" if answer.status_code < 400 else "refused"

    return _built(build)


def _where(data: Provider) -> None:
    """Filters as Python has them: those that are taken make SQL."""
    from gracl.errors import ConfigError

    since, until = (_word(data, _FIELDS[name]) for name in ("since", "until"))
    try:
        text, parameters = Where(since=since, until=until).sql(lambda c, v: (c, v))
    except ConfigError:
        return
    if text.count("?") != len(parameters):
        raise AssertionError(f"{text} with {parameters}")


def _names(data: Provider, known: Mapping[str, object]) -> Iterator[str]:
    for _ in range(data.ConsumeIntInRange(0, 4)):
        yield str(data.PickValueInList([*known]))


def _lists(sent: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in sent:
        found.setdefault(name, []).append(value)
    return found


def _body(data: Provider, sent: Sequence[tuple[str, str]]) -> bytes:
    """A form, broken here and there."""
    parts = []
    for name, value in sent:
        head = _word(data, [f'form-data; name="{name}"', f'form-data; name="{name}"; filename="x"'])
        parts.append(f"--b\r\nContent-Disposition: {head}\r\n\r\n{value}\r\n")
    ending = str(data.PickValueInList(["--b--\r\n", "--b--", "", "--b\r\n", "\r\n--c--"]))
    return "".join([*parts, ending]).encode(errors="replace") + data.ConsumeBytes(20)


def _ascii(value: str) -> str:
    return value.encode("latin-1", "replace").decode("latin-1")


def _url(path: str) -> str:
    return path if path.startswith("/") else f"/{path}"


TARGETS: dict[str, Callable[[Path], Target]] = {
    "tables": tables,
    "pairs": pairs,
    "boxes": boxes,
    "tracks": tracks,
    "reviews": reviews,
    "hugging face": hugging_face,
    "settings": settings,
    "runs": runs,
    "descriptions": descriptions,
    "weights": weights,
    "features": features,
    "pictures": pictures,
    "names": names,
    "requests": requests,
}
"""By name: each is made in an empty folder of its own."""
