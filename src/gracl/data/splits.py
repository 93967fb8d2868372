"""Splits of one's own data into training and test, and a CSV that keeps them.

All work on the training part of a data set, keep each of its images exactly once, and say in
`Dataset.notes` what they did. The test images are query and gallery at once, each searching all others,
unless `draw_queries` parts them.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gracl.data.duplicates import (
    NEAR,
    Fingerprint,
    check_near,
    each_crop,
    grey_values,
    near_duplicates,
)
from gracl.data.protocols import choose, find
from gracl.data.records import FIELDS, Dataset, Record, Records
from gracl.data.store import Progress
from gracl.data.tables import Tally, as_day, as_identity, as_text
from gracl.disk import put, told
from gracl.errors import DataError
from gracl.links import Links, must_groups, must_within
from gracl.paths import is_there

IDENTITIES_SHARED = "identities may be in training and in test at once: that is how it is split"
"""The note of a data set that has them on both sides on purpose; `check_dataset` looks for it."""
DATE = re.compile(r"\d{4}(?:[-:/.]?\d{2}(?:[-:/.]?\d{2}(?:[T ].*)?)?)?")
"""Year first, then month, day and time as far as they are known: such dates sort as text."""
NOT_KEPT = (
    "would not be read back from a CSV as it is: it is empty, begins or ends with a space, is not "
    "Unicode, is an identity called unknown, or a date with a time of day. Rename it"
)


def split_by_identity(dataset: Dataset, *, test_share: float = 0.5, seed: int = 0) -> Dataset:
    """Moves the images of some identities of the training part to a test part of their own.

    Identities are drawn whole, so none is on both sides. The test images are query and gallery at
    once: each searches all others, and they replace the query and gallery that the data set had.
    Images of unknown identity stay in the training part.

    Args:
        dataset: one whose training part knows identities.
        test_share: share of the identities that becomes the test part, in (0, 1).
        seed: the draw.

    Raises:
        DataError: fewer than two identities, or a share that leaves a side without any.

    >>> photos = (Record(Path(f"{n}.jpg"), identity=str(n % 4)) for n in range(8))
    >>> herd = Dataset("herd", Path(), "folder", train=Records(tuple(photos)))
    >>> split = split_by_identity(herd)
    >>> sorted(set(split.train.values("identity"))), sorted(set(split.query.values("identity")))
    (['1', '3'], ['0', '2'])
    """
    identities = sorted({i for i in dataset.train.values("identity") if i is not None})
    n_test = round(len(identities) * test_share)
    if not 0 < n_test < len(identities):
        raise DataError(
            f"{dataset.name} has {len(identities)} identities; a test share of {test_share} would "
            f"take {n_test} of them. At least one must stand on either side"
        )
    shuffled = np.random.default_rng(seed).permutation(len(identities))
    drawn = {identities[i] for i in shuffled[:n_test]}
    is_test = [identity in drawn for identity in dataset.train.values("identity")]
    return _divide(
        dataset, is_test, f"{n_test} of {len(identities)} identities drawn for test, {seed=}"
    )


def split_by_date(
    dataset: Dataset,
    *,
    cutoff: str | None = None,
    test_share: float = 0.5,
    per_identity: bool = False,
) -> Dataset:
    """Moves the later days of the training part to the test part: learn from the past.

    Days are whole, and nothing is drawn. Identities may be on both sides; the notes say so. Images
    without a date stay in the training part.

    Args:
        dataset: one whose training part knows dates, the year first: 2025-04-01, 20250401, 2025/04,
            or with a time after the day, which is not looked at.
        cutoff: the first day (month, year) of the test part. Without it, the last days are taken
            that come nearest to `test_share`.
        test_share: share of the dated images that becomes the test part, in (0, 1).
        per_identity: take the share from each identity by itself, so that one seen on several days is
            on both sides. Identities of one day only, or unknown, stay in the training part.

    Raises:
        DataError: no dates, dates of another form, or a cutoff or share that leaves a side empty.

    >>> seen = (Record(Path(f"{day}.jpg"), date=f"2025-04-{day}") for day in (10, 11, 12, 30))
    >>> herd = Dataset("herd", Path(), "csv", train=Records(tuple(seen)))
    >>> [record.path.name for record in split_by_date(herd, cutoff="2025-04-12").query]
    ['12.jpg', '30.jpg']
    """
    if cutoff is not None and per_identity:
        raise DataError(
            "a cutoff is one day for all identities, and per_identity finds one for each. Give one of "
            "the two"
        )
    days = [None if date is None else _day(date) for date in dataset.train.values("date")]
    undated = days.count(None)
    if undated == len(days):
        raise DataError(
            f"none of the {len(days)} training images of {dataset.name} has a date. Add a column "
            "'date', such as 2025-04-01, or split by identity or by burst"
        )
    if cutoff is not None:
        first = _day(cutoff)
        is_test = [day is not None and day >= first for day in days]
        how = f"days from {cutoff} on"
    else:
        _check_share(test_share)
        whose = dataset.train.values("identity") if per_identity else ["all"] * len(days)
        starts = _first_test_days(whose, days, test_share)
        is_test = [
            day is not None and who in starts and day >= starts[who]
            for who, day in zip(whose, days, strict=True)
        ]
        how = f"the last days, a share of {test_share:g} of the images"
        if per_identity:
            how += f" of each identity that is seen on several days, {len(starts)} of them"
    left = f"; {undated} images without a date stay in train" if undated else ""
    return _divide(dataset, is_test, f"test: {how}{left}", IDENTITIES_SHARED)


def split_by_burst(
    dataset: Dataset,
    *,
    test_share: float = 0.5,
    seed: int = 0,
    near: float | None = NEAR,
    by_identity: bool = False,
    progress: Progress | None = None,
) -> Dataset:
    """Moves some bursts of the training part to the test part, each of them whole.

    A burst is all images that hang together by a common sequence or by being nearly the same picture
    (`gracl.data.duplicates`), so that no test image has a twin among the training images. Any other
    image is a burst of its own.

    Args:
        dataset: what to split.
        test_share: share of the images that the test part comes near to, in (0, 1).
        seed: the draw.
        near: correlation from which two images are nearly the same, which every image is read for; None
            reads none and looks at sequences alone.
        by_identity: keep each identity on one side, too.
        progress: called with (done, total) while images are read.

    Raises:
        DataError, ConfigError: all images hang together; a share or correlation out of its range.

    >>> frames = (Record(Path(f"{n}.jpg"), sequence=f"walk {n // 3}") for n in range(6))
    >>> walks = Dataset("walks", Path(), "csv", train=Records(tuple(frames)))
    >>> split_by_burst(walks, near=None).query.values("sequence")
    ['walk 0', 'walk 0', 'walk 0']
    """
    _check_share(test_share)
    records = dataset.train
    groups = bursts(records, near=near, by_identity=by_identity, progress=progress)
    members: defaultdict[int, list[int]] = defaultdict(list)
    for place in sorted(
        range(len(records)), key=lambda i: (str(records[i].path), records[i].box or ())
    ):
        members[int(groups[place])].append(place)
    in_order = list(members.values())  # by first path: the draw does not depend on the records' order
    if len(in_order) < 2:
        remedy = "a larger near" if near is not None else "finer sequences"
        raise DataError(
            f"the {len(records)} training images of {dataset.name} hang together in one burst, and a "
            f"split needs two. Give {remedy}, or split by date"
        )
    is_test = np.zeros(len(records), dtype=bool)
    wanted = test_share * len(records)
    for number in np.random.default_rng(seed).permutation(len(in_order)):
        burst = in_order[number]
        if is_test.sum() + len(burst) / 2 <= wanted:  # no farther from the share with it than without
            is_test[burst] = True
    if not is_test.any():
        is_test[min(in_order, key=len)] = True
    n_test = len(set(groups[is_test].tolist()))
    sizes = np.bincount(groups)
    note = (
        f"{n_test} of {len(sizes)} bursts drawn for test, {seed=}, {near=}; "
        f"{int((sizes > 1).sum())} of them hold more than one image, the largest {sizes.max()}"
    )
    return _divide(dataset, is_test.tolist(), note, *(() if by_identity else (IDENTITIES_SHARED,)))


def bursts(
    records: Records,
    *,
    near: float | None = NEAR,
    by_identity: bool = False,
    progress: Progress | None = None,
) -> NDArray[np.int64]:
    """(N,) the burst of each image; see `split_by_burst`. Unreadable images are like no other."""
    links = [must_within(records.values("sequence"))]
    # one image that is listed twice is no less of a twin than a copy of its file
    links.append(must_within([(record.path, record.box) for record in records]))
    if by_identity:
        links.append(must_within(records.values("identity")))
    if near is not None:
        check_near(near)
        seen, _ = each_crop(
            records, lambda _, image: (Fingerprint.of(image), grey_values(image)), progress
        )
        alike = {}
        if seen:
            groups = near_duplicates(np.stack([grey for _, grey in seen.values()]), near)
            alike = dict(zip(seen, groups.tolist(), strict=True))
        copies = {crop: fingerprint for crop, (fingerprint, _) in seen.items()}
        links.append(must_within([copies.get((record.path, record.box)) for record in records]))
        links.append(must_within([alike.get((record.path, record.box)) for record in records]))
    return must_groups(Links(must=np.concatenate(links)), len(records))


def draw_queries(dataset: Dataset, *, share: float | None = None, seed: int = 0) -> Dataset:
    """Parts test images into queries and the gallery that they search.

    The rule is Market-1501's, one query for each identity and camera. Where cameras tell nothing, dates
    or sequences take their place, as in `gracl.data.protocols.choose`; where none does, an identity
    has one query. Each query keeps a match in the gallery, by another camera (date, sequence): where
    it would not, or its identity is unknown, the image goes to the gallery.

    Args:
        dataset: one whose test images are query and gallery at once.
        share: draw this share of each identity's images instead, in (0, 1), at least one.
        seed: the draw.

    Raises:
        DataError: query and gallery are parted already, or no identity is seen twice.

    >>> seen = (Record(Path(f"{n}.jpg"), "7", camera="ab"[n % 2]) for n in range(6))
    >>> test = Records(tuple(seen))
    >>> cows = draw_queries(Dataset("cows", Path(), "csv", Records(), query=test, gallery=test))
    >>> sorted(cows.query.values("camera")), len(cows.gallery)
    (['a', 'b'], 4)
    """
    if share is not None:
        _check_share(share)
    test = dataset.query
    if not test or test != dataset.gallery:
        raise DataError(
            f"{dataset.name} has {len(test)} queries and {len(dataset.gallery)} gallery images; "
            "queries can be drawn where these are the same images. Split the data set first"
        )
    scene = find(choose(test, test)).scene
    scenes: list[str | None] = [None] * len(test) if scene is None else test.values(scene)
    of_identity: defaultdict[str, list[int]] = defaultdict(list)
    for place in sorted(range(len(test)), key=lambda i: (str(test[i].path), test[i].box or ())):
        identity = test[place].identity
        if identity is not None:
            of_identity[identity].append(place)
    random = np.random.default_rng(seed)
    drawn: set[int] = set()
    for _, places in sorted(of_identity.items()):
        shuffled = [places[i] for i in random.permutation(len(places))]
        drawn |= _queries_of(shuffled, scenes, share, apart=scene is not None)
    if not drawn:
        raise DataError(
            f"no identity among the {len(test)} test images of {dataset.name} is seen twice, so no "
            "query would have a match. Take a larger test_share, or split by identity"
        )
    if share is not None:
        rule = f"a share of {share:g} of each identity"
    else:
        rule = "one for each identity" + (f" and {scene}" if scene is not None else "")
    return replace(
        dataset,
        query=test.take(sorted(drawn)),
        gallery=test.take([i for i in range(len(test)) if i not in drawn]),
        notes=(*dataset.notes, f"{len(drawn)} of {len(test)} test images are queries, {rule}, {seed=}"),
    )


def write_split(dataset: Dataset, file: str | Path) -> Path:
    """Writes a data set as a CSV that `gracl.load_dataset` reads back to the same records.

    Images below the CSV's folder are named relative to it, so that both can be moved together; all
    others by their whole path. Test images that are query and gallery at once are written once, as
    split `test`. Notes and problems are not kept.

    Args:
        dataset: any.
        file: a file that is not there yet; folders are made for it.

    Returns:
        The file.

    Raises:
        DataError: the file exists or cannot be written, or a fact would not be read back as it is.
    """
    file = Path(file)
    if is_there(file):
        raise DataError(
            f"{file} exists, and a split overwrites nothing. Remove it or give another name"
        )
    if file.suffix.lower() != ".csv":
        raise DataError(f"{file} would not be read back as a table; give a name that ends in .csv")
    if dataset.query == dataset.gallery:
        sides = {"train": dataset.train, "test": dataset.query}
    else:
        sides = {"train": dataset.train, "query": dataset.query, "gallery": dataset.gallery}
    require_kept(record for records in sides.values() for record in records)
    text = io.StringIO(newline="")
    table = csv.DictWriter(text, ("path", "split", *FIELDS, *"xywh"), restval="")
    table.writeheader()
    table.writerows(_row(record, split, file) for split, records in sides.items() for record in records)
    with told(file, DataError, "another name"):
        file.parent.mkdir(parents=True, exist_ok=True)
    put(file, text.getvalue().encode(), DataError, "another name")
    return file


def require_kept(records: Iterable[Record]) -> None:
    """A `DataError` for the first fact that would not be read back from a CSV as it is.

    >>> require_kept([Record(Path("a.jpg"), identity="Rosa ")])
    Traceback (most recent call last):
    gracl.errors.DataError: a.jpg: the identity 'Rosa ' would not be read back from a CSV ...
    """
    for record in records:
        for field in FIELDS:
            value = getattr(record, field)
            if value is not None and not _is_kept(value, field):
                raise DataError(f"{record.path}: the {field} {value!r} {NOT_KEPT}")


# -- small parts ----------------------------------------------------------------------------------


def _divide(dataset: Dataset, is_test: Iterable[bool], *notes: str) -> Dataset:
    """The training part, parted; what was test before is left out."""
    train: list[Record] = []
    test: list[Record] = []
    for record, goes in zip(dataset.train, is_test, strict=True):
        (test if goes else train).append(record)
    if not (train and test):
        raise DataError(
            f"of {len(dataset.train)} training images of {dataset.name} this split would leave "
            f"{len(train)} for training and {len(test)} for the test. Choose another cutoff or share"
        )
    before = len({(r.path, r.box) for r in (*dataset.query, *dataset.gallery)})
    left_out = (f"{before} images that were the test part before are left out",) if before else ()
    both = Records(tuple(test))
    notes = (*dataset.notes, *notes, *left_out)
    return replace(
        dataset, train=Records(tuple(train)), query=both, gallery=both, notes=notes, given=()
    )


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise DataError(
            f"a share of {share} leaves a side empty; expected between 0 and 1, such as 0.5"
        )


def _day(date: str) -> str:
    """A date's year, month and day as digits, as far as they are known; these sort as text."""
    digits = re.sub(r"\D", "", date)[:8]
    year, month, day = digits[:4], digits[4:6] or "01", digits[6:8] or "01"
    plausible = "1800" <= year <= "2199" and "01" <= month <= "12" and "01" <= day <= "31"
    if DATE.fullmatch(date) is None or not plausible:
        raise DataError(
            f"the date '{date}' does not begin with its year, so it cannot be put in order. Write "
            "2025-04-01, or 2025-04-01 09:30"
        )
    return digits


def _first_test_days(
    whose: Sequence[str | None], days: Sequence[str | None], share: float
) -> dict[str | None, str]:
    """For each who is known on several days: the day from which on images come nearest to a share."""
    counts: defaultdict[str | None, Counter[str]] = defaultdict(Counter)
    for who, day in zip(whose, days, strict=True):
        if who is not None and day is not None:
            counts[who][day] += 1
    starts = {}
    for who, images in counts.items():
        left, nearest = images.total(), float("inf")
        for before, day in pairwise(sorted(images)):
            left -= images[before]
            if abs(left - share * images.total()) < nearest:
                starts[who], nearest = day, abs(left - share * images.total())
    return starts


def _queries_of(
    places: list[int], scenes: Sequence[str | None], share: float | None, *, apart: bool
) -> set[int]:
    """Which of one identity's images, in drawn order, become queries; see `draw_queries`."""
    gallery = Counter(scenes[place] for place in places)
    drawn: list[int] = []

    def has_match(query: int) -> bool:
        own = scenes[query]
        return any(
            n and (not apart or (None not in (own, scene) and own != scene))
            for scene, n in gallery.items()
        )

    most = len(places) if share is None else max(1, round(share * len(places)))
    # the fullest cameras first: what they give away is missed least
    for place in sorted(places, key=lambda place: -gallery[scenes[place]]):
        taken = share is None and scenes[place] in {scenes[query] for query in drawn}
        if taken or len(drawn) == most:
            continue
        drawn.append(place)
        gallery[scenes[place]] -= 1
        if not all(map(has_match, drawn)):
            drawn.pop()
            gallery[scenes[place]] += 1
    return set(drawn)


def _row(record: Record, split: str, file: Path) -> dict[str, object]:
    """One line of the CSV."""
    path, folder = record.path.absolute(), file.parent.absolute()
    name = path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)
    if name.startswith(" "):
        name = f"./{name}"  # else the space would be taken for one after a comma
    if not _is_kept(name, "path"):
        raise DataError(f"{record.path!r} {NOT_KEPT}")
    box = dict(zip("xywh", record.box, strict=True)) if record.box is not None else {}
    return {"path": name, "split": split, **{f: getattr(record, f) for f in FIELDS}, **box}


def _is_kept(text: str, column: str) -> bool:
    """Whether a CSV's reader gives a text back as it is."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    if column == "identity":
        return as_identity(text, Tally()) == text
    if column == "date":
        return as_day(text, Tally()) == text
    return as_text(text) == text
