"""Tables, settings, weights, features, galleries and reviews, damaged or hostile, for fuzz.py."""

from __future__ import annotations

import copy
import csv
import io
import json
import pickle
import re
import sqlite3
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save as to_safetensors

from fuzz_images import damaged
from fuzz_watch import Case, Ending
from gracl.calibration import Calibration
from gracl.clustering import OUTLIER
from gracl.config import Config, ModelConfig
from gracl.data.boxes import read_boxes
from gracl.data.pairs import read_links, read_pairs, read_tracklet_links
from gracl.data.records import Dataset, Record, Records
from gracl.data.tables import read_csv
from gracl.data.tracks import read_tracks
from gracl.error_rates import Rate
from gracl.features import Features, read_features, write_features
from gracl.files import (
    load_model,
    load_snapshot,
    read_calibration,
    save_model,
    save_snapshot,
    write_calibration,
)
from gracl.gallery.gallery import Gallery
from gracl.models.embedder import Embedder, build_embedder
from gracl.models.weights import read_weights
from gracl.review import carrying, exchange
from gracl.review.review import Review
from gracl.study import Study
from gracl.tracking import read_travel
from gracl.training import Snapshot

Rng = np.random.Generator
Content = str | bytes
N = 8
"""Images."""
HOSTILE = [
    "", " ", "\0", "nan", "NaN", "inf", "-inf", "1e400", "-1", "0", "1e308", "9" * 400, "9" * 5000,
    "-" + "9" * 400, "0x10", "1_000", "true", "None", "x" * 200_000, "../" * 2000, "/", ".", "\ud800",
    "a\0b", "\u202e", "\ufeff", '"', "'", ",", ";", "\n", "=cmd|' /C calc'!A0", "[1,2,3,4]", "[[[[",
    "(1, 2, nan, inf)", "-5 -5 1e9 1e9", "é", "ß", "\N{COMBINING ACUTE ACCENT}", "N/A", "unknown", "\\",
    "C:\\x.png", "~", "~nobody", "con", "%n%s", "x" * 300, "\\" + "y" * 300,
]  # fmt: skip
WRONG: list[Any] = [
    None, True, 0, -1, 1.5, 10**400, -(10**400), 10**20, float("nan"), float("inf"), -float("inf"), "",
    "x", "nan", "\0", "\ud800", [], [1], [1, 2, 3], [1, 2, 3, 4], [-5, -5, 1e9, 1e9], [1e308] * 4,
    [float("nan")] * 4, [10**400] * 4, [None] * 4, ["a"] * 4, [[1]] * 4, {}, {"a": 1}, {"id": {}},
    "x" * 300, "\\" + "y" * 300, [float("inf")] * 4, [0, 0, 0, 0],
]  # fmt: skip


# -- valid ones -----------------------------------------------------------------------------------


def draw_images(folder: Path) -> Records:
    for at in range(N):
        pixels = np.random.default_rng(at).integers(0, 256, (30, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{at}.png")
    return Records(tuple(Record(folder / f"{at}.png") for at in range(N)))


def csv_text(columns: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text).writerows([columns, *rows])
    return text.getvalue()


def _coco(_: Rng) -> dict[str, Any]:
    images = [
        {
            "id": at,
            "file_name": f"{at}.png",
            "width": 20,
            "height": 30,
            "location": "l",
            "datetime": "d",
        }
        for at in range(N)
    ]
    annotations = [
        {
            "id": at,
            "image_id": at,
            "category_id": 1,
            "bbox": [2, 3, 10, 12],
            "identity": "a",
            "attributes": {"track_id": 3},
        }
        for at in range(N)
    ]
    categories = [{"id": 1, "name": "lynx"}]
    return {"images": images, "annotations": annotations, "categories": categories}


def _megadetector(_: Rng) -> dict[str, Any]:
    found = [{"category": "1", "conf": 0.9, "bbox": [0.1, 0.2, 0.5, 0.5]}]
    return {
        "info": {"format_version": "1.4"},
        "detection_categories": {"1": "animal", "2": "person"},
        "images": [{"file": f"{at}.png", "detections": list(map(dict, found))} for at in range(N)],
    }


def _tracks(_: Rng) -> list[dict[str, Any]]:
    return [
        {
            "camera": "c",
            "frame": at,
            "track": at % 2,
            "box": [1, 2, 3, 4],
            "confidence": 0.5,
            "time": 1.5,
        }
        for at in range(N)
    ]


def _calibration(_: Rng) -> dict[str, Any]:
    rate = Rate(0.1, 0.05, 0.2, 100, 50.0)
    made = Calibration(
        0.5, (0.4, 0.6), 0.001, "comparison", rate, rate, rate, rate, 9, "pairs", "individuals", 5, "",
        ("note",), "f" * 64, "test_resnet", (64, 32), "1",
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        found: dict[str, Any] = json.loads(write_calibration(f"{folder}/c.json", made).read_text())
        return found


def _paths(*facts: str) -> list[list[object]]:
    return [[f"{at}.png", *facts] for at in range(N)]


def _pairs(word: str) -> list[list[object]]:
    return [[f"{at}.png", f"{at + 1}.png", word] for at in range(N - 1)]


TABLES: dict[str, tuple[Sequence[str], Sequence[Sequence[object]]]] = {
    "metadata": (
        ("path", "identity", "camera", "split", "date", "sequence", "bbox"),
        _paths("a", "c", "train", "2024-01-01 10:00", "s", "[1, 2, 10, 12]"),
    ),
    "metadata with sides": (
        ("path", "identity", "x", "y", "w", "h"),
        [[*row, 1, 2, 10, 12] for row in _paths("a")],
    ),
    "links": (("first", "second", "link"), _pairs("must")),
    "pairs": (("first", "second", "same"), _pairs("0")),
    "tracklet links": (("first", "second", "link"), [["c/1", "c/2", "must"], ["c/2", "3", "cannot"]]),
    "travel": (("from", "to", "least"), [["a", "b", 3], ["b", "c", 4.5]]),
    "review": (("path", "identity", "x", "y", "w", "h"), [[*r, "", "", "", ""] for r in _paths("ada")]),
    "animalclef": (("image_id", "cluster"), [[at, "cluster_1"] for at in range(N)]),
    "mot": ((), [[at, 1, 10, 5, 24, 60, 0.9, -1, -1, -1] for at in range(1, N)]),
    "track csv": (
        ("camera", "frame", "track", "x", "y", "w", "h", "confidence", "class", "time"),
        [["c", at, 1, 1, 2, 3, 4, 0.5, "person", 1.5] for at in range(N)],
    ),
    "ultralytics": ((), [[0, 0.5, 0.5, 0.1, 0.1, 0.9, at] for at in range(N)]),
}
TREES: dict[str, Callable[[Rng], Any]] = {
    "coco": _coco,
    "megadetector": _megadetector,
    "review coco": _coco,
    "track json": _tracks,
    "calibration": _calibration,
}


# -- readers --------------------------------------------------------------------------------------


class _Run:
    """A run as a review reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.data = folder, {"fingerprint": "abc"}
        self.config = Config().replace({"method": {"k1": 3, "k2": 2}})


class _Held:
    """An image store as a review reads it."""

    def __init__(self, records: Records) -> None:
        self.records, self.size = records, (64, 32)

    def __len__(self) -> int:
        return len(self.records)


def study_of(folder: Path, records: Records) -> Study:
    draws = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(len(records), 8, generator=draws))
    found = Features(rows, records, "f", "", (64, 32), "")
    labels = np.array([at // 3 if at < 6 else OUTLIER for at in range(len(records))])
    return Study(_Run(folder), Dataset("x", folder, "folder", records), _Held(records), labels, found)  # type: ignore[arg-type]


def read_as(name: str, path: Path, records: Records) -> None:
    root = path.parent
    if name.startswith("metadata"):
        read_csv(path)
    elif name == "links":
        read_links(path, records, root=root)
    elif name == "pairs":
        read_pairs(path, records, root=root)
    elif name == "tracklet links":
        read_tracklet_links(path, [("c", 1), ("c", 2), (None, 3)])
    elif name == "travel":
        read_travel(path)
    elif name in ("review", "animalclef", "review coco"):
        exchange.read(study_of(root, records), path)
    elif name == "ultralytics":
        read_tracks(path.parent / "texts", size=(480, 640))
    elif name in ("coco", "megadetector"):
        read_boxes(path)
    elif name == "calibration":
        str(read_calibration(path))
    else:
        for tracks in read_tracks(path):
            tracks.spans()


def _encoded(rng: Rng, text: str) -> bytes:
    kind = str(rng.choice(["utf-8"] * 8 + ["utf-8-sig", "utf-16", "latin-1", "utf-32", "cp1252"]))
    return text.encode(kind, errors="surrogatepass" if kind.startswith("utf") else "replace")


def table(rng: Rng, folder: Path) -> Case:
    """A CSV or text, changed in its bytes or in its cells."""
    name = str(rng.choice([*TABLES]))
    columns, rows = TABLES[name]
    done = "whole"
    draw = rng.random()
    if draw < 0.45:
        columns, rows, done = cells_changed(rng, list(columns), [list(row) for row in rows])
    text = csv_text(columns, rows) if columns else csv_text(rows[0], rows[1:])
    if name == "ultralytics":
        text = text.replace(",", " ")
    content = _encoded(rng, text)
    if draw >= 0.45 and rng.random() < 0.95:
        done, content = damaged(rng, content)
    records = draw_images(folder)
    path = folder / ("x.txt" if name == "mot" else "x.csv")
    if name == "ultralytics":
        (folder / "texts").mkdir()
        path = folder / "x.none"
        (folder / "texts" / "f_1.txt").write_bytes(content)
    path.write_bytes(content)
    return Case(f"{name}: {done}", _reading(name, path, records))


def _reading(name: str, path: Path, records: Records) -> Callable[[], Ending]:
    def feed() -> Ending:
        read_as(name, path, records)
        return "read"

    return feed


def cells_changed(
    rng: Rng, columns: list[str], rows: list[list[object]]
) -> tuple[list[str], list[list[object]], str]:
    done = str(rng.choice(["a cell", "a cell", "a cell", "column missing", "column twice", "short rows",
                           "long rows", "names changed", "row twice"]))  # fmt: skip
    if done == "a cell":
        for _ in range(int(rng.integers(1, 4))):
            row = rows[rng.integers(len(rows))]
            row[rng.integers(len(row))] = HOSTILE[rng.integers(len(HOSTILE))]
    elif done == "column missing":
        at = int(rng.integers(len(rows[0])))
        columns = columns[:at] + columns[at + 1 :]
        rows = [row[:at] + row[at + 1 :] for row in rows]
    elif done == "column twice" and columns:
        at = int(rng.integers(len(columns)))
        columns, rows = [*columns, columns[at]], [[*row, row[at]] for row in rows]
    elif done == "short rows":
        rows[rng.integers(len(rows))][int(rng.integers(len(rows[0]))) :] = []
    elif done == "long rows":
        rows[rng.integers(len(rows))] += ["more"] * int(rng.integers(1, 300))
    elif done == "names changed" and columns:
        columns[rng.integers(len(columns))] = HOSTILE[rng.integers(len(HOSTILE))]
    else:
        rows.append(rows[0])
    return columns, rows, done


def tree(rng: Rng, folder: Path) -> Case:
    """A JSON file, changed in its bytes or in its values."""
    name = str(rng.choice([*TREES]))
    content = TREES[name](rng)
    draw = rng.random()
    text = json.dumps(content, indent=None if rng.random() < 0.5 else 1)
    if draw < 0.6:
        for _ in range(int(rng.integers(1, 4))):
            content, done = value_changed(rng, content)
        text = json.dumps(content)
        if rng.random() < 0.05:
            text = re.sub(r"\b[0-9]\b", "9" * 5000, text, count=int(rng.integers(1, 9)))
    elif draw < 0.68:
        done = "deep"
        deep = int(rng.choice([100, 990, 2000, 100_000]))
        opening, closing_ = ("[", "]") if rng.random() < 0.5 else ('{"a":', "}")
        nested = (
            opening * deep + ("1" if opening == "{" else "") + closing_ * (deep * (rng.random() < 0.7))
        )
        places = [at for at, letter in enumerate(text) if letter == ":"]
        at = places[rng.integers(len(places))] + 1
        text = text[:at] + nested + "," + '"z":' + text[at:]
    elif draw < 0.74:
        done = "a name twice"
        text = text.replace('"id":', '"id": 7, "id":').replace('"frame":', '"frame": 1, "frame":')
    encoded = _encoded(rng, text)
    if draw >= 0.74:
        done, encoded = damaged(rng, encoded)
    path = folder / "x.json"
    path.write_bytes(encoded)
    return Case(f"{name}: {done}", _reading(name, path, draw_images(folder)))


def value_changed(rng: Rng, content: Any) -> tuple[Any, str]:
    """Somewhere in it another value, or none, or a name more."""
    wrong = copy.deepcopy(WRONG[rng.integers(len(WRONG))])
    if rng.random() < 0.02 or not isinstance(content, dict | list):
        return wrong, "another top"
    here = content
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        if not keys:
            return content, "as it was"
        key = keys[rng.integers(len(keys))]
        if isinstance(here[key], dict | list) and here[key] and rng.random() < 0.8:
            here = here[key]
            continue
        if isinstance(here, dict) and rng.random() < 0.2:
            del here[key]
            return content, "a name missing"
        here[key] = wrong
        return content, "a value"


# -- settings -------------------------------------------------------------------------------------

_LETTERS = list(zip("abcdefghij", "bcdefghijk", strict=True))
YAMLS = [
    "train: [&a [1]" + "".join(f", &{c} [{', '.join(['*' + p] * 9)}]" for p, c in _LETTERS) + "]\n",
    "train: {epochs: [&a [1]"
    + "".join(f", &{c} [{', '.join(['*' + p] * 9)}]" for p, c in _LETTERS)
    + "]}\n",
    "method: {name: [&a [1]"
    + "".join(f", &{c} [{', '.join(['*' + p] * 9)}]" for p, c in _LETTERS)
    + "]}\n",
    "recipe: [&a [1]" + "".join(f", &{c} [{', '.join(['*' + p] * 9)}]" for p, c in _LETTERS) + "]\n",
    "train: {schedule: [&a [1]"
    + "".join(f", &{c} [{', '.join(['*' + p] * 9)}]" for p, c in _LETTERS)
    + "]}\n",
    "a: &a [1]\n"
    + "".join(
        f"{c}: &{c} [{', '.join(['*' + p] * 9)}]\n"
        for p, c in zip("abcdefghij", "bcdefghijk", strict=True)
    )
    + "train: *k\n",
    "a: &a {x: 1}\n"
    + "".join(
        f"{c}: &{c}\n  <<: [{', '.join(['*' + p] * 9)}]\n"
        for p, c in zip("abcdefghij", "bcdefghijk", strict=True)
    ),
    "train: &a\n  epochs: *a\n",
    "train: &a\n  <<: *a\n",
    "a: &a [*a]\n",
    "? [1, 2]\n: 3\n",
    "? {a: b}\n: 3\n",
    "train: {epochs: !!python/object/apply:pathlib.Path.touch [MARK]}\n",
    "!!python/object/new:os.system ['touch MARK']\n",
    "train: !!python/object:gracl.config.TrainConfig {epochs: 1}\n",
    "train: !!python/name:os.system ''\n",
    "train: {epochs: !!python/tuple [1]}\n",
    "x: 2024-13-45\n",
    "train: {seed: 2024-99-99 99:99:99}\n",
    "train: {seed: " + "9" * 5000 + "}\n",
    "train: {seed: 0x" + "f" * 6000 + "}\n",
    "train: {epochs: " + "[" * 3000 + "]" * 3000 + "}\n",
    "[" * 100_000,
    "{" * 5000,
    "- " * 5000,
    "train: {epochs: !!binary 'x'}\n",
    "train: {epochs: !!int 'x'}\n",
    "train: {epochs: !!float 'x'}\n",
    "train: {epochs: !!bool 'x'}\n",
    "train: {epochs: !!timestamp 'x'}\n",
    "train: !!set {a, b}\n",
    "train: !!omap [a: 1]\n",
    "--- 1\n--- 2\n",
    "%YAML 9.9\n--- {}\n",
    "recipe: {a: 1}\n",
    "recipe: null\n",
    "recipe: ../../../etc/passwd\n",
    "method: {name: [gracl]}\n",
    "method: {name: {a: 1}}\n",
    "method: {name: null}\n",
    "method: [gracl]\n",
    "model: {size: [1e9, 1e9]}\n",
    "model: {size: [100, 100, 100]}\n",
    "model: {size: {a: 1}}\n",
    "model: {backbone: " + "x" * 10**6 + "}\n",
    "1: 2\n",
    "null: null\n",
    "true: {epochs: 1}\n",
    "train: {1: 2}\n",
    "train: {learning_rate: .nan}\n",
    "train: {learning_rate: -.inf}\n",
    "train: {learning_rate: " + "9" * 400 + "}\n",
    "\0",
    "\x07",
    "\t",
    "@",
    "train: {epochs: 0b" + "1" * 10**5 + "}\n",
    "x: 1:" + "59:" * 5000 + "0\n",
]


def settings(rng: Rng, folder: Path) -> Case:
    """YAML, hostile or changed."""
    mark, path = folder / "executed", folder / "x.yaml"
    draw = rng.random()
    if draw < 0.35:
        text = YAMLS[rng.integers(len(YAMLS))].replace("MARK", str(mark))
        path.write_bytes(_encoded(rng, text))
        what = text[:40]
    elif draw < 0.7:
        import yaml

        content = Config().plain()
        content, what = value_changed(rng, content)
        try:
            text = yaml.safe_dump(content, allow_unicode=True)
        except (yaml.YAMLError, UnicodeError, ValueError):
            text = json.dumps(content)
        path.write_bytes(_encoded(rng, text))
    else:
        what, content_ = damaged(rng, Config().to_yaml().encode())
        path.write_bytes(content_)

    def feed() -> Ending:
        Config.load(path)
        _not_executed(mark)
        return "read"

    return Case(what, feed)


def _not_executed(mark: Path) -> None:
    if mark.exists():
        raise AssertionError("what the file holds was executed")


# -- weights --------------------------------------------------------------------------------------


@cache
def small_model() -> Embedder:
    torch.manual_seed(0)
    return build_embedder("test_resnet", size=(64, 32)).eval()


@cache
def good(name: str) -> bytes:
    """A file that is read."""
    with tempfile.TemporaryDirectory() as held:
        folder = Path(held)
        config = ModelConfig(backbone="test_resnet", size=(64, 32))
        model, path = small_model(), folder / name
        if name == "model.safetensors":
            save_model(path, model, config)
        elif name == "checkpoint.safetensors":
            state = {"model": dict(model.state_dict()), "optimizer": {"step": torch.zeros(3)}}
            save_snapshot(path, Snapshot(3, state, np.arange(N)))
        elif name.endswith(".pt"):
            torch.save({"state_dict": model.state_dict()}, path)
        elif name == "legacy.pth":
            torch.save(model.state_dict(), path, _use_new_zipfile_serialization=False)
        elif name.startswith("features"):
            records = Records(tuple(Record(Path(f"{at}.png"), identity="a") for at in range(N)))
            rows = torch.nn.functional.normalize(torch.randn(N, model.dim))
            write_features(path, Features(rows, records, "f" * 64, "test_resnet", (64, 32), "1"))
        elif name == "x.gallery":
            save_model(folder / "m.safetensors", model, config)
            with Gallery.create(path, folder / "m.safetensors", thumbnails=True, device="cpu") as made:
                for who in ("a", "b"):
                    made.add(list(draw_images(folder)), identity=who, camera="c", time="2025-01-01")
        elif name == "review.sqlite":
            with Review.open(study_of(folder, draw_images(folder)), by="Ann", at=path) as review:
                review.merge([0, 1])
                review.name(0, "Ada")
                review.eject([1], overrule=True)
        return path.read_bytes()


class _Payload:
    """What a pickle may hold: a call."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.mark,))


ABOUTS: list[Any] = [
    {"backbone": "hf-hub:a/b"}, {"backbone": "../x"}, {"backbone": ""}, {"backbone": 3},
    {"size": [8, 8]}, {"size": [60_000, 60_000]}, {"size": [10**9, 10**9]}, {"size": "x"}, {"parts": 8},
    {"pooling": "cls"},
    {"backbone": "resnet50"}, {"weights": "pretrained"}, {"more": 1}, [], 3, None, "x",
    {"last_stride": 2},
]  # fmt: skip
"""What stands in a model's file about its network, changed."""


def _hostile_model(rng: Rng) -> tuple[str, bytes]:
    tensors = {name: value.contiguous() for name, value in small_model().state_dict().items()}
    about: Any = {"backbone": "test_resnet", "size": [64, 32]}
    change = ABOUTS[rng.integers(len(ABOUTS))]
    text = json.dumps({**about, **change} if isinstance(change, dict) else change)
    if rng.random() < 0.1:
        text = "[" * 100_000
    names = list(tensors)
    if rng.random() < 0.3:
        tensors[names[rng.integers(len(names))]] = torch.zeros(3, dtype=torch.bfloat16)
    return f"about {text[:60]}", to_safetensors(tensors, {"gracl": text})


def _hostile_checkpoint(rng: Rng) -> tuple[str, bytes]:
    labels = [torch.arange(3), torch.zeros(3, dtype=torch.bfloat16), torch.zeros(2, 2), torch.tensor(1)]
    tensors = {"labels": labels[rng.integers(4)], "model.x": torch.zeros(1), "odd": torch.zeros(1)}
    if rng.random() < 0.3:
        del tensors["labels"]
    epoch = str(rng.choice(["3", "x", "", "-1", "1.5", "9" * 5000, "nan"]))
    return f"epoch {epoch[:9]}, {len(tensors)} tensors", to_safetensors(tensors, {"epoch": epoch})


def weights(rng: Rng, folder: Path) -> Case:
    """Models, checkpoints and weights of others; pickles that would execute something."""
    mark = folder / "executed"
    name = str(rng.choice(["model.safetensors", "checkpoint.safetensors", "plain.pt", "legacy.pth"]))
    path = folder / name
    draw = rng.random()
    if draw < 0.3 and name == "model.safetensors":
        what, content = _hostile_model(rng)
    elif draw < 0.3 and name == "checkpoint.safetensors":
        what, content = _hostile_checkpoint(rng)
    elif draw < 0.3:
        what, content = "a pickle that executes", _pickled(rng, mark)
    else:
        what, content = _mostly_header(rng, good(name))
    path.write_bytes(content)

    def feed() -> Ending:
        try:
            if name == "model.safetensors":
                load_model(path)
            elif name == "checkpoint.safetensors":
                load_snapshot(path)
            else:
                read_weights(path)
        finally:
            _not_executed(mark)
        return "read"

    return Case(f"{name}: {what}", feed)


def _pickled(rng: Rng, mark: Path) -> bytes:
    payload = {"state_dict": {"a": torch.zeros(2), "b": _Payload(mark)}}
    file = io.BytesIO()
    if rng.random() < 0.5:
        torch.save(payload, file, _use_new_zipfile_serialization=bool(rng.random() < 0.5))
        return file.getvalue()
    return pickle.dumps(payload if rng.random() < 0.5 else _Payload(mark))


def _mostly_header(rng: Rng, content: bytes) -> tuple[str, bytes]:
    """Damage near the start, where files say what they hold, as often as anywhere."""
    if rng.random() < 0.5:
        return damaged(rng, content)
    cut = int(rng.integers(16, 4000))
    what, head = damaged(rng, content[:cut])
    return f"head, {what}", head + content[cut:]


# -- features -------------------------------------------------------------------------------------


def features(rng: Rng, folder: Path) -> Case:
    """Files of features."""
    name = str(rng.choice(["features.npz", "features.csv", "features.parquet"]))
    path, mark = folder / name, folder / "executed"
    content = good(name)
    draw = rng.random()
    if name == "features.npz" and draw < 0.3:
        what, content = _hostile_npz(rng, mark)
    elif name == "features.csv" and draw < 0.3:
        rows = list(csv.reader(io.StringIO(content.decode(), newline="")))
        columns, changed, what = cells_changed(rng, rows[0], [list(row) for row in rows[1:]])
        content = csv_text(columns, changed if rng.random() < 0.95 else []).encode(
            errors="surrogatepass"
        )
    elif name == "features.parquet" and draw < 0.5:
        cut = int(rng.integers(1, min(3000, len(content))))
        what, tail = damaged(rng, content[-cut:])
        what, content = f"footer, {what}", content[:-cut] + tail
    else:
        what, content = _mostly_header(rng, content)
    path.write_bytes(content)

    def feed() -> Ending:
        try:
            read_features(path)
        finally:
            _not_executed(mark)
        return "read"

    return Case(f"{name}: {what}", feed)


def _hostile_npz(rng: Rng, mark: Path) -> tuple[str, bytes]:
    with np.load(io.BytesIO(good("features.npz"))) as held:
        arrays: dict[str, Any] = {name: held[name] for name in held.files}
    name = str(rng.choice([*arrays]))
    odd: list[Any] = [
        np.array([_Payload(mark)], dtype=object), np.zeros((3, 3)), np.zeros(0), np.array(3),
        np.array("[" * 100_000), np.array("9" * 5000), np.array("{}"), np.array('{"dim": 1e400}'),
        np.array('{"dim": NaN, "size": [1, 2]}'), np.full((N, 96), np.nan, np.float32),
        np.array(["\0"]),
    ]  # fmt: skip
    arrays[name] = odd[rng.integers(len(odd))]
    if rng.random() < 0.2:
        del arrays[str(rng.choice([*arrays]))]
    file = io.BytesIO()
    (np.savez if rng.random() < 0.5 else np.savez_compressed)(file, **arrays)
    content = file.getvalue()
    return f"{name} changed", damaged(rng, content)[1] if rng.random() < 0.3 else content


# -- databases ------------------------------------------------------------------------------------


def gallery(rng: Rng, folder: Path) -> Case:
    """A gallery's file: opened, listed and searched."""
    path = folder / "x.gallery"
    tables = ["about", "model", "entries", "vectors", "thumbnails"]
    what = _broken_database(rng, path, good("x.gallery"), tables)
    wanted = Image.new("RGB", (20, 40), "red")

    def feed() -> Ending:
        with Gallery.open(path, small_model(), device="cpu") as opened:
            opened.entries()
            opened.identities()
            opened.search(wanted, k=3)
            opened.thumbnail_jpeg(1)
        return "read"

    return Case(what, feed)


def review(rng: Rng, folder: Path) -> Case:
    """A review's file: read for the next training, and opened."""
    path = folder / "review.sqlite"
    tables = ["about", "images", "decisions", "links"]
    what = _broken_database(rng, path, good("review.sqlite"), tables)
    records = draw_images(folder)
    study = study_of(folder, records)

    def feed() -> Ending:
        carrying.corrections(folder, records, folder)
        carrying.read(path)
        with Review.open(study, by="Bea", at=path) as opened:
            opened.clusters()
            opened.links()
            opened.confirmed()
            opened.history()
            opened.progress()
            opened.question()
            opened.undo()
            opened.redo()
        return "read"

    return Case(what, feed)


def _broken_database(rng: Rng, path: Path, content: bytes, tables: Sequence[str]) -> str:
    """Bytes changed, or, through SQL, values and tables."""
    draw = rng.random()
    if draw < 0.5:
        what, content = damaged(rng, content) if rng.random() < 0.6 else _mostly_header(rng, content)
        path.write_bytes(content)
        return what
    path.write_bytes(content)
    with closing(sqlite3.connect(path)) as database:
        table_ = str(rng.choice(tables))
        if draw < 0.56:
            database.execute(f"DROP TABLE {table_}")
            what = f"no table {table_}"
        elif draw < 0.62:
            database.execute(
                f"DELETE FROM {table_} WHERE rowid % 2 = 0"
                if table_ != "about"
                else "DELETE FROM about"
            )
            what = f"rows of {table_} missing"
        else:
            columns = [row[1] for row in database.execute(f"PRAGMA table_info({table_})")]
            column = str(rng.choice(columns))
            values: list[Any] = [
                None, "x", b"\xff\0", 2**62, -5, 1e300, "[" * 100_000, "{}", "[]", "[[1, 2]]",
                "9" * 5000,
                '{"rows": [999], "before": [0], "after": [1], "names": []}',
                '{"rows": [0], "before": [7], "after": [1], "names": []}',
                '{"rows": ["a"], "before": [0], "after": [1], "names": [[]]}', "null", "3",
            ]  # fmt: skip
            what = f"{table_}.{column} changed"
            try:
                database.execute(
                    f'UPDATE OR IGNORE {table_} SET "{column}" = ?',
                    (values[rng.integers(len(values))],),
                )
                if rng.random() < 0.2:
                    database.execute(f"UPDATE {table_} SET \"{column}\" = CAST(x'ff' AS TEXT)")
            except sqlite3.Error:
                what += " in vain"
        database.commit()
    return what
