"""Which images must, or cannot, be the same: from a person's decisions and from the records."""

from __future__ import annotations

import csv
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from gracl.data.records import Records
from gracl.errors import DataError, did_you_mean
from gracl.links import Links, cannot_within, must_within

Words = Mapping[str, Mapping[str, str]]
"""By column, what a cell may say, and what that means: must or cannot."""
Find = Callable[[str, int], int]
"""From a name and its line to a row of what is linked."""
LINK: Words = {"link": {"must": "must", "cannot": "cannot"}}
SAME: Words = {"same": {"1": "must", "0": "cannot"}}


def read_links(table: str | Path, records: Records, *, root: str | Path = ".") -> Links:
    """Pairs of records from a CSV with the columns `first`, `second` and `link` (must or cannot).

    Args:
        table: the file. An image is named by its path, absolute or below `root`. Pairs that name an
            image which is not among the records are an error, since a link that is passed over in
            silence is not honoured.
        records: the images that will be clustered, in this order.
        root: the folder that paths are relative to.

    Raises:
        DataError: the file, a column, a kind or an image is not what it should be.
    """
    return _read(Path(table), _by_path(Path(table), records, Path(root)), LINK)


def read_pairs(table: str | Path, records: Records, *, root: str | Path = ".") -> Links:
    """Judged pairs from a CSV with the columns `first`, `second` and `same` (1 or 0).

    Pairs are for measuring, links for clustering; a table of links (column `link`) is taken too.

    Args:
        table, records, root: see `read_links`.

    Raises:
        DataError: the file, a column, a judgement or an image is not what it should be.

    >>> read_pairs("judged.csv", dataset.train, root="photos/")             # doctest: +SKIP
    """
    return _read(Path(table), _by_path(Path(table), records, Path(root)), {**SAME, **LINK})


def read_tracklet_links(table: str | Path, names: Sequence[tuple[str | None, int | str]]) -> Links:
    """Pairs of tracklets from a CSV with the columns `first`, `second` and `link` (must or cannot).

    Args:
        table: the file. A tracklet is named CAMERA/TRACK, or TRACK where its camera is not known.
        names: (camera, track) of each tracklet, in the order of the rows of the links.

    Raises:
        DataError: the file, a column, a kind or a tracklet is not what it should be.
    """
    table = Path(table)
    own = [str(track) if camera is None else f"{camera}/{track}" for camera, track in names]
    place = {name: row for row, name in enumerate(own)}

    def find(name: str, line: int) -> int:
        if name not in place:
            raise DataError(
                f"{table}, line {line}: '{name}' is none of the {len(own)} tracklets; "
                f"{did_you_mean(name, own)}. Write CAMERA/TRACK"
            )
        return place[name]

    return _read(table, find, LINK, what="tracklets")


def links_of(records: Records, *, sequences: bool = False, boxes: bool = False) -> Links:
    """Links that follow from what is known of the images.

    Args:
        records: the images that will be clustered.
        sequences: images of one sequence (a tracklet, a burst) must share a cluster.
        boxes: two crops of one picture cannot share a cluster.
    """
    in_sequence = records.values("sequence") if sequences else []
    in_picture = [r.path if r.box is not None else None for r in records] if boxes else []
    return Links(must_within(in_sequence), cannot_within(in_picture))


def _by_path(table: Path, records: Records, root: Path) -> Find:
    """Finds the image that a cell names by its file."""
    # Links and `..` on the way to a file do not make it another file.
    place: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        place.setdefault(os.path.realpath(record.path), []).append(number)

    def find(name: str, line: int) -> int:
        found = [] if "\0" in name else place.get(os.path.realpath(root / name), [])
        if len(found) == 1:
            return found[0]
        if found:
            raise DataError(
                f"{table}, line {line}: {name} holds {len(found)} crops, so the path alone does not "
                "say which one is meant. Save the crops as files of their own to link them"
            )
        raise DataError(
            f"{table}, line {line}: {name} is not among the {len(records)} images that could be read "
            f"below {root}. Write paths as in metadata.csv or labels.csv"
        )

    return find


def _read(table: Path, find: Find, words: Words, *, what: str = "images") -> Links:
    """The rows of a table, whose names `find` knows."""
    pairs: dict[str, list[tuple[int, int]]] = {"must": [], "cannot": []}
    try:
        with table.open(newline="", encoding="utf-8-sig") as lines:
            rows = csv.DictReader(lines)
            names = set(rows.fieldnames or ())
            told = next((name for name in words if name in names), None)
            if told is None or not names >= {"first", "second"}:
                raise DataError(
                    f"{table} has the columns {', '.join(rows.fieldnames or ()) or 'none'}; expected "
                    f"first, second, {' or '.join(words)}"
                )
            meaning = words[told]
            for row in rows:
                if row[told] not in meaning:
                    raise DataError(
                        f"{table}, line {rows.line_num}: {told} is {row[told]!r}; expected "
                        f"{' or '.join(meaning)}"
                    )
                first, second = (find(row[name] or "", rows.line_num) for name in ("first", "second"))
                if first == second:
                    raise DataError(
                        f"{table}, line {rows.line_num}: {row['first']} is linked with itself; "
                        f"expected two {what}"
                    )
                pairs[meaning[row[told]]].append((first, second))
    except DataError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"cannot read the links in {table}: {error}") from error
    must, cannot = (np.array(pairs[kind], dtype=np.int64).reshape(-1, 2) for kind in pairs)
    return Links(must, cannot)
