"""What a data set holds, what is wrong with which file, and which scores can be taken on it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gracl import metrics
from gracl.data.duplicates import Crop, Fingerprint, fingerprints
from gracl.data.protocols import BENCHMARKS, PROTOCOLS, sides
from gracl.data.records import Dataset, Problem, Record, Records
from gracl.data.splits import IDENTITIES_SHARED
from gracl.data.store import Progress
from gracl.errors import EvaluationError

SHOWN = 50
"""Problems that are printed; JSON lists all."""
NAMED = 3
"""Images, identities or cameras that a line names as examples."""

Spread = tuple[int, float, int]
"""Fewest, median, most; zeros of nothing."""


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split, of the images that can be read."""

    images: int
    identities: int
    without_identity: int
    cameras: int
    dates: int
    sequences: int
    images_per_identity: Spread
    cameras_per_identity: Spread
    """Of the identities seen by a known camera."""
    images_per_camera: dict[str, int]


@dataclass(frozen=True)
class SamePicture:
    """Images with the same pixels."""

    paths: tuple[Path, ...]
    splits: tuple[str, ...]
    """Where each of them stands; "test" is query and gallery at once."""
    identities: tuple[str, ...]
    """All that they are known under, each once."""

    @property
    def leaks(self) -> bool:
        """Whether the picture is in training and in the test."""
        return "train" in self.splits and len(set(self.splits)) > 1

    @property
    def finds_itself(self) -> bool:
        """Whether a query has a copy in the gallery that it searches."""
        tested = [split for split in self.splits if split != "train"]
        return len(tested) > 1 and (len(set(tested)) > 1 or tested[0] == "test")


@dataclass(frozen=True)
class ImageSize:
    """An image, its box cut out, and how large it is."""

    path: Path
    height: int
    width: int


@dataclass(frozen=True)
class Report:
    """All that `gracl data check` prints: `str` is the text, `dataclasses.asdict` goes into JSON."""

    layout: str
    splits: dict[str, SplitSummary]
    smallest: ImageSize | None
    largest: ImageSize | None
    """By area; None where no image can be read."""
    same_pictures: tuple[SamePicture, ...]
    """Groups of images that are the same pixel for pixel, within and across splits."""
    identities_on_both_sides: tuple[str, ...]
    """Of training and test."""
    queries_by_protocol: dict[str, int]
    """How many queries have a valid match under each protocol; 0 means it cannot be scored."""
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    doubts: tuple[str, ...]
    """Why a score taken here would say other than it seems."""
    faults: tuple[str, ...]
    """Why nothing can be learnt here."""

    @property
    def usable(self) -> bool:
        """Whether there is anything to train on."""
        return not self.faults

    def __str__(self) -> str:
        return "\n".join(_lines(self))


def check_dataset(dataset: Dataset, progress: Progress | None = None) -> Report:
    """Reads every image once and counts; nothing is written anywhere.

    Each file is decoded whole, in threads, and only a fingerprint of each image stays in memory, so
    that a check takes little longer than decoding does.

    Args:
        dataset: any.
        progress: called with (done, total) images.

    >>> import tempfile
    >>> from PIL import Image
    >>> path = Path(tempfile.mkdtemp()) / "rosa.png"
    >>> Image.new("RGB", (40, 20)).save(path)
    >>> rosa = Record(path, identity="rosa")
    >>> report = check_dataset(Dataset("herd", path.parent, "folder", Records((rosa, rosa))))
    >>> report.splits["train"].images, report.usable, len(report.same_pictures)
    (2, True, 1)
    """
    prints, unreadable = fingerprints((*dataset.train, *dataset.query, *dataset.gallery), progress)

    def good(records: Records) -> Records:
        return Records(tuple(r for r in records if (r.path, r.box) not in unreadable))

    splits = {
        "train": good(dataset.train),
        "query": good(dataset.query),
        "gallery": good(dataset.gallery),
    }
    query, gallery = map(good, dataset.test)
    same = _same_pictures(splits, prints)
    shared = _known(splits["train"]) & (_known(splits["query"]) | _known(splits["gallery"]))
    by_area = sorted(prints.items(), key=lambda item: item[1].height * item[1].width)
    sizes = [ImageSize(path, seen.height, seen.width) for (path, _), seen in by_area[:1] + by_area[-1:]]
    train = splits["train"]
    protocols = [*PROTOCOLS, *([dataset.protocol] if dataset.protocol in BENCHMARKS else [])]
    return Report(
        layout=dataset.layout,
        splits={name: _summary(records) for name, records in splits.items()},
        smallest=sizes[0] if sizes else None,
        largest=sizes[-1] if sizes else None,
        same_pictures=same,
        identities_on_both_sides=tuple(sorted(shared)),
        queries_by_protocol={name: _queries_with_match(query, gallery, name) for name in protocols},
        problems=(*dataset.problems, *unreadable.values()),
        notes=dataset.notes,
        doubts=tuple(_doubts(dataset, train, same, sorted(shared), prints)),
        faults=() if train else ("nothing to train on",),
    )


# -- counting -------------------------------------------------------------------------------------


def _known(records: Records) -> set[str]:
    return {i for i in records.values("identity") if i is not None}


def _summary(records: Records) -> SplitSummary:
    sizes = Counter(i for i in records.values("identity") if i is not None)
    cameras = Counter(c for c in records.values("camera") if c is not None)
    seen_by = Counter(i for i, _ in {(r.identity, r.camera) for r in records if r.camera} if i)
    return SplitSummary(
        images=len(records),
        identities=len(sizes),
        without_identity=len(records) - sizes.total(),
        cameras=len(cameras),
        dates=len({d for d in records.values("date") if d is not None}),
        sequences=len({s for s in records.values("sequence") if s is not None}),
        images_per_identity=_spread(sizes.values()),
        cameras_per_identity=_spread(seen_by.values()),
        images_per_camera=dict(sorted(cameras.items())),
    )


def _spread(counts: Iterable[int]) -> Spread:
    in_order = sorted(counts) or [0]
    return in_order[0], float(np.median(in_order)), in_order[-1]


def _same_pictures(
    splits: Mapping[str, Records], prints: Mapping[Crop, Fingerprint]
) -> tuple[SamePicture, ...]:
    """Groups of at least two listed images with the same pixels, in the order of their first."""
    queries, gallery = ({(r.path, r.box) for r in splits[side]} for side in ("query", "gallery"))
    listed: defaultdict[bytes, list[tuple[Record, str]]] = defaultdict(list)
    for split, records in splits.items():
        for record in records:
            crop = record.path, record.box
            # An image that searches and is searched is one image of the test, not a copy of itself.
            is_both = split != "train" and crop in queries and crop in gallery
            if not (is_both and split == "gallery"):
                listed[prints[crop].digest].append((record, "test" if is_both else split))
    return tuple(
        SamePicture(
            paths=tuple(record.path for record, _ in group),
            splits=tuple(split for _, split in group),
            identities=tuple(sorted({r.identity for r, _ in group if r.identity is not None})),
        )
        for group in listed.values()
        if len(group) > 1
    )


def _queries_with_match(query: Records, gallery: Records, protocol: str) -> int:
    try:
        return int(metrics.has_match(*sides(query, gallery, protocol)).sum())
    except EvaluationError:  # the fact it needs is not known
        return 0


# -- judging --------------------------------------------------------------------------------------


def _doubts(
    dataset: Dataset,
    train: Records,
    same: Sequence[SamePicture],
    shared: Sequence[str],
    prints: Mapping[Crop, Fingerprint],
) -> Iterable[str]:
    leaks = [picture for picture in same if picture.leaks]
    if leaks:
        yield f"{_count(len(leaks), 'picture')} in training and in the test: {_named(leaks)}"
    conflicts = [picture for picture in same if len(picture.identities) > 1]
    if conflicts:
        yield f"{_count(len(conflicts), 'picture')} under several identities: {_named(conflicts)}"
    twins = [picture for picture in same if picture.finds_itself]
    if twins:
        yield f"{_count(len(twins), 'picture')} a query and, copied, its match: {_named(twins)}"
    if shared and IDENTITIES_SHARED not in dataset.notes:
        yield (
            f"{len(shared)} identities are in training and in the test, which suits a split by date or "
            f"burst and no other: {_some(shared)}"
        )
    if len(train) > 1 and len({prints[r.path, r.box].digest for r in train}) == 1:
        yield f"all {len(train)} training images are the same picture: there is nothing to tell apart"
    if len(train) == 1:
        yield "one image alone has nothing to be told apart from"


def _named(pictures: Sequence[SamePicture]) -> str:
    return _some([" = ".join(map(str, picture.paths[:2])) for picture in pictures], "; ")


def _count(n: int, noun: str) -> str:
    return f"{n} {noun} is" if n == 1 else f"{n} {noun}s are"


def _some(names: Sequence[str], between: str = ", ") -> str:
    more = f"{between}and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return between.join(names[:NAMED]) + more


# -- text -----------------------------------------------------------------------------------------


def _lines(report: Report) -> Iterable[str]:
    yield f"read as {report.layout}"
    yield from _table({name: split for name, split in report.splits.items() if split.images})
    for name, split in report.splits.items():
        if split.images_per_camera:
            fewest_first = sorted(split.images_per_camera.items(), key=lambda item: item[1])
            listed = _some([f"{camera}: {n}" for camera, n in fewest_first])
            yield f"images per camera in {name}, fewest first: {listed}"
    if report.smallest is not None and report.largest is not None:
        small, large = report.smallest, report.largest
        yield f"smallest image: {small.width} wide, {small.height} high, {small.path}"
        yield f"largest image: {large.width} wide, {large.height} high, {large.path}"
    if report.same_pictures:
        places = Counter(
            " and ".join(dict.fromkeys(picture.splits)) for picture in report.same_pictures
        )
        listed = ", ".join(f"{n} in {where}" for where, n in places.items())
        copies = sum(len(picture.paths) - 1 for picture in report.same_pictures)
        yield f"pictures that are there more than once: {listed}; {copies} images too many"
        yield f"the same picture: {_named(report.same_pictures)}"
    for note in report.notes:
        yield f"note: {note}"
    for doubt in report.doubts:
        yield f"doubt: {doubt}"
    possible = {name: n for name, n in report.queries_by_protocol.items() if n}
    scored = ", ".join(f"{name} ({n} queries)" for name, n in possible.items())
    unscored = "nothing, since no identity is seen twice; training needs none"
    yield f"can be scored under: {scored or unscored}"
    for problem in report.problems[:SHOWN]:
        yield f"problem: {problem.path}: {problem.reason}"
    if len(report.problems) > SHOWN:
        yield f"... and {len(report.problems) - SHOWN} more; --json lists all"
    verdict = "usable" if report.usable else f"not usable: {', '.join(report.faults)}"
    yield f"{len(report.problems)} problems; {verdict}"


def _table(splits: Mapping[str, SplitSummary]) -> Iterable[str]:
    """A line a split; facts that no split knows have no column."""
    columns: dict[str, Sequence[object]] = {
        "split": list(splits),
        "images": [s.images for s in splits.values()],
        "identities": [s.identities for s in splits.values()],
        "no identity": [s.without_identity for s in splits.values()],
        "cameras": [s.cameras for s in splits.values()],
        "dates": [s.dates for s in splits.values()],
        "sequences": [s.sequences for s in splits.values()],
        "images per identity": [_dashes(s.images_per_identity) for s in splits.values()],
        "cameras per identity": [_dashes(s.cameras_per_identity) for s in splits.values()],
    }
    shown = {
        name: [name, *map(str, cells)]
        for name, cells in columns.items()
        if name in ("split", "images", "identities") or any(cells)
    }
    widths = [max(map(len, cells)) for cells in shown.values()]
    for row in zip(*shown.values(), strict=True):
        first, *others = (
            cell.rjust(width) if place else cell.ljust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        yield "  ".join((first, *others)).rstrip()


def _dashes(spread: Spread) -> str:
    low, median, high = spread
    return f"{low} - {median:g} - {high}" if high else ""
