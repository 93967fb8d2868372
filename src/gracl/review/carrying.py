"""What was said in one review, carried to other clusters of the same images, or to a training.

A decision outlives the clusters that it was made about: what it says of pairs of images holds in the
review of the next run (`gracl train --continue`), and of the same run once it was trained further.

Letters: N images.
"""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np

from gracl.data.records import Record, Records
from gracl.errors import ReviewError
from gracl.linked_clusters import honour
from gracl.links import OUTLIER, Labels, Links
from gracl.review.ledger import Decision, Image, Ledger, Link, pairs_of
from gracl.review.partition import Partition
from gracl.study import Study

LEDGER = "review.sqlite"
"""What the file of decisions is called in a run's folder."""
UNKNOWN = OUTLIER - 1
"""The earlier cluster of an image that an earlier review had not."""


@dataclass(frozen=True)
class Carried:
    """What holds of images, by path and box, whatever cluster they are in."""

    images: list[Image]
    """Of all rows of the review that it comes from."""
    partition: Partition
    """Clusters and names as that review left them."""
    decisions: list[Decision]
    """That stand and speak of pairs, in order."""
    links: list[Link]
    """That hold, by row of `images`."""


def prepare(ledger: Ledger, study: Study) -> None:
    """Makes a file of decisions fit the clusters of a run: begins it, or carries over what was said.

    Raises:
        ReviewError: it is of other images.
    """
    about = study.run.data
    fingerprint = about["fingerprint"]
    if ledger.is_new:
        begin = about.get("continues")
        earlier = None if begin is None else Path(begin) / LEDGER
        carried = None if earlier is None or not earlier.is_file() else read(earlier)
        _begin(ledger, study, carried, fingerprint)
        return
    if ledger.about("fingerprint") != fingerprint:
        raise ReviewError(
            f"{ledger.path} is a review of other images than those of {study.run.folder}. Move it away "
            "to begin anew"
        )
    if len(ledger.images()) != len(study.records):
        raise ReviewError(
            f"{ledger.path} is damaged: it has {len(ledger.images())} of {len(study.records)} images. "
            "Take a copy of the file that is whole, or move it away to begin anew"
        )
    if ledger.about("labels") != digest(study.labels):  # it was trained further since
        _begin(ledger, study, _taken(ledger), fingerprint)


def read(path: Path) -> Carried:
    """What holds after a review.

    Raises:
        ReviewError: the file is no review, or another process reviews it.
    """
    ledger = Ledger(path)
    try:
        return _taken(ledger)
    finally:
        ledger.close()


def corrections(run: str | Path, records: Records, root: Path) -> Links:
    """What a run's review says of images, as links of these records.

    Args:
        run: the reviewed run's folder; one that was never reviewed says nothing.
        records: the images to be linked; what was said of others is left out.
        root: the folder that paths are relative to.

    Raises:
        ReviewError: the review cannot be read, or another process has it open.
    """
    if not has_review(run):
        return Links()
    return _renumbered(read(Path(run) / LEDGER), records, root)


def said_of(links: Sequence[Link], partition: Partition) -> Links:
    """Links by row: those that were said, and one pair for each two clusters of different names."""
    spokesmen = [partition.rows(number)[0] for number in sorted(partition.names)]
    named = np.array(list(combinations(spokesmen, 2)), dtype=np.int64).reshape(-1, 2)
    cannot = np.concatenate([pairs_of(links, "cannot"), named])
    return Links(pairs_of(links, "must"), cannot)


def has_review(run: str | Path) -> bool:
    """Whether a run was ever reviewed."""
    return (Path(run) / LEDGER).is_file()


def earlier_labels(carried: Carried, records: Records, root: Path) -> Labels:
    """(N,) the clusters that a review ended with; `UNKNOWN` of images that it had not."""
    place = _places(carried.images, [image_of(record, root) for record in records])
    labels = np.full(len(records), UNKNOWN, dtype=np.int64)
    labels[list(place.values())] = carried.partition.labels[list(place)]
    return labels


def image_of(record: Record, root: Path) -> Image:
    """How a ledger names an image: by its path below the root, where it lies there, and its box."""
    path = record.path
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix(), record.box


def digest(labels: Labels) -> str:
    """Tells clusters from others of the same images."""
    return hashlib.sha256(labels.tobytes()).hexdigest()


def _taken(ledger: Ledger) -> Carried:
    labels, names = ledger.base()
    partition = Partition(labels, names)
    for decision in ledger.standing():
        partition.apply(decision.change)
    links = ledger.links()
    speaking = {link.decision for link in links}
    decisions = [decision for decision in reversed(ledger.decisions()) if decision.id in speaking]
    return Carried(ledger.images(), partition, decisions, links)


def _begin(ledger: Ledger, study: Study, carried: Carried | None, fingerprint: str) -> None:
    """Writes the start of a review: the run's clusters, changed as far as what was said asks for."""
    root = study.dataset.root
    images = [image_of(record, root) for record in study.records]
    labels, names, earlier, said = study.labels, {}, None, []
    if carried is not None:
        place = _places(carried.images, images)
        labels = _honoured(study, _renumbered(carried, study.records, root))
        labels = _with_confirmed_alone(labels, carried, place)
        names = _names(carried, place, labels)
        earlier = earlier_labels(carried, study.records, root)
        pairs = defaultdict(list)
        for link in carried.links:
            if link.first in place and link.second in place:
                pairs[link.decision].append((link.kind, place[link.first], place[link.second]))
        said = [(decision, pairs[decision.id]) for decision in carried.decisions]
    ledger.begin(
        images,
        labels,
        fingerprint=fingerprint,
        labels_digest=digest(study.labels),
        names=names,
        earlier=earlier,
        links=said,
    )


def _renumbered(carried: Carried, records: Records, root: Path) -> Links:
    """Links by row of these records; those of images that are not among them are left out."""
    place = _places(carried.images, [image_of(record, root) for record in records])
    links = said_of(carried.links, carried.partition)
    there = np.array([place.get(row, OUTLIER) for row in range(len(carried.images))], dtype=np.int64)
    must, cannot = (there[pairs] for pairs in (links.must, links.cannot))
    must, cannot = (pairs[(pairs != OUTLIER).all(axis=1)] for pairs in (must, cannot))
    return Links(must, cannot, names=[image_of(record, root)[0] for record in records])


def _places(old: Sequence[Image], new: Sequence[Image]) -> dict[int, int]:
    """From rows of a review to rows of the same images elsewhere."""
    row_of = {image: row for row, image in enumerate(new)}
    return {row: row_of[image] for row, image in enumerate(old) if image in row_of}


def _honoured(study: Study, links: Links) -> Labels:
    """The run's clusters, which honour these links where it was trained with them."""
    labels = study.labels
    must, cannot = labels[links.must], labels[links.cannot]
    apart = (must[:, 0] != must[:, 1]) | (must[:, 0] == OUTLIER)
    joined = (cannot[:, 0] == cannot[:, 1]) & (cannot[:, 0] != OUTLIER)
    return honour(labels, study.distance, links) if apart.any() or joined.any() else labels


def _with_confirmed_alone(labels: Labels, carried: Carried, place: dict[int, int]) -> Labels:
    """Images that were confirmed as individuals alone, each a cluster, where they are in none."""
    alone = {link.first for link in carried.links if link.first == link.second}
    labels = labels.copy()
    for row in sorted(place[row] for row in alone if row in place):
        if labels[row] == OUTLIER:
            labels[row] = labels.max() + 1
    return labels


def _names(carried: Carried, place: dict[int, int], labels: Labels) -> dict[int, str]:
    """Clusters by name: the one that holds most of the images that were called so."""
    votes = []
    for number, name in carried.partition.names.items():
        rows = [place[row] for row in carried.partition.rows(number) if row in place]
        counts = Counter(labels[rows].tolist())
        counts.pop(OUTLIER, None)
        votes += [(count, -label, name) for label, count in counts.items()]
    found: dict[int, str] = {}
    for _, label, name in sorted(votes, reverse=True):
        if -label not in found and name not in found.values():
            found[-label] = name
    return found
