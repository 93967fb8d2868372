"""What shows that two images are of one individual, or of two: the comparisons under a threshold.

From the strongest evidence to the weakest:

    pairs        a person said of each pair whether it is one individual
    identities   all images of different individuals are impostor pairs, all valid matches genuine ones
    tracklets    distant frames of one sequence are genuine; sequences with boxes in one picture are not
    clusters     pseudo labels in the place of identities, outliers left out

Cameras alone are no evidence: one individual goes past several, and one camera sees many.

Letters: N images, D feature dimensions, U units (individuals, tracklets or clusters).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from gracl.all_pairs import BLOCK, Searches, compare_all, members_of
from gracl.data import protocols
from gracl.data.records import Records
from gracl.error_rates import Comparisons, list_comparisons
from gracl.errors import EvaluationError, ShapeError
from gracl.links import Labels, Links, Pairs, must_groups, must_within
from gracl.metrics import Codes, Side

Kind = Literal["pairs", "identities", "tracklets", "clusters"]

DRAWN = 2_000_000
"""Listed pairs that are multiplied out, about; where there are more, units bring fewer images."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Comparisons whose truth is known, or taken for known."""

    kind: Kind
    unit: str
    """What is taken for independent: "individuals", "tracklets", "clusters"."""
    impostors: Comparisons
    genuine: Comparisons | None
    """None where there is no genuine pair."""
    searches: Searches | None = None
    """None where the evidence is single pairs."""
    protocol: str = ""
    """What genuine pairs are valid, by its versioned name."""
    notes: tuple[str, ...] = ()
    """How far it may be trusted."""


def from_pairs(features: Tensor, records: Records, pairs: Links) -> Evidence:
    """Pairs that a person has judged.

    Units are the images that are known to show one individual: by the pairs themselves, directly or
    through others, by identities and by sequences where there are any.

    Args:
        features: (N, D) unit rows.
        records: of the N images.
        pairs: `must` are genuine, `cannot` are impostors; see `gracl.data.pairs.read_pairs`.

    Raises:
        LinkConflict: the pairs contradict each other, or what is known of the images.

    >>> from pathlib import Path
    >>> from gracl.data.records import Record
    >>> three = Records(tuple(Record(Path(name)) for name in "abc"))
    >>> judged = Links(must=np.array([[0, 1]]), cannot=np.array([[0, 2], [1, 2]]))
    >>> found = from_pairs(torch.eye(3)[[0, 0, 1]], three, judged)
    >>> found.impostors.similarities.tolist(), found.genuine.similarities.tolist()
    ([0.0, 0.0], [1.0])
    """
    _require_rows(features, records)
    known = [
        pairs.must,
        must_within(records.values("identity")),
        must_within(records.values("sequence")),
    ]
    names = [str(record.path) for record in records]
    units = must_groups(Links(np.concatenate(known), pairs.cannot, names), len(records))
    note = (
        "these pairs speak for others that are chosen in the same way; hard ones make rates look high"
    )
    return Evidence(
        "pairs",
        "individuals",
        _listed(features, pairs.cannot, units),
        _listed(features, pairs.must, units) if len(pairs.must) else None,
        notes=(note,),
    )


def from_identities(
    features: Tensor,
    records: Records,
    *,
    protocol: str = "auto",
    rate: float = 0.001,
    seed: int = 0,
) -> Evidence:
    """All pairs of images of known identity.

    Args:
        features: (N, D) unit rows.
        records: of the N images; those of unknown identity have no part.
        protocol: what a genuine pair must differ in, by name, see `gracl.data.protocols`; "auto" is the
            strictest that any pair fulfils. Impostors may be any two individuals.
        rate: the false match rate that will be asked for: it decides how many similarities are kept.
        seed: of the draw, where there are very many images.

    Raises:
        EvaluationError: fewer than two identities, or a protocol that draws.

    >>> from pathlib import Path
    >>> from gracl.data.records import Record
    >>> people = Records(tuple(Record(Path(name), identity=name[0]) for name in ("a1", "a2", "b1")))
    >>> found = from_identities(torch.eye(2)[[0, 0, 1]], people)
    >>> found.impostors.n, found.genuine.n, found.protocol
    (2, 1, 'any@1')
    """
    _require_rows(features, records)
    rows = np.array([row for row, r in enumerate(records) if r.identity is not None], dtype=np.int64)
    records, features = records.take(rows), features[torch.from_numpy(rows)]
    n_identities = len(set(records.values("identity")))
    if n_identities < 2:
        raise EvaluationError(
            f"{n_identities} identities are known, and impostors need two. Give images of more "
            "individuals, or other evidence: pairs, tracklets or clusters"
        )
    name = protocols.choose(records, records) if protocol == "auto" else protocol
    rule = protocols.find(name)
    if name not in protocols.PROTOCOLS:
        raise EvaluationError(
            f"protocol '{name}' is that of one benchmark, and a threshold is taken on all pairs. Use "
            f"one of {', '.join(protocols.PROTOCOLS)}"
        )
    side, _ = protocols.sides(records, records, name)
    impostors, searches, note = compare_all(features, side, rate, seed)
    genuine, thinned = _matches(side, seed)
    return Evidence(
        "identities",
        "individuals",
        impostors,
        _listed(features, genuine, side.pids) if len(genuine) else None,
        searches,
        protocol=str(rule),
        notes=(*note, *thinned),
    )


def from_tracklets(features: Tensor, records: Records) -> Evidence:
    """What sequences and boxes tell without any label.

    Genuine are two frames of one sequence that lie half its length apart or more, in the order of the
    records: neighbouring frames are nearly the same picture, and would let any threshold look good.
    Impostors are the images of two sequences (or single crops) that have boxes in one picture.

    Args:
        features: (N, D) unit rows.
        records: of the N images, with boxes; and with sequences, or no pair is genuine.

    Raises:
        EvaluationError: no two crops come from one picture, so nothing shows two individuals.

    >>> from pathlib import Path
    >>> from gracl.data.records import Box, Record
    >>> boxes = Box(0, 0, 9, 9), Box(20, 0, 9, 9)
    >>> crops = [Record(Path("1.jpg"), sequence=f"t{n}", box=box) for n, box in enumerate(boxes)]
    >>> from_tracklets(torch.eye(2), Records(tuple(crops))).impostors.n
    1
    """
    _require_rows(features, records)
    units = _tracklets(records)
    apart = _in_one_picture(records, units)
    if not apart:
        raise EvaluationError(
            "no picture holds boxes of two sequences, so nothing shows two individuals for certain. "
            "Give crops as boxes of their frames, or other evidence: pairs, identities or clusters"
        )
    members = members_of(units)
    counts = np.array([len(rows) for rows in members])
    ends = np.array(sorted(apart))
    most = _most(lambda most: int(np.minimum(counts, most)[ends].prod(axis=1).sum()), counts)
    members = [_spread(rows, most) for rows in members]
    impostors = np.concatenate([_cross(members[a], members[b]) for a, b in ends])
    genuine = np.concatenate([_distant(rows) for rows in members])
    notes = [
        "impostors were seen by one camera at one time, so they look more alike than others do: the "
        "threshold is rather high",
        "an individual may be in several tracklets, so intervals are rather short",
    ]
    if len(genuine):
        notes.insert(
            1,
            "genuine pairs come from one tracklet each: the true-match rate across cameras or days is "
            "lower",
        )
    if most < counts.max():
        notes.append(f"of longer tracklets, {most} evenly spread frames were taken")
    return Evidence(
        "tracklets",
        "tracklets",
        _listed(features, impostors, units),
        _listed(features, genuine, units) if len(genuine) else None,
        notes=tuple(notes),
    )


def has_tracklets(records: Records) -> bool:
    """Whether `from_tracklets` finds two individuals in one picture."""
    return bool(_in_one_picture(records, _tracklets(records)))


def from_clusters(
    features: Tensor, records: Records, labels: Labels, *, rate: float = 0.001, seed: int = 0
) -> Evidence:
    """Pseudo labels in the place of identities: the last resort.

    Args:
        features: (N, D) unit rows.
        records: of the N images; identities are not read.
        labels: (N,) the cluster of each; outliers have no part.
        rate, seed: see `from_identities`.

    Raises:
        EvaluationError: fewer than two clusters.
        ShapeError: not one label an image.
    """
    if len(labels) != len(records):
        raise ShapeError(f"{len(labels)} labels for {len(records)} images; expected one each")
    named = zip(records, labels.tolist(), strict=True)
    taken = Records(tuple(replace(r, identity=None if at < 0 else f"{at}") for r, at in named))
    n_clusters = len(np.unique(labels[labels >= 0]))
    if n_clusters < 2:
        raise EvaluationError(
            f"the images form {n_clusters} clusters, and impostors need two. Try 'gracl cluster RUN "
            "DATA --sweep', or give other evidence: pairs, identities or tracklets"
        )
    found = from_identities(features, taken, rate=rate, seed=seed)
    share = float((labels < 0).mean())
    notes = (
        "clusters are guesses, made by the same similarities. An individual in two clusters counts as "
        "an impostor and lifts the threshold; two in one cluster hide false matches and lower it",
        "where it was measured, false matches of new individuals were 1.4 to 2 times as many as stated",
        f"outliers, {share:.0%} of the images and the hardest of them, have no part, so true matches "
        "are rarer than said here",
    )
    return replace(found, kind="clusters", unit="clusters", notes=(*notes, *found.notes))


# -- pairs that are listed ------------------------------------------------------------------------


def _listed(features: Tensor, pairs: Pairs, units: Codes) -> Comparisons:
    """Pairs of rows, multiplied out."""
    values = [np.zeros(0, dtype=np.float32)]
    step = max(1, BLOCK // max(1, features.shape[1]))
    for start in range(0, len(pairs), step):
        first, second = torch.from_numpy(pairs[start : start + step].T.copy())
        values.append((features[first] * features[second]).sum(dim=1).float().cpu().numpy())
    first, second = units[pairs].T
    return list_comparisons(np.concatenate(values), first, second, int(units.max(initial=-1)) + 1)


def _matches(side: Side, seed: int) -> tuple[Pairs, tuple[str, ...]]:
    """All valid genuine pairs, and what was left out of individuals with very many images."""
    random = np.random.default_rng(seed)
    members = members_of(side.pids)
    counts = np.array([len(rows) for rows in members])

    def n_pairs(most: int) -> int:
        taken = np.minimum(counts, most)
        return int((taken * (taken - 1) // 2).sum())

    most = _most(n_pairs, counts)
    drawn = (np.sort(random.permutation(rows)[:most]) for rows in members)
    pairs = np.concatenate([_within(rows) for rows in drawn])
    valid = side.images[pairs[:, 0]] != side.images[pairs[:, 1]]
    if side.scenes is not None:
        mine, theirs = side.scenes[pairs].T
        valid &= (mine != theirs) & (mine >= 0) & (theirs >= 0)
    thinned = f"genuine pairs are of {most} images at most of one individual, drawn with seed {seed}"
    return pairs[valid], (thinned,) * bool(most < counts.max())


def _most(n_pairs: Callable[[int], int], counts: Codes) -> int:
    """The most images that each unit may bring, two at least, so that there are not too many pairs."""
    low, high = 2, max(2, int(counts.max(initial=0)))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if n_pairs(middle) <= DRAWN else (low, middle - 1)
    return low


def _spread(rows: Codes, most: int) -> Codes:
    """So many rows at most, at even distances, with both ends."""
    if len(rows) <= most:
        return rows
    return rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]


def _within(rows: Codes) -> Pairs:
    first, second = np.triu_indices(len(rows), 1)
    return np.stack([rows[first], rows[second]], axis=1)


def _distant(rows: Codes) -> Pairs:
    """Pairs that lie half the sequence apart or more."""
    first, second = np.triu_indices(len(rows), max(1, len(rows) // 2))
    return np.stack([rows[first], rows[second]], axis=1)


def _cross(these: Codes, those: Codes) -> Pairs:
    return np.stack([np.repeat(these, len(those)), np.tile(those, len(these))], axis=1)


def _tracklets(records: Records) -> Codes:
    """(N,) the sequence of each image; one that is in none stands for itself."""
    return must_groups(Links(must_within(records.values("sequence"))), len(records))


def _in_one_picture(records: Records, units: Codes) -> set[tuple[int, int]]:
    """Units that have boxes in one picture."""
    seen: defaultdict[object, set[int]] = defaultdict(set)
    for record, unit in zip(records, units.tolist(), strict=True):
        if record.box is not None:
            seen[record.path].add(unit)
    return {pair for together in seen.values() for pair in combinations(sorted(together), 2)}


def _require_rows(features: Tensor, records: Records) -> None:
    if features.ndim != 2 or len(features) != len(records):
        raise ShapeError(
            f"features of shape {tuple(features.shape)} for {len(records)} images; expected "
            f"({len(records)}, D)"
        )
