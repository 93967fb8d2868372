"""Files that guided.py feeds: a target for each family of readers.

An input is one byte that says which reader, and then the file: so what is found can be looked at with
any editor.
"""

from __future__ import annotations

import importlib
import io
import json
import os
import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
import yaml

import fuzz_files
from fuzz_files import TABLES, TREES, YAMLS, N, good
from fuzz_images import damaged
from gracl.card import training_of
from gracl.comparison import Comparison, Outcome, read_comparison, to_json
from gracl.config import Config
from gracl.data.huggingface import from_huggingface
from gracl.data.readers import load_dataset
from gracl.data.synthetic import draw_people
from gracl.data.tracks import read_tracks, tracks_text
from gracl.features import read_features, require_writable
from gracl.files import load_model, load_snapshot, read_calibration, read_description, save_snapshot
from gracl.logbook import curves_of, ends_of
from gracl.models.weights import read_weights
from gracl.profiling import profile_run
from gracl.report.training_curves import training_charts
from gracl.runs import Run, train
from gracl.training import Snapshot
from guided_forms import (
    Rng,
    Target,
    change_arrays,
    change_cells,
    change_head,
    change_lines,
    change_settings,
    change_values,
    of_files,
)

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
        return (change_values if name in TREES else change_cells)(rng, name, content)

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
            given = dict.fromkeys(found.spans(), 7)
            tracks_text(path, found, given)
            again = folder / f"again {name}"
            again.mkdir(exist_ok=True)
            out = again if ending is None else again / path.name
            for file, text in tracks_text(out, found).items():
                file.write_text(text, encoding="utf-8", newline="")
            back = [one for one in read_tracks(out, size=(480, 640)) if one.camera == found.camera]
            if ending in ("csv", "json"):
                _require_same(found.detections, [seen for one in back for seen in one.detections])

    def change(rng: Rng, name: str, content: bytes) -> bytes:
        return (change_values if name in TREES else change_cells)(rng, name, content)

    return of_files(("mot", "track csv", "track json", "ultralytics"), _seed, read, change)


def _require_same(before: Sequence[object], after: Sequence[object]) -> None:
    if [*before] != [*after]:
        raise AssertionError("what was written is not what was read")


def hugging_face(folder: Path) -> Target:
    """Image folders with metadata, and parquet with the images in it."""
    pyarrow, parquet = map(importlib.import_module, ("pyarrow", "pyarrow.parquet"))
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
        for other in seeds:
            (folder / other).unlink(missing_ok=True)
        (folder / name).write_bytes(content)
        from_huggingface(folder / name if name == "x.parquet" else folder)

    def change(rng: Rng, name: str, content: bytes) -> bytes:
        if name == "metadata.jsonl":
            return change_lines(rng, name, content)
        if name == "metadata.csv":
            return change_cells(rng, name, content)
        return _tagged(rng, content)

    def _tagged(rng: Rng, content: bytes) -> bytes:
        if rng.random() < 0.5:
            return change_arrays(rng, "x.parquet", content)
        try:
            table = parquet.read_table(io.BytesIO(content))
            told = (table.schema.metadata or {}).get(b"huggingface", about.encode())
            out = io.BytesIO()
            told = change_values(rng, "", told)
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
    return of_files([*seeds], seeds.__getitem__, read, change)


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
    return of_files(("settings",), lambda _: [*whole, *hostile], read, change_settings)


def runs(folder: Path) -> Target:
    """The files of a run, one of them damaged."""
    os.environ["GRACL_CACHE"] = str(folder / "cache")
    draw_people(folder / "people", identities=6, test_identities=3, cameras=2, images_per_camera=3)
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
        kinds = {
            ".jsonl": change_lines,
            ".json": change_values,
            ".csv": change_cells,
            ".yaml": change_settings,
        }
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
    return of_files([*seeds], seeds.__getitem__, read, change_values)


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

    return of_files([*heads], heads.__getitem__, read, change_head)


def features(folder: Path) -> Target:
    """Files of features, read, and asked whether they are ours."""

    def read(name: str, content: bytes) -> None:
        path = folder / name
        path.write_bytes(content)
        found = read_features(path)
        require_writable(path)
        if found.features.shape != (len(found.records), found.dim):
            raise AssertionError("features and images differ in number")

    return of_files(("features.npz", "features.csv", "features.parquet"), good, read, change_arrays)


FILES: dict[str, Callable[[Path], Target]] = {
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
}
"""By name: each is made in an empty folder of its own."""
