"""What a data set holds, what is wrong with which file, and which scores can be taken on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from gracl import metrics
from gracl.data.protocols import PROTOCOLS, sides
from gracl.data.records import Box, Dataset, Problem, Record, Records
from gracl.data.store import decode
from gracl.errors import EvaluationError


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split."""

    images: int
    identities: int
    without_identity: int
    cameras: int
    images_per_identity: tuple[int, float, int]
    """Fewest, median, most."""


@dataclass(frozen=True)
class Report:
    """All that `gracl data check` prints."""

    layout: str
    splits: dict[str, SplitSummary]
    problems: tuple[Problem, ...]
    notes: tuple[str, ...]
    queries_by_protocol: dict[str, int]
    """How many queries have a valid match under each protocol; 0 means it cannot be scored."""

    @property
    def usable(self) -> bool:
        """Whether there is anything to train on."""
        return self.splits["train"].images > 0


def check_dataset(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Report:
    """Reads every image once and counts; nothing is written anywhere."""
    unreadable = _unreadable(dataset, progress)

    def good(records: Records) -> Records:
        return Records(tuple(r for r in records if (r.path, r.box) not in unreadable))

    query, gallery = dataset.test
    splits = {"train": dataset.train, "query": dataset.query, "gallery": dataset.gallery}
    return Report(
        layout=dataset.layout,
        splits={name: _summary(good(records)) for name, records in splits.items()},
        problems=(*dataset.problems, *unreadable.values()),
        notes=dataset.notes,
        queries_by_protocol={
            protocol: _queries_with_match(good(query), good(gallery), protocol)
            for protocol in PROTOCOLS
        },
    )


def _unreadable(
    dataset: Dataset, progress: Callable[[int, int], None] | None
) -> dict[tuple[Path, Box | None], Problem]:
    everything = (*dataset.train, *dataset.query, *dataset.gallery)
    once = {(record.path, record.box): record for record in everything}

    def attempt(record: Record) -> Problem | None:
        try:
            decode(record, (8, 8))
        except Exception as error:
            return Problem(record.path, f"{type(error).__name__}: {error}")
        return None

    found = {}
    with ThreadPoolExecutor() as pool:
        results = zip(once, pool.map(attempt, once.values()), strict=True)
        for done, (crop, problem) in enumerate(results, 1):
            if problem is not None:
                found[crop] = problem
            if progress is not None:
                progress(done, len(once))
    return found


def _summary(records: Records) -> SplitSummary:
    sizes = Counter(i for i in records.values("identity") if i is not None)
    counts = sorted(sizes.values()) or [0]
    return SplitSummary(
        images=len(records),
        identities=len(sizes),
        without_identity=len(records) - sizes.total(),
        cameras=len({c for c in records.values("camera") if c is not None}),
        images_per_identity=(counts[0], float(np.median(counts)), counts[-1]),
    )


def _queries_with_match(query: Records, gallery: Records, protocol: str) -> int:
    try:
        return int(metrics.has_match(*sides(query, gallery, protocol)).sum())
    except EvaluationError:  # the fact it needs is not known
        return 0
