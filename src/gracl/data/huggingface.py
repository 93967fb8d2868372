"""Data sets in Hugging Face's forms, as they lie on this disk: image folders, parquet, Dataset objects.

Nothing is downloaded. Each form becomes tables of rows, whose columns mean what they mean in a CSV.
A `Record` needs a file, so images that are embedded as bytes are written, once, into gracl's cache
folder, under the hash of their content.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

from PIL import Image

from gracl.data.parts import IMAGE_SUFFIXES, Parts, existing, images_below
from gracl.data.records import Dataset, Problem
from gracl.data.tables import ALSO_CALLED, as_text, records_of
from gracl.disk import OTHER_CACHE, one_step, told
from gracl.errors import ConfigError, DataError, did_you_mean
from gracl.paths import is_file, is_there, leads_out

SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    "query": "query",
    "gallery": "gallery",
}
"""Folders that are called so are splits, and so are parquet files whose names begin so."""
METADATA = ("metadata.csv", "metadata.jsonl")
BATCH = 256
"""Rows that are in memory at once; their images with them."""

Row = dict[str, Any]


@dataclass(frozen=True)
class _Table:
    """Rows of one split, whatever they come from."""

    source: Path
    """The file or folder; paths in it are relative to the folder."""
    split: str | None
    columns: tuple[str, ...]
    rows: Callable[[], Iterable[Row]]
    features: Mapping[str, Any] = field(default_factory=dict)
    """What `datasets` says of columns, such as {"label": {"_type": "ClassLabel", "names": [...]}}."""
    binary: tuple[str, ...] = ()
    """Columns that hold bytes."""


def from_huggingface(
    source: object,
    *,
    image: str | None = None,
    identity: str | None = None,
    name: str | None = None,
) -> Dataset:
    """A data set in one of Hugging Face's forms, read offline.

    * An **image folder**: images with a `metadata.csv` or `metadata.jsonl` that names them
      (`file_name`), or, without one, in a folder for each label.
    * **Parquet** files, such as `train-00000-of-00001.parquet`, with the images' bytes in them;
      needs the extra parquet.
    * A `Dataset` or `DatasetDict` of the package `datasets`, in memory; not a streaming one.

    The column of images is that of the type Image. Other columns mean what they mean in
    `gracl.from_dataframe`; class labels become their names, and -1 is unknown.

    The split is that of the file's or folder's name; where that tells only one, a column `split`
    counts. The split `validation` is the test part where there is no other, and left out where
    there is one.

    Args:
        source: a folder, a parquet file, or an object of `datasets`.
        image: the column of images, where it cannot be told.
        identity: the column of identities, where it is not called so.
        name: what the data set is called; None is the folder's name.

    Raises:
        DataError: nothing there, no image, or columns that cannot be told apart.
        ConfigError: parquet, without pyarrow.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for file in ("train/Tara/1.jpg", "train/Tara/2.jpg", "test/Ivo/3.jpg"):
    ...         path = Path(folder, file)
    ...         path.parent.mkdir(parents=True, exist_ok=True)
    ...         path.touch()
    ...     dataset = from_huggingface(folder)
    >>> dataset.train.values("identity"), dataset.query.values("identity")
    (['Tara', 'Tara'], ['Ivo'])
    """
    parts = Parts()
    if isinstance(source, str | Path):
        root = _local(source)
        tables = _parquet_tables(root) or _folder_tables(root, parts)
        name = name or (root if root.is_dir() else root.parent).resolve().name
        root = root if root.is_dir() else root.parent
    else:
        root, name = _cache(), name or "huggingface"
        tables = _object_tables(source)
    tables = _settle(tables, parts)
    if identity is not None:
        columns = sorted({column for table in tables for column in table.columns})
        if identity not in columns:
            raise DataError(f"{root} has no column '{identity}'; {did_you_mean(identity, columns)}")
    within = root if isinstance(source, str | Path) else None
    columns, rows = _joined(tables, image, identity, parts, within)
    for split, record in records_of(rows, columns, source=root, root=root, parts=parts):
        parts.add(split, record)
    return parts.dataset(name, root, "huggingface")


def _local(source: str | Path) -> Path:
    path = Path(source).expanduser()
    if not is_there(path) and re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise DataError(
            f"{source} is no folder here, and nothing is downloaded. If it is a name on the hub: "
            f"hf download {source} --repo-type dataset --local-dir FOLDER"
        )
    return existing(path).absolute()


# -- forms: each becomes tables -------------------------------------------------------------------


def _parquet_tables(root: Path) -> list[_Table]:
    """Parquet files at or below a path; none where there are none."""
    if is_file(root):
        if root.suffix.lower() != ".parquet":
            raise DataError(f"{root} is a file; expected a folder or a .parquet file")
        return [_parquet_table(root, PurePath(root.name))]
    files = sorted(p for p in root.rglob("*.parquet") if not p.name.startswith("."))
    return [_parquet_table(file, file.relative_to(root)) for file in files]


def _parquet_table(file: Path, place: PurePath) -> _Table:
    try:
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise ConfigError(
            f"pyarrow is not installed, and {file} needs it. Type: pip install 'gracl[parquet]'"
        ) from error

    def rows() -> Iterator[Row]:
        with parquet.ParquetFile(file) as opened:
            for batch in opened.iter_batches(batch_size=BATCH):
                yield from batch.to_pylist()

    def refused(error: Exception) -> DataError:
        return DataError(
            f"{file} cannot be read as parquet: {' '.join(str(error).split())}. Write or fetch it anew"
        )

    try:
        with parquet.ParquetFile(file) as opened:
            schema = opened.schema_arrow
    except Exception as error:  # at a damaged file pyarrow raises what it likes
        raise refused(error) from error
    return _Table(
        file,
        _split_of(place),
        tuple(schema.names),
        lambda: _refusing(rows(), refused),
        _features(schema),
        _binary(schema),
    )


def _refusing(rows: Iterator[Row], refused: Callable[[Exception], DataError]) -> Iterator[Row]:
    """The rows, as far as they can be read; damage may lie behind the first of them."""
    while True:
        try:
            row = next(rows)
        except StopIteration:
            return
        except Exception as error:  # see above
            raise refused(error) from error
        yield row


def _features(schema: Any) -> dict[str, Any]:
    """What `datasets` noted of the columns; nothing where its note is another program's, or damaged."""
    try:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        features = about["info"]["features"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return {}
    return features if isinstance(features, dict) else {}


def _binary(schema: Any) -> tuple[str, ...]:
    kinds = zip(schema.names, map(str, schema.types), strict=True)
    return tuple(name for name, kind in kinds if re.match(r"(struct<bytes: )?(large_)?binary", kind))


def _folder_tables(root: Path, parts: Parts) -> list[_Table]:
    """Rows of metadata files, or a row an image; in one table for each split."""
    files = sorted(path for file in METADATA for path in root.rglob(file))
    rows: dict[str | None, list[Row]] = {}
    images = list(images_below(root, parts.problems))
    if files:
        for file in files:
            for row in _metadata_rows(file):
                column = next((c for c in ("path", *ALSO_CALLED["path"]) if row.get(c)), None)
                if column is None:
                    parts.problems.append(Problem(file, f"a row without a file_name: {row}"))
                    continue
                path = file.parent / str(row.pop(column))
                rows.setdefault(_split_of(_within(path, root)), []).append({**row, "path": path})
        named = {row["path"] for table in rows.values() for row in table}
        missed = sum(path not in named for path in images)
        if missed:
            parts.notes.append(f"{missed} images are named in no metadata file and left out")
    else:
        for path in images:
            folder = path.parent.name
            labelled = path.parent != root and folder.lower() not in SPLIT_NAMES
            label = {"identity": folder} if labelled else {}
            rows.setdefault(_split_of(_within(path, root)), []).append({"path": path, **label})
        if any("identity" in row for table in rows.values() for row in table):
            parts.notes.append("identities are the names of the folders that images lie in")
    return [
        _Table(root, split, tuple(dict.fromkeys(c for row in table for c in row)), table.__iter__)
        for split, table in rows.items()
    ]


def _metadata_rows(file: Path) -> Iterator[Row]:
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            if file.suffix == ".csv":
                for row in csv.DictReader(lines):
                    yield {name: value for name, value in row.items() if name is not None}
            else:
                for line in lines:
                    if line.strip():
                        yield _object(json.loads(line))
    except (csv.Error, OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file} cannot be read in UTF-8: {error}") from error


def _object(row: Any) -> Row:
    if not isinstance(row, dict):
        raise ValueError(f"a line holds a {type(row).__name__}; expected an object")
    return row


def _object_tables(source: object) -> list[_Table]:
    """Tables of a Dataset or DatasetDict; both are known by what they can do."""
    datasets = source if isinstance(source, Mapping) else {None: source}
    return [_object_table(split, dataset) for split, dataset in datasets.items()]


def _object_table(split: str | None, dataset: Any) -> _Table:
    if not all(hasattr(dataset, name) for name in ("features", "with_format", "iter", "num_rows")):
        hint = "; load without streaming=True" if hasattr(dataset, "with_format") else ""
        raise DataError(
            f"found a {type(dataset).__name__}; expected a folder, a parquet file, or a Dataset or "
            f"DatasetDict of the package datasets{hint}"
        )

    def rows() -> Iterator[Row]:
        # As arrow, so that images come as the bytes they are, not decoded.
        for batch in dataset.with_format("arrow").iter(batch_size=BATCH):
            yield from batch.to_pylist()

    named = str(split if split is not None else getattr(dataset, "split", None) or "")
    return _Table(
        Path(named or "dataset"),
        SPLIT_NAMES.get(named),
        tuple(dataset.features),
        rows,
        dataset.features.to_dict(),
    )


# -- splits ---------------------------------------------------------------------------------------


def _within(path: Path, root: Path) -> PurePath:
    return path.relative_to(root) if path.is_relative_to(root) else PurePath(path.name)


def _split_of(place: PurePath) -> str | None:
    """The split that a place within a data set tells by its name.

    Of an image only folders count: "test 3.jpg" is a photograph.

    >>> [_split_of(PurePath(p)) for p in ("data/val-0-of-1.parquet", "Test/a/1.jpg", "x/test 3.jpg")]
    ['validation', 'test', None]
    """
    names = [folder.lower() for folder in place.parts[:-1]]
    if place.suffix.lower() not in IMAGE_SUFFIXES:
        names += re.findall(r"^[a-z]+(?=[^a-z])", place.name.lower())
    return next((SPLIT_NAMES[name] for name in reversed(names) if name in SPLIT_NAMES), None)


def _settle(tables: list[_Table], parts: Parts) -> list[_Table]:
    """Makes validation the test part, or leaves it out beside one."""
    splits = {table.split for table in tables}
    if "validation" not in splits:
        return tables
    if splits & {"test", "query", "gallery"}:
        parts.notes.append("the split validation is left out: there is a test part beside it")
        return [table for table in tables if table.split != "validation"]
    parts.notes.append("the split validation is the test part")
    return [replace(table, split="test") if table.split == "validation" else table for table in tables]


# -- rows -----------------------------------------------------------------------------------------


def _joined(
    tables: list[_Table],
    image: str | None,
    identity: str | None,
    parts: Parts,
    within: Path | None,
) -> tuple[list[str], Iterator[tuple[str, Row]]]:
    """Columns and rows of all tables together, each row with the path of a file."""
    by_name = len({table.split for table in tables}) > 1
    holds = [(table, _image_column(table, image)) for table in tables]
    columns = dict.fromkeys(("path", "split"))
    for table, column in holds:
        renamed = ("identity" if name == identity else name for name in table.columns)
        columns |= dict.fromkeys(name for name in renamed if name != column)
    if by_name and any("split" in table.columns for table in tables):
        parts.notes.append("the column 'split' is not read: files and folders tell the splits")

    def rows() -> Iterator[tuple[str, Row]]:
        for table, column in holds:
            for number, row in enumerate(table.rows()):
                place = f"{table.source.name}, row {number}"
                found = _file(row.pop(column), table.source, within)
                if isinstance(found, str):
                    parts.problems.append(Problem(table.source, f"{place}: {found}"))
                    continue
                row = {name: _named(value, table.features.get(name)) for name, value in row.items()}
                if identity is not None:
                    row["identity"] = row.pop(identity, None)
                if by_name or "split" not in row:
                    row["split"] = table.split
                row["path"] = found
                yield place, row

    return list(columns), rows()


def _image_column(table: _Table, image: str | None) -> str:
    if image is not None:
        if image not in table.columns:
            raise DataError(
                f"{table.source} has no column '{image}'; {did_you_mean(image, table.columns)}"
            )
        return image
    kinds = {name: table.features.get(name) for name in table.columns}
    typed = [n for n, f in kinds.items() if isinstance(f, dict) and f.get("_type") == "Image"]
    usual = [n for n in ("image", "path", *ALSO_CALLED["path"]) if n in table.columns]
    found = typed or list(table.binary) or usual[:1]
    if len(found) != 1:
        several = f"each of the columns {', '.join(found)}" if found else "no column"
        raise DataError(
            f"{table.source}: {several} looks like the images; say image='COLUMN'. Columns: "
            f"{', '.join(table.columns)}"
        )
    return found[0]


def _named(value: Any, feature: Any) -> Any:
    """A class label as its name."""
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel" or value is None:
        return value
    names = feature.get("names")
    if isinstance(value, int) and value < 0:  # datasets' sign of an unknown label
        return None
    if isinstance(names, list) and isinstance(value, int) and value < len(names):
        return names[value]
    return value


def _file(cell: Any, source: Path, within: Path | None) -> Path | str:
    """The file of an image, absolute; or in words why there is none, or why it is not taken."""
    if isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, bytes):
        return _kept(cell)
    text = as_text(cell)
    if text is None:
        return "no image"
    path = ((source if source.is_dir() else source.parent) / text).absolute()
    if within is not None and leads_out(within, path):
        return f"'{text}' leads out of {within}; give images by their bytes, or a CSV that lists them"
    return path


def _cache() -> Path:
    from gracl.data.store import cache_folder  # late, as it imports torch

    return cache_folder() / "huggingface"


def _kept(content: bytes) -> Path | str:
    """Writes an image into the cache folder, unless it is there."""
    try:
        with Image.open(io.BytesIO(content)) as opened:
            suffix = (opened.format or "image").lower()
    except Exception as error:  # for broken headers, Pillow's readers raise what they like
        return f"bytes that are no image: {type(error).__name__}"
    digest = hashlib.sha256(content).hexdigest()
    path = _cache() / digest[:2] / f"{digest[:32]}.{suffix}"
    with told(path, DataError, OTHER_CACHE):
        if not (path.is_file() and path.stat().st_size == len(content)):
            path.parent.mkdir(parents=True, exist_ok=True)
            own = path.with_name(f"{path.name}.{uuid.uuid4().hex}")  # several may do so at once
            with one_step(path, DataError, OTHER_CACHE, beside=own) as unfinished:
                unfinished.write_bytes(content)
    return path
