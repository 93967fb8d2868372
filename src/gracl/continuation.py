"""How a run's folder is begun, or continued where it holds the same run; others are refused."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from gracl.clustering import Labels
from gracl.config import Config, differences
from gracl.data.records import Box, Dataset, Records
from gracl.data.store import ImageStore
from gracl.disk import require_room, told
from gracl.errors import ConfigError, DataError, RunError, some
from gracl.files import load_snapshot, read_log, write
from gracl.links import Links
from gracl.lock import LOCK
from gracl.models.embedder import Embedder
from gracl.paths import is_file, is_folder, is_there
from gracl.run_json import read_object
from gracl.training import Snapshot

MAY_CHANGE = {
    "train.epochs",
    "train.device",
    "train.threads",
    "train.extract_batch",
    "train.memory",
    "train.store",
    "train.compile",
}
"""Settings that a continued run may change: how long and on what it runs, not what it computes."""
MAY_CHANGE_SECTIONS = {"evaluate"}
IMAGES = "images.csv"
"""What a run was begun with: each image's path below the data's root, its box and its file's bytes."""
LEARNT_NOTHING = {"config.yaml", "data.json", IMAGES, "log.jsonl", "labels.csv"}
"""Files of a run before its first checkpoint, which is written after the labels of that epoch."""
SAMPLED = 256
"""Images whose pixels tell one data set from another; of all others the size of the file does."""


def begin_or_continue(
    folder: Path,
    config: Config,
    dataset: Dataset,
    images: ImageStore,
    links: Links,
    fingerprint: str,
    classes: Labels | None,
    *,
    continues: Path | None = None,
) -> Snapshot | None:
    """Writes what a new run is of, or checks that this one may be continued, and reads where.

    Args:
        folder, config, dataset, images, links: of the run.
        fingerprint: of the images, see `fingerprint_of`.
        classes: (N,) what a method that needs classes is told; None for all others, to which another
            truth is the same run.
        continues: the folder of the run that this one follows, if any.

    Raises:
        RunError: the folder holds something else, a run of other images, other links or other classes.
        ConfigError: it holds a run of other settings.
    """
    about = {
        "name": dataset.name,
        "root": str(dataset.root),
        "layout": dataset.layout,
        "given": list(dataset.given),
        "continues": None if continues is None else str(continues.absolute()),
        "images": len(images),
        "left_out": [{"path": str(p.path), "reason": p.reason} for p in images.problems],
        "fingerprint": fingerprint,
        "links": hashlib.sha256(links.must.tobytes() + b"|" + links.cannot.tobytes()).hexdigest(),
        "classes": None if classes is None else hashlib.sha256(classes.tobytes()).hexdigest(),
    }
    if not begun(folder, config):
        write(folder / "config.yaml", config.to_yaml().encode())
        write_images(folder / IMAGES, dataset.root, images.records)
        write(folder / "data.json", json.dumps(about, indent=1).encode())
        return None

    known = read_object(folder / "data.json")
    if known["fingerprint"] != about["fingerprint"]:
        raise RunError(
            f"{folder} was begun with {known['images']} images of {known['root']}; now there are "
            f"{about['images']} of {about['root']}, and they are not the same"
            f"{what_changed(folder, dataset.root, images.records)}. Put them back, or give another "
            "--out to train on these"
        )
    if known.get("links", about["links"]) != about["links"]:  # runs of gracl 0.1 before links: none
        raise RunError(
            f"{folder} was begun with other links. Continue it with the file of --links that it began "
            "with, or give another --out"
        )
    if known.get("classes", about["classes"]) != about["classes"]:  # runs before these were kept: none
        raise RunError(
            f"{folder} was begun with other identities of the same images, and the method "
            f"{config.method.name} learns from them. Continue it with the table that it began with, or "
            "give another --out"
        )
    return load_snapshot(folder / "checkpoint.safetensors")


def make_folder(folder: Path, config: Config) -> None:
    """Makes the folder of a run, unless it holds something else.

    Raises:
        RunError: it does, or it cannot be made.
        ConfigError: it holds a run of other settings.
    """
    if begun(folder, config):
        return
    with told(folder, RunError, "another --out"):
        folder.mkdir(parents=True, exist_ok=True)


def begun(folder: Path, config: Config) -> bool:
    """Whether a run of these settings was begun in a folder, and has learnt something.

    Raises:
        RunError: the folder holds something else.
        ConfigError: it holds a run of other settings.
    """
    if is_file(folder / "checkpoint.safetensors"):
        _require_same_settings(folder, Config.load(folder / "config.yaml"), config)
        return True
    # Nothing was learnt yet, so nothing ties the folder to its settings.
    if not _may_begin_in(folder):
        raise RunError(f"{folder} exists and is not a run. Give another --out, or an empty folder")
    return False


def _may_begin_in(folder: Path) -> bool:
    """Whether a folder is empty, or holds just what a run leaves that has learnt nothing yet.

    Other projects have a config.yaml too, so the name alone proves nothing.
    """
    if not is_there(folder):
        return True
    if not is_folder(folder):
        return False
    left = {path.name for path in folder.iterdir() if not path.name.endswith(".unfinished")}
    names = left - {LOCK}
    if not names:
        return True
    if "config.yaml" not in names or not names <= LEARNT_NOTHING:
        return False
    try:
        Config.load(folder / "config.yaml")
        about = json.loads((folder / "data.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return names <= {"config.yaml", IMAGES}
    except (ConfigError, ValueError, OSError):
        return False
    return isinstance(about, dict) and "fingerprint" in about


def _require_same_settings(folder: Path, old: Config, new: Config) -> None:
    # A cosine ends at the last epoch, so another number of epochs is another rate at each step.
    fixed = {"train.epochs"} if old.train.schedule == "cosine" else set()
    changed = {
        name: values
        for name, values in differences(old, new).items()
        if name not in MAY_CHANGE - fixed and name.split(".")[0] not in MAY_CHANGE_SECTIONS
    }
    if changed:
        listed = ", ".join(f"{name} was {a}, is {b}" for name, (a, b) in changed.items())
        raise ConfigError(
            f"{folder} holds a run with other settings ({listed}). Continue it with its own, or give "
            "another --out"
        )


def truncate_log(path: Path, epochs: int) -> None:
    """Drops what was logged after the checkpoint: these epochs are run again."""
    kept = [
        line
        for line in read_log(path)
        if (line["event"] == "epoch" and line["epoch"] <= epochs)
        or (line["event"] == "start" and epochs > 0)
    ]
    write(path, "".join(json.dumps(line) + "\n" for line in kept).encode())


def fingerprint_of(root: Path, images: ImageStore) -> str:
    """Tells other images from the same ones in another place, by names and by a sample of pixels."""
    digest = hashlib.sha256()
    listed = _listed(root, images.records)
    if gone := [name for (name, _), size in listed if size < 0]:
        raise DataError(
            f"{len(gone)} of {len(images)} images of {root} are gone since they were decoded: "
            f"{some(gone)}. Put them back, and type the same again"
        )
    for record, ((name, box), size) in zip(images.records, listed, strict=True):
        digest.update(f"{name}\n{box}\n{record.camera}\n{size}\n".encode())
    rows = np.linspace(0, len(images) - 1, min(len(images), SAMPLED)).round().astype(np.int64)
    digest.update(images.images[torch.from_numpy(rows)].numpy().tobytes())
    return digest.hexdigest()


def write_images(path: Path, root: Path, records: Records) -> None:
    """See `IMAGES`."""
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow(["path", "x", "y", "w", "h", "bytes"])
    rows.writerows([name, *(box or [""] * 4), size] for (name, box), size in _listed(root, records))
    write(path, table.getvalue().encode())


def what_changed(folder: Path, root: Path, records: Records) -> str:
    """In words, which images are not those that a run was begun with; for the middle of a sentence.

    Args:
        folder: of the run; one that kept no list of them gives no words.
        root: of the data set as it lies now.
        records: its images now.
    """
    try:
        was = dict(_read_images(folder / IMAGES))
    except (OSError, ValueError, KeyError, csv.Error):
        return ""
    now = dict(_listed(root, records))
    parts = {
        "gone": [name for name in was if name not in now],
        "new": [name for name in now if name not in was],
        "of another size": [name for name in was if name in now and was[name] != now[name]],
    }
    told = [
        f"{len(names)} {'is' if len(names) == 1 else 'are'} {what} ({some([n for n, _ in names])})"
        for what, names in parts.items()
        if names
    ]
    return ": " + ", ".join(told or ["their pixels, order or cameras are others"])


def require_room_to_train(folder: Path, model: Embedder, config: Config) -> None:
    """Refuses a training whose checkpoints the disk has no room for; before the first epoch.

    A checkpoint holds the model, the two moments of its weights and, where there is one, the teacher.
    The old one stays until the new one is whole, and the finished model comes beside it.

    Raises:
        RunError: it has not.
    """
    whole = sum(value.nbytes for value in model.state_dict().values())
    moments = sum(2 * weight.nbytes for weight in model.parameters() if weight.requires_grad)
    checkpoint = whole * (2 if config.train.ema else 1) + moments
    there = (folder / "checkpoint.safetensors").is_file()
    copies = 1 if there or config.train.epochs == 1 else 2
    what = "a training's checkpoint, the one that takes its place and its model"
    require_room(folder, copies * checkpoint + whole, what, RunError, "another --out")


def _listed(root: Path, records: Records) -> list[tuple[tuple[str, Box | None], int]]:
    """Path below the root, box and bytes of each image's file; -1 of one that is gone."""
    found = []
    for record in records:
        name = record.path.relative_to(root) if record.path.is_relative_to(root) else record.path
        try:
            size = record.path.stat().st_size
        except OSError:
            size = -1
        found.append(((name.as_posix(), record.box), size))
    return found


def _read_images(path: Path) -> Iterator[tuple[tuple[str, Box | None], int]]:
    with path.open(newline="", encoding="utf-8") as lines:
        for row in csv.DictReader(lines):
            box = Box(*(int(row[side]) for side in "xywh")) if row["x"] else None
            yield (row["path"], box), int(row["bytes"])
