"""Features together with the images that they are of and the model that made them, as one file.

The file's ending says which kind it is; each holds the same and is read back to the last bit.

    .parquet   path, x y w h where there are boxes, what is known (identity, camera, ...), and features
               as lists of D float32; the schema's metadata has "gracl": JSON on the model
    .npz       the same columns as arrays, for NumPy alone; "about" is the JSON
    .csv       the same columns, the model's in each row, then f0 ... for any other program

Letters: N images, D feature dimensions.
"""

from __future__ import annotations

import csv
import importlib
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from gracl import disk
from gracl.data.parts import existing
from gracl.data.records import FIELDS, Box, Problem, Record, Records
from gracl.errors import ConfigError, DataError, FingerprintError, ShapeError
from gracl.files import write
from gracl.models.embedder import Embedder
from gracl.models.fingerprint import fingerprint
from gracl.models.fingerprint import require_same_model as require_same_model
from gracl.paths import is_file, is_folder, is_there

SIDES = ("x", "y", "w", "h")
MODEL = ("fingerprint", "backbone", "height", "width", "gracl")
"""Columns of a CSV that say the same in every row: a CSV has no place for what is true of all."""
Columns = dict[str, list[Any]]
DAMAGE = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    OverflowError,
    MemoryError,
    RuntimeError,
    EOFError,
    csv.Error,
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
)
"""What readers raise at a file that is broken, or that is another's; RuntimeError: it claims to be
encrypted, or packed in a way that nobody knows; MemoryError: it claims to be larger than it is."""


@dataclass(frozen=True, eq=False)
class Features:
    """Features, what they are of, and whose they are."""

    features: Tensor
    """(N, D) float32 unit rows, on the CPU."""
    records: Records
    """The image of each row. Images that are no files are called `image-3` or `frame-3`, from 0."""
    fingerprint: str
    """Of the model's weights: features are comparable where this and `size` are the same."""
    backbone: str
    """What the model was built on."""
    size: tuple[int, int]
    """(height, width) that images were resized to."""
    version: str
    """Of gracl."""
    left_out: tuple[Problem, ...] = ()
    """Images that could not be read; not kept in files."""

    def __len__(self) -> int:
        return len(self.records)

    @property
    def dim(self) -> int:
        """D."""
        return self.features.shape[1]


def no_features(model: Embedder) -> Features:
    """(0, D) features of a model: what others of it are joined to.

    >>> from gracl.models.embedder import build_embedder
    >>> no_features(build_embedder("test_resnet", size=(64, 32))).features.shape
    torch.Size([0, 96])
    """
    return Features(
        torch.empty(0, model.dim),
        Records(),
        fingerprint=fingerprint(model),
        backbone=model.backbone_name,
        size=model.size,
        version=metadata.version("gracl"),
    )


def join_features(first: Features, *others: Features) -> Features:
    """One set of features after another, in this order.

    Raises:
        FingerprintError: they are of different models.
    """
    for other in others:
        require_same_model(first, other)
    several = (first, *others)
    return replace(
        first,
        features=torch.cat([part.features for part in several]),
        records=Records(tuple(record for part in several for record in part.records)),
        left_out=tuple(problem for part in several for problem in part.left_out),
    )


# -- files ----------------------------------------------------------------------------------------


def write_features(path: str | Path, found: Features) -> Path:
    """Writes features as .parquet, .npz or .csv, in one step; gives the path.

    Paths of files are written whole, so that the table can lie anywhere.

    Raises:
        ConfigError: another ending, no such folder, a file there that is something else, or .parquet
            without pyarrow.
        DataError: there are none.
    """
    path = Path(path).expanduser()
    require_writable(path)
    if not len(found):
        raise DataError(f"there are no features to write into {path}")
    write(path, FORMATS[path.suffix.lower()].pack(found))
    return path


def read_features(path: str | Path) -> Features:
    """Reads what `write_features` or `gracl embed` wrote.

    Raises:
        DataError: no such file, or one that gracl did not write.
        ConfigError: another ending, or .parquet without pyarrow.
        FingerprintError: a CSV with rows of several models.
    """
    path = existing(Path(path).expanduser())
    kind = _format(path)
    try:
        return kind.unpack(path)
    except FingerprintError as error:
        raise FingerprintError(f"{path}: {error}") from error
    except DAMAGE as error:
        words = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path} cannot be read as features: {words}. Expected a file that 'gracl embed' or "
            "gracl.write_features wrote"
        ) from error


def require_writable(path: Path) -> None:
    """Refuses a file that features could not, or should not, be written to; before the work starts.

    Raises:
        ConfigError: another ending, no such folder, one that may not be written, a file there that is
            something else, or .parquet without pyarrow.
    """
    kind = _format(path)
    if is_folder(path) or not is_folder(path.parent):
        raise ConfigError(f"--out is {path}; expected a file in a folder that exists")
    disk.require_writable(path, ConfigError, "another --out")
    if is_there(path):
        try:
            own = kind.is_own(path)
        except DAMAGE:
            own = False
        if not own:
            raise ConfigError(
                f"{path} exists and holds no features that gracl wrote, so it is not overwritten. Give "
                "another --out"
            )


def _format(path: Path) -> Format:
    kind = FORMATS.get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path} ends in '{path.suffix}'; expected one of {', '.join(FORMATS)}")
    if path.suffix.lower() == ".parquet":
        _arrow("", path)
    return kind


def _arrow(name: str, path: Path) -> Any:
    try:
        return importlib.import_module(f"pyarrow{name}")
    except ImportError as error:
        raise ConfigError(
            f"pyarrow is not installed, and {path} needs it. Type: pip install 'gracl[parquet]', or "
            "take a name that ends in .npz or .csv"
        ) from error


def _about(found: Features) -> str:
    about = {
        "fingerprint": found.fingerprint,
        "backbone": found.backbone,
        "size": found.size,
        "dim": found.dim,
        "version": found.version,
    }
    return json.dumps(about)


def _features(features: np.ndarray[Any, Any], columns: Columns, about: Mapping[str, Any]) -> Features:
    """What a file holds, checked."""
    n, dim = len(columns["path"]), int(about["dim"])
    if features.shape != (n, dim) or features.dtype != np.float32:
        raise ShapeError(f"found {features.dtype} {features.shape}, expected float32 ({n}, {dim})")
    height, width = about["size"]
    return Features(
        torch.from_numpy(features),
        _records(columns),
        fingerprint=str(about["fingerprint"]),
        backbone=str(about["backbone"]),
        size=(int(height), int(width)),
        version=str(about["version"]),
    )


def _columns(records: Records) -> Columns:
    """What is known of the images, a list a fact; facts that are known of none are left out."""
    columns: Columns = {"path": [str(_whole(record.path)) for record in records]}
    if any(record.box is not None for record in records):
        boxes = [record.box or (None,) * 4 for record in records]
        columns |= {side: [box[at] for box in boxes] for at, side in enumerate(SIDES)}
    return columns | {name: records.values(name) for name in FIELDS if records.has(name)}


def _whole(path: Path) -> Path:
    # What is no file, such as a frame of a video, has a name and no place.
    return path.absolute() if is_file(path) else path


def _records(columns: Columns) -> Records:
    n = len(columns["path"])
    boxes: Sequence[Box | None] = [None] * n
    if "w" in columns:
        sides = zip(*(columns[side] for side in SIDES), strict=True)
        # A file without a sign for "nothing" has "" or a box without width.
        boxes = [Box(*map(int, box)) if box[2] else None for box in sides]
    facts: list[dict[str, Any]] = [
        {name: columns[name][row] or None for name in FIELDS if name in columns} for row in range(n)
    ]
    rows = zip(columns["path"], facts, boxes, strict=True)
    return Records(tuple(Record(Path(path), box=box, **known) for path, known, box in rows))


# -- .parquet -------------------------------------------------------------------------------------


def _to_parquet(found: Features) -> bytes:
    arrow, parquet = (_arrow(name, Path(".parquet")) for name in ("", ".parquet"))
    types = {"path": arrow.string(), **dict.fromkeys(SIDES, arrow.int64())}
    columns = {
        name: arrow.array(values, types.get(name, arrow.string()))
        for name, values in _columns(found.records).items()
    }
    numbers = arrow.array(found.features.numpy().reshape(-1))
    columns["features"] = arrow.FixedSizeListArray.from_arrays(numbers, found.dim)
    table = arrow.table(columns).replace_schema_metadata({"gracl": _about(found)})
    file = io.BytesIO()
    facts = [name for name in columns if name != "features"]  # numbers hardly repeat: no dictionary
    parquet.write_table(table, file, use_dictionary=facts)
    return file.getvalue()


def _from_parquet(path: Path) -> Features:
    with path.open("rb") as file:
        table = _arrow(".parquet", path).read_table(file)
    about = json.loads(table.schema.metadata[b"gracl"])
    numbers = table.column("features").combine_chunks().flatten().to_numpy(zero_copy_only=False)
    columns = table.drop_columns(["features"]).to_pydict()
    return _features(numbers.reshape(-1, about["dim"]).copy(), columns, about)


def _is_own_parquet(path: Path) -> bool:
    return b"gracl" in (_arrow(".parquet", path).read_schema(path).metadata or {})


# -- .npz -----------------------------------------------------------------------------------------


def _to_npz(found: Features) -> bytes:
    columns: dict[str, Any] = {
        name: np.array([value or 0 for value in values], dtype=np.int64)
        if name in SIDES
        else np.array([value or "" for value in values])
        for name, values in _columns(found.records).items()
    }
    file = io.BytesIO()
    # Numbers and texts alone: nothing that would be pickled. (NumPy 2.1 has no way to forbid it.)
    np.savez(file, features=found.features.numpy(), about=_about(found), **columns)
    return file.getvalue()


def _from_npz(path: Path) -> Features:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
        about = json.loads(str(held["about"]))
        columns = {
            name: held[name].tolist() for name in held.files if name not in ("features", "about")
        }
        return _features(held["features"], columns, about)


def _is_own_npz(path: Path) -> bool:
    with path.open("rb") as file, np.load(file, allow_pickle=False) as held:
        return {"features", "about", "path"} <= {*held.files}


# -- .csv -----------------------------------------------------------------------------------------


def _to_csv(found: Features) -> bytes:
    columns = _columns(found.records)
    model = (found.fingerprint, found.backbone, *found.size, found.version)
    table = io.StringIO(newline="")
    rows = csv.writer(table)
    rows.writerow([*columns, *MODEL, *(f"f{i}" for i in range(found.dim))])
    facts = zip(*columns.values(), strict=True)
    for known, row in zip(facts, found.features.numpy(), strict=True):
        rows.writerow([*known, *model, *row.astype(str)])  # the shortest text that is this float32
    return table.getvalue().encode()


def _from_csv(path: Path) -> Features:
    with path.open(newline="", encoding="utf-8") as lines:
        rows = csv.reader(lines)
        head = next(rows, [])
        place = {name: at for at, name in enumerate(head)}
        first = place["f0"]
        model_at = [place[name] for name in MODEL]
        known: list[list[str]] = []
        numbers = []
        for row in rows:
            known.append(row[:first])
            numbers.append(np.array(row[first:], dtype=np.float32))
    fingerprint, backbone, height, width, version = _one_model(known, model_at)
    about = {
        "fingerprint": fingerprint,
        "backbone": backbone,
        "size": (height, width),
        "dim": len(head) - first,
        "version": version,
    }
    columns = {
        name: [row[at] for row in known]
        for name, at in place.items()
        if at < first and at not in model_at
    }
    return _features(np.stack(numbers), columns, about)


def _one_model(rows: list[list[str]], places: list[int]) -> tuple[str, ...]:
    """What all rows say of their model."""
    models = list(dict.fromkeys(tuple(row[at] for at in places) for row in rows))
    if len({(model[0], *model[2:4]) for model in models}) > 1:
        raise FingerprintError(
            f"rows of different models: {models[0][0]} and {models[1][0]}. Embed all images with one"
        )
    return models[0]


def _is_own_csv(path: Path) -> bool:
    with path.open(newline="", encoding="utf-8") as lines:
        return {"path", *MODEL, "f0"} <= {*next(csv.reader(lines), [])}


class Format(NamedTuple):
    """How a kind of file is written, read and told from others'."""

    pack: Callable[[Features], bytes]
    unpack: Callable[[Path], Features]
    is_own: Callable[[Path], bool]


FORMATS = {
    ".parquet": Format(_to_parquet, _from_parquet, _is_own_parquet),
    ".npz": Format(_to_npz, _from_npz, _is_own_npz),
    ".csv": Format(_to_csv, _from_csv, _is_own_csv),
}
"""By ending."""
