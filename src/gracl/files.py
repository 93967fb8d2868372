"""The files of a run: each written in one step, so that a killed process leaves the old one or the new.

A file is written under another name first and moved into place. Weights are safetensors: nothing here
unpickles.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
import re
import time
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as to_safetensors
from torch import Tensor

from gracl import distributed, training
from gracl.calibration import Calibration
from gracl.clustering import Labels
from gracl.config import Config, ModelConfig
from gracl.data.parts import existing
from gracl.data.records import Records
from gracl.disk import put, require_writable, told
from gracl.error_rates import Rate
from gracl.errors import (
    ConfigError,
    DataError,
    FingerprintError,
    GraclError,
    RunError,
    WeightsError,
)
from gracl.models.embedder import Embedder
from gracl.models.fingerprint import fingerprint
from gracl.models.hub import HUB, fetch
from gracl.models.weights import first_line
from gracl.paths import is_file, is_folder, is_there
from gracl.run_json import read_lines
from gracl.training import Snapshot

WEIGHTS = "model.safetensors"
"""What a model's file is called in a folder."""
NOT_FINISHED = "the run is not finished. Continue it with the command that began it"
"""Ends an error about a run that has not written everything yet."""
DESCRIPTION = "config.json"
"""What stands beside it where `gracl.save_pretrained` wrote it."""
CALIBRATION = "gracl_calibration"
"""The key that says of a JSON file that it is a calibration, with the version of its form."""


def save_model(path: Path, model: Embedder, config: ModelConfig) -> None:
    """One safetensors file that `load_model` needs nothing besides."""
    about = {"gracl": json.dumps(dataclasses.asdict(config))}
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    write(path, to_safetensors(tensors, metadata=about))


def load_model(path: str | Path) -> Embedder:
    """A model that `save_model` wrote, on the CPU, in eval mode.

    Args:
        path: its file, the folder of a run or of `gracl.save_pretrained`, or "hf-hub:org/name" on the
            Hugging Face hub (also "hf-hub:org/name@revision"; see `gracl.from_pretrained`).

    Raises:
        WeightsError: no such file, a run that is not finished, or a file that holds no model of gracl.
        FingerprintError: the folder describes other weights than it holds.

    >>> model = load_model("runs/photos")                     # doctest: +SKIP
    >>> model = load_model("runs/photos/model.safetensors")   # doctest: +SKIP
    """
    by_itself = is_file(Path(path).expanduser())  # then nothing that lies beside it is asked for
    path = locate_model(path)
    tensors, about = _read_safetensors(path)
    if "gracl" not in about:
        raise WeightsError(
            f"{path} holds weights but not the network they belong to; expected a model.safetensors "
            "of a run. A backbone's weights are given as model.weights"
        )
    try:
        settings = {**json.loads(about["gracl"]), "weights": "none"}
        model = rebuild(tensors, Config().replace({"model": settings}).model)
    except (ValueError, TypeError, RuntimeError, GraclError) as error:
        why = " ".join(str(error).split("\n")[:2])  # torch says what is wrong in its second line
        raise WeightsError(
            f"{path} cannot be made a model by this gracl: {why.rstrip('.')}. Take the file whole, "
            "and a gracl as new as the one that wrote it"
        ) from error
    if not by_itself and is_file(path.parent / DESCRIPTION):
        _require_described(path.parent, model)
    return model


def locate_model(path: str | Path) -> Path:
    """The file of a model that `load_model` takes; one on the hub is loaded into its cache.

    Raises:
        WeightsError: there is none.
    """
    name = path.as_posix() if isinstance(path, Path) else path
    if name.startswith(HUB):
        repository, _, revision = name.removeprefix(HUB).partition("@")
        given = fetch_model(repository, revision=revision or None)
    else:
        given = Path(path).expanduser()
    file = given / WEIGHTS if is_folder(given) else given
    if not is_file(file):
        why = "there is no such file or folder"
        if is_folder(given):
            if is_file(given / "config.yaml"):
                raise WeightsError(f"{given} has no {WEIGHTS} yet: {NOT_FINISHED}")
            why = f"it has no {WEIGHTS}, which a run writes when it is finished"
        raise WeightsError(
            f"{given} is no model: {why}. Give the folder of a finished run, or a model.safetensors"
        )
    return file


def rebuild(tensors: dict[str, Tensor], config: ModelConfig) -> Embedder:
    """The model of these weights and settings, on the CPU, in eval mode; `weights` is not read."""
    model = training.build_model(dataclasses.replace(config, weights="none"))
    model.load_state_dict(tensors)
    return model.eval()


def fetch_model(
    repository: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
    token: str | None = None,
) -> Path:
    """The folder in the hub's cache with a model and its description; see `gracl.models.hub.fetch`.

    The description comes first, so that of what is no model of gracl nothing else is loaded.

    Raises:
        WeightsError: it cannot be had, or is no model of gracl.
    """
    there: dict[str, Any] = {
        "cache_dir": cache_dir,
        "local_files_only": local_files_only,
        "token": token,
    }
    folder = fetch(repository, DESCRIPTION, revision=revision, **there).parent
    read_description(folder, called=f"{HUB}{repository}")
    # By the commit: nobody may change the one while the other is on its way.
    fetch(repository, WEIGHTS, revision=folder.name, **there)
    return folder


def read_description(folder: Path, *, called: str = "") -> dict[str, Any]:
    """What `gracl.save_pretrained` wrote of a model into config.json, below "gracl".

    Args:
        folder: where it lies.
        called: how errors call it; by its folder if not given.

    Raises:
        WeightsError: there is none, it is damaged, or another library's.
    """
    called = called or str(folder)
    try:
        found = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise WeightsError(
            f"{called} has no {DESCRIPTION}, so it is not what gracl.save_pretrained writes. The "
            "folder of a run is read by gracl.load_model"
        ) from error
    except (OSError, ValueError) as error:
        raise WeightsError(
            f"{called}: {DESCRIPTION} is damaged ({first_line(error)}). Save the model or fetch it anew"
        ) from error
    about = found.get("gracl") if isinstance(found, dict) else None
    if not isinstance(about, dict):
        raise WeightsError(
            f"{called} holds no model of gracl: its {DESCRIPTION} is another library's. A network of "
            f"timm is given as --model.weights {HUB}ORGANISATION/NAME"
        )
    if not isinstance(about.get("fingerprint"), str):
        raise WeightsError(
            f"{called}: {DESCRIPTION} is damaged (it names no fingerprint). Save the model or fetch it "
            "anew"
        )
    return about


def _require_described(folder: Path, model: Embedder) -> None:
    try:
        told = read_description(folder)["fingerprint"]
    except WeightsError:
        return  # not ours or not whole; the weights say all that is needed
    found = fingerprint(model)
    if found != told:
        raise FingerprintError(
            f"{folder}: {WEIGHTS} holds the weights {found[:12]}, and {DESCRIPTION} describes "
            f"{told[:12]}, so the two are not of one model. Save the model or fetch it anew; or give "
            f"{WEIGHTS} itself, if you know whose it is"
        )


def save_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Writes a checkpoint in one step."""
    tensors = {
        f"{part}.{name}": value
        for part, values in snapshot.state.items()
        for name, value in values.items()
    }
    tensors["labels"] = torch.from_numpy(snapshot.labels)
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    write(path, to_safetensors(contiguous, metadata={"epoch": str(snapshot.epoch)}))


def load_snapshot(path: Path) -> Snapshot:
    """Reads a checkpoint.

    Raises:
        WeightsError: the file is damaged.
        RunError: it is no checkpoint.
    """
    tensors, about = _read_safetensors(path)
    if "epoch" not in about or "labels" not in tensors:
        raise RunError(f"{path} is not a checkpoint of gracl; expected one that a run wrote")
    labels = tensors.pop("labels")
    if (
        not re.fullmatch(r"[0-9]{1,9}", about["epoch"])
        or labels.ndim != 1
        or labels.dtype != torch.int64
    ):
        raise RunError(
            f"{path} is damaged: it is of epoch '{about['epoch'][:20]}' and has {labels.dtype} labels "
            f"{tuple(labels.shape)}; expected a number, and int64 (N,)"
        )
    state: dict[str, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        part, _, name = key.partition(".")
        state.setdefault(part, {})[name] = value
    return Snapshot(int(about["epoch"]), state, labels.numpy())


def write_labels(path: Path, records: Records, labels: Labels) -> None:
    """path, cluster, and the crop box where there are boxes, as CSV, in record order."""
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    boxes = any(record.box is not None for record in records)
    rows.writerow(["path", "cluster", *(("x", "y", "w", "h") if boxes else ())])
    for record, label in zip(records, labels, strict=True):
        box = (record.box or [""] * 4) if boxes else ()
        rows.writerow([record.path.absolute(), int(label), *box])
    write(path, table.getvalue().encode())


def read_labels(path: Path) -> list[tuple[str, int]]:
    """(path, cluster) of each row that `write_labels` wrote.

    Raises:
        RunError: the file is damaged; its line is named.
    """
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = csv.DictReader(lines)
            if not {"path", "cluster"} <= {*(rows.fieldnames or ())}:
                raise ValueError("it has no columns path and cluster")
            return [(row["path"], _cluster(row["cluster"], rows.line_num)) for row in rows]
    except (OSError, ValueError, csv.Error) as error:
        raise RunError(
            f"{path} cannot be read as the clusters of a run: {error}. Take it back from a copy, or "
            "train anew into another folder"
        ) from error


def _cluster(cell: str | None, line: int) -> int:
    if not re.fullmatch(r"-1|[0-9]{1,9}", cell or ""):
        raise ValueError(f"in line {line} the cluster is {cell!r}; expected a whole number, or -1")
    return int(cell or "")


def write_calibration(path: str | Path, calibration: Calibration) -> Path:
    """Writes a calibration as JSON, in one step; gives the path.

    Raises:
        ConfigError: no such folder, or a file there that is something else.
    """
    path = Path(path).expanduser()
    require_calibration_writable(path)
    content = {CALIBRATION: 1, **dataclasses.asdict(calibration)}
    write(path, (json.dumps(content, indent=1, allow_nan=False) + "\n").encode())
    return path


def read_calibration(path: str | Path) -> Calibration:
    """Reads what `write_calibration` or `gracl calibrate` wrote.

    Raises:
        DataError: no such file, one that is broken, or one that gracl did not write as a calibration.

    >>> read_calibration("runs/photos/calibration.json").threshold       # doctest: +SKIP
    0.6120
    """
    path = existing(Path(path).expanduser())
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found.pop(CALIBRATION) != 1:
            raise ValueError("it was written by a later version of gracl")
        for name in ("false_matches", "true_matches", "false_answers", "true_answers"):
            found[name] = Rate(**found[name]) if found[name] is not None else None
        for name in ("threshold_interval", "size", "notes"):
            found[name] = tuple(found[name])
        calibration = Calibration(**found)
        _require_kinds(calibration)
    except (
        OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError,
    ) as error:  # fmt: skip
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as a calibration: {words}. Expected a file that 'gracl calibrate' "
            "or gracl.write_calibration wrote"
        ) from error
    return calibration


def _require_kinds(found: Calibration) -> None:
    """A `ValueError` where a number is none, or a word."""
    rates = (found.false_matches, found.true_matches, found.false_answers, found.true_answers)
    numbers: dict[str, tuple[Any, ...]] = {
        "threshold": (found.threshold,),
        "threshold_interval": found.threshold_interval,
        "rate": (found.rate,),
        "rates": tuple(value for rate in rates if rate for value in dataclasses.astuple(rate)),
        "counts": (found.gallery, found.n_units, *found.size),
    }
    for name, values in numbers.items():
        for value in values:
            if (
                isinstance(value, bool)
                or not isinstance(value, int | float)
                or not math.isfinite(value)
            ):
                raise ValueError(f"its {name} is {str(value)[:40]}, and should be a number")
    if len(found.threshold_interval) != 2 or len(found.size) != 2:
        raise ValueError("its threshold_interval and its size should be two numbers each")
    words = (found.rate_per, found.evidence, found.unit, found.protocol, *found.notes)
    for word in (*words, found.fingerprint, found.backbone, found.version):
        if not isinstance(word, str):
            raise ValueError(f"it has {str(word)[:40]} where a word should be")


def require_calibration_writable(path: Path) -> None:
    """Refuses a file that a calibration could not, or should not, be written to; before the work.

    Raises:
        ConfigError: no such folder, or a file there that is something else.
    """
    if is_folder(path) or not is_folder(path.parent):
        raise ConfigError(f"--out is {path}; expected a file in a folder that exists")
    require_writable(path, ConfigError, "another --out")
    if is_there(path):
        try:
            own = CALIBRATION in json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, TypeError):
            own = False
        if not own:
            raise ConfigError(
                f"{path} exists and is no calibration that gracl wrote, so it is not overwritten. Give "
                "another --out"
            )


def write(path: Path, content: bytes) -> None:
    """Puts a file in place in one step: a reader, and a killed process, sees old or new.

    Of processes that work together only the first writes.
    """
    if distributed.rank() != 0:
        return
    put(path, content, RunError, "another --out")


def read_log(path: Path) -> list[dict[str, Any]]:
    """The whole lines of a log; a last one that a killed process left unfinished is passed over.

    Raises:
        RunError: a line is damaged, or tells no event.
    """
    lines = read_lines(path) if is_file(path) else []
    for line in lines:
        line["event"]
    return list(lines)


def append(path: Path, line: dict[str, Any]) -> None:
    """Adds a line to a log, with the time; of processes that work together only the first does."""
    if distributed.rank() != 0:
        return
    with told(path, RunError, "another --out"), path.open("a", encoding="utf-8") as log:
        log.write(json.dumps({**line, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}) + "\n")


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as safetensors: {first_line(error)}") from error
