"""Which tracklets, of whatever cameras, are the same individual: features in, identities out.

A tracklet is what a single-camera tracker holds together: images of one individual without a break. Two
that a camera sees at the same time are two individuals, and so are two whose cameras are too far apart
for the time between them. What is left is joined by average linkage, which never brings two of these
together.

Letters: N images, T tracklets, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from gracl.clustering import cluster, outliers_as_singletons
from gracl.errors import ConfigError, ShapeError, did_you_mean
from gracl.jaccard import jaccard_distance
from gracl.linkage import link_features, link_graph
from gracl.links import Labels, Links, Pairs, must_groups, number_by_first
from gracl.neighbors import MEMORY, check_features
from gracl.presence import Travel, known_apart

Algorithm = Literal["auto", "jaccard", "cosine", "dbscan"]
K1 = 8
"""Neighbours of the Jaccard distance, the tracklet itself included."""
EPS = 0.5
"""Jaccard distance up to which clusters are joined."""
FEW = 4 * K1
"""Fewer tracklets than this have too few neighbours for a distance that is made of neighbours."""
THRESHOLD = 0.6
"""Mean similarity from which clusters are joined where nothing can be learnt of it."""
FALSE_JOIN = 5.0
"""Missed pairs that one false pair counts for where a threshold is chosen."""
ENOUGH = 30
"""Pairs from which a share is read off."""
SAMPLE = 100_000
"""Pairs that are looked at where there are more."""


class HasThreshold(Protocol):
    """Anything that knows from which similarity two are the same."""

    @property
    def threshold(self) -> float:
        """A cosine similarity."""


class Seen(NamedTuple):
    """Where and when an image of a tracklet was taken."""

    camera: str | None
    track: int | str
    """The tracker's number, which means something within its camera only."""
    time: float = float("nan")
    """A frame's number, or seconds; NaN is unknown."""


@dataclass(frozen=True, eq=False)
class TrackletFeatures:
    """What is known of T tracklets; see `gather_tracklets`."""

    features: Tensor
    """(T, D) unit rows: the mean of a tracklet's unit features, made unit length again. A row of zeros,
    of a tracklet without a usable image, is joined by must-links alone."""
    cameras: Sequence[str | None] | None = None
    """Of each; None is unknown."""
    first: Sequence[float] | NDArray[np.float64] | None = None
    """When each was first seen, in frames or seconds; NaN is unknown."""
    last: Sequence[float] | NDArray[np.float64] | None = None
    """When last, which is included."""
    tracks: Sequence[int | str] | None = None
    """What the tracker calls each."""
    images: NDArray[np.int64] | None = None
    """(T,) how many images each has, those that no feature is of included."""
    halves: Tensor | None = None
    """(T, 2, D) unit rows: the means of a tracklet's first and last images; zeros where it has only
    one. What a threshold is learnt from."""

    def __len__(self) -> int:
        return len(self.features)


@dataclass(frozen=True, eq=False)
class Association:
    """Who is who, tracklet by tracklet."""

    identities: Labels
    """(T,) 1, 2, ... in the order of the first tracklet of each; from 1, as trackers count."""
    sizes: NDArray[np.int64]
    """(T,) tracklets of the identity, the tracklet itself included: 1 is one that nothing joined."""
    similarities: NDArray[np.float64]
    """(T,) mean cosine similarity to the identity's other tracklets; NaN where there is none."""
    algorithm: Algorithm
    """What "auto" came to."""
    threshold: float | None
    """Mean similarity from which clusters were joined; None of an algorithm that has none."""
    note: str
    """How that was chosen, in words."""

    def __len__(self) -> int:
        return len(self.identities)

    @property
    def n_identities(self) -> int:
        """How many individuals that makes."""
        return int(self.identities.max(initial=0))


def associate(
    tracklets: TrackletFeatures | Tensor,
    *,
    threshold: float | HasThreshold | None = None,
    travel: Travel | None = None,
    links: Links | None = None,
    algorithm: Algorithm = "auto",
    eps: float = EPS,
    k1: int = K1,
    memory: int = MEMORY,
) -> Association:
    """Global identities of tracklets.

    Args:
        tracklets: features with what is known of where and when, or (T, D) features alone. Two
            tracklets of one camera that overlap in time are two individuals.
        threshold: mean cosine similarity of all pairs of two clusters from which they are joined, the
            bound included, or an object that has it as `.threshold`; it goes with "cosine". None: no
            number is needed for "jaccard" and "dbscan"; for "cosine" see `choose_threshold`.
        travel: least seconds between cameras, {(from, to): seconds}; times are then seconds on a clock
            that all cameras share.
        links: tracklets that must, or cannot, be the same, by their rows.
        algorithm: "jaccard" is average linkage of the k-reciprocal Jaccard distance (see
            `gracl.linkage.link_graph`), which fits itself to how alike the tracklets are; "cosine" is
            that of the similarities (`gracl.linkage.link_features`); "dbscan" is DBSCAN on the Jaccard
            distance, its clusters changed as `gracl.links.honour` says. "auto" is "cosine" where there
            is a threshold, or fewer than 32 tracklets, and "jaccard" otherwise.
        eps: Jaccard distance of "jaccard" and "dbscan" up to which two are the same, in [0, 1).
        k1: neighbours of the Jaccard distance, *the tracklet itself included*: about as many as an
            individual has tracklets, or somewhat more.
        memory: bytes that one block of similarities may take; the result does not depend on it.

    Raises:
        ConfigError: no such algorithm, or a threshold for one that has none.
        ShapeError: facts that are not one a tracklet, or a tracklet that ends before it begins.
        LinkConflict: tracklets that must be linked were seen at the same time, or cannot be.

    >>> rows = F.normalize(torch.tensor([[1.0, 0], [1, 0.1], [0.9, 0.2], [0, 1]]))
    >>> cameras = ["north", "north", "south", "south"]
    >>> seen = TrackletFeatures(rows, cameras, first=[0, 5, 20, 90], last=[9, 14, 30, 99])
    >>> found = associate(seen, threshold=0.5)
    >>> found.identities.tolist(), found.sizes.tolist()  # the first two were seen side by side
    ([1, 2, 2, 3], [1, 2, 2, 1])
    """
    if isinstance(tracklets, Tensor):
        tracklets = TrackletFeatures(tracklets)
    features = check_features(tracklets.features)
    algorithm = _algorithm(algorithm, threshold, len(features))
    apart = known_apart(
        len(features),
        cameras=tracklets.cameras,
        first=tracklets.first,
        last=tracklets.last,
        travel=travel,
    )
    links = links or Links()
    bound = Links(links.must, np.concatenate([links.cannot, apart]), links.names or _names(tracklets))
    must_groups(bound, len(features))  # contradictions are named before the work
    level, note = None, f"average linkage of Jaccard distances, k1 {k1}, eps {eps:g}"
    if algorithm == "cosine":
        level, note = _level(threshold, tracklets, bound)
        labels = link_features(features, threshold=level, links=bound, memory=memory)
    else:
        distance = _distance(features, k1, memory)
        if algorithm == "jaccard":
            labels = link_graph(distance, eps=eps, links=bound)
        else:
            note = f"DBSCAN of Jaccard distances, k1 {k1}, eps {eps:g}"
            labels = cluster(distance, eps=eps, min_samples=2, links=bound)
            labels = outliers_as_singletons(labels)
    labels = number_by_first(labels)
    sizes = np.bincount(labels, minlength=1)[labels]
    similarities = _to_others(features, labels, sizes)
    return Association(labels + 1, sizes, similarities, algorithm, level, note)


def gather_tracklets(
    seen: Sequence[Seen | tuple[str | None, int | str, float]], features: Tensor
) -> TrackletFeatures:
    """From images to the tracklets that they are of, in the order of their first images.

    Args:
        seen: (camera, track, time) of each image, in the order in which a tracklet's images were taken.
        features: (N, D) unit rows, one an image.

    >>> seen = [("north", 1, 1), ("south", 1, 1), ("north", 1, 2)]
    >>> found = gather_tracklets(seen, torch.eye(2)[[0, 1, 0]])
    >>> found.cameras, found.features.tolist(), found.last.tolist()
    (['north', 'south'], [[1.0, 0.0], [0.0, 1.0]], [2.0, 1.0])
    """
    features = check_features(features)
    if len(features) != len(seen):
        raise ShapeError(
            f"{len(features)} rows of features for {len(seen)} images; expected one an image"
        )
    numbers: dict[tuple[str | None, int | str], int] = {}
    pairs = [(own[0], own[1]) for own in seen]
    member = np.array([numbers.setdefault(pair, len(numbers)) for pair in pairs], dtype=np.int64)
    times = np.array([own[2] for own in seen], dtype=np.float64)
    first, last = np.full(len(numbers), np.inf), np.full(len(numbers), -np.inf)
    with np.errstate(invalid="ignore"):  # one that is unknown makes the tracklet's unknown
        np.minimum.at(first, member, times)
        np.maximum.at(last, member, times)
    images = np.bincount(member, minlength=len(numbers))
    # The place of each image in its tracklet says which half it is of.
    order = np.argsort(member, kind="stable")
    place = np.empty(len(member), dtype=np.int64)
    place[order] = np.arange(len(member)) - np.repeat(np.cumsum(images) - images, images)
    half = 2 * member + (2 * place >= images[member])
    halves = _means(features, half, 2 * len(numbers)).reshape(len(numbers), 2, -1)
    halves[torch.from_numpy(images < 2).to(features.device)] = 0
    return TrackletFeatures(
        _means(features, member, len(numbers)),
        cameras=[camera for camera, _ in numbers],
        first=first,
        last=last,
        tracks=[track for _, track in numbers],
        images=images,
        halves=halves,
    )


def choose_threshold(tracklets: TrackletFeatures, links: Links | None = None) -> tuple[float, str]:
    """A similarity that tells the same from different, without labels; and how it was chosen.

    Halves of a tracklet are the same individual. Tracklets known to be apart are different ones; where
    fewer than 30 pairs are, all pairs of tracklets stand for these, since in a crowd nearly all are
    different. Taken is the threshold at which the share of halves below it, plus five times the share
    of different pairs from it on, is least: a false pair costs more than a missed one, as there are
    many more that could be. Where fewer than 30 tracklets have halves, it is 0.6.

    Halves are more alike than tracklets of two cameras are. So this threshold leans to joining too
    little where cameras differ much; with labels of a few pairs, calibrate instead.

    Args:
        tracklets: with `halves`.
        links: `cannot` are known to be apart.

    >>> rows = F.normalize(torch.randn(40, 1, 8, generator=torch.Generator().manual_seed(0)), dim=2)
    >>> alike = TrackletFeatures(rows[:, 0], halves=rows.expand(-1, 2, -1))
    >>> choose_threshold(alike)[1]
    'chosen by 40 tracklets of two halves and all 780 pairs'
    """
    genuine = _of_halves(tracklets.halves)
    n = len(tracklets)
    if len(genuine) < ENOUGH or n < 2:
        return (
            THRESHOLD,
            f"the default: {len(genuine)} tracklets have two images or more, too few to learn from",
        )
    apart = (links or Links()).cannot
    words = f"{len(apart)} pairs known to be apart"
    if len(apart) < ENOUGH:
        apart, words = _all_pairs(n), f"all {n * (n - 1) // 2} pairs"
    different = _products(tracklets.features, _sampled(apart))
    words = f"chosen by {len(genuine)} tracklets of two halves and {words}"
    return _least_mistakes(genuine, different), words


# -- parts ----------------------------------------------------------------------------------------


def _algorithm(algorithm: Algorithm, threshold: object, n: int) -> Algorithm:
    if algorithm not in get_args(Algorithm):
        raise ConfigError(
            f"'{algorithm}' is no association; {did_you_mean(algorithm, get_args(Algorithm))}"
        )
    if algorithm == "auto":
        return "cosine" if threshold is not None or n < FEW else "jaccard"
    if threshold is not None and algorithm != "cosine":
        raise ConfigError(f"'{algorithm}' has no threshold; give eps, or take 'cosine'")
    return algorithm


def _distance(features: Tensor, k1: int, memory: int) -> sparse.csr_array:
    """(T, T) Jaccard distances; rows of zeros have none, as nobody is their neighbour."""
    there = np.flatnonzero(features.norm(dim=1).cpu().numpy() > 0)
    inner = jaccard_distance(features[there], k1=k1, k2=max(1, k1 // 4), memory=memory).tocoo()
    rows, columns = inner.coords
    shape = len(features), len(features)
    return sparse.csr_array((inner.data, (there[rows], there[columns])), shape=shape)


def _names(tracklets: TrackletFeatures) -> tuple[str, ...]:
    """Of tracklets, for errors; none where the tracker's are not known."""
    if tracklets.tracks is None:
        return ()
    cameras = tracklets.cameras or [None] * len(tracklets)
    pairs = zip(cameras, tracklets.tracks, strict=True)
    return tuple(f"track {track}" + (f" of {camera}" if camera else "") for camera, track in pairs)


def _level(
    threshold: float | HasThreshold | None, tracklets: TrackletFeatures, links: Links
) -> tuple[float, str]:
    """The threshold as a number, and where it comes from."""
    if threshold is None:
        level, how = choose_threshold(tracklets, links)
    else:
        level = float(threshold if isinstance(threshold, int | float) else threshold.threshold)
        how = "as given"
    if not -1 <= level <= 1:
        raise ConfigError(f"threshold is {level}; expected a cosine similarity, in [-1, 1]")
    return level, f"average linkage of similarities from {level:.3f}, {how}"


def _of_halves(halves: Tensor | None) -> NDArray[np.float64]:
    """How alike the halves of each tracklet are that has two."""
    if halves is None:
        return np.zeros(0)
    products: NDArray[np.float64] = (halves[:, 0] * halves[:, 1]).sum(dim=1).double().cpu().numpy()
    return products[halves.abs().sum(dim=(1, 2)).cpu().numpy() > 0]


def _products(features: Tensor, pairs: Pairs) -> NDArray[np.float64]:
    """The similarity of each pair, by parts: the rows of all at once would be many."""
    parts = np.array_split(pairs, 1 + len(pairs) // 10_000)
    found = [(features[part[:, 0]] * features[part[:, 1]]).sum(dim=1) for part in parts]
    products: NDArray[np.float64] = torch.cat(found).double().cpu().numpy()
    return products


def _least_mistakes(genuine: NDArray[np.float64], different: NDArray[np.float64]) -> float:
    """Midway between the two similarities between which mistakes weigh least; the lowest of several."""
    values = np.unique(np.concatenate([genuine, different]))
    if len(values) < 2:
        return float(values[0])
    between = (values[1:] + values[:-1]) / 2
    missed = np.searchsorted(np.sort(genuine), between) / len(genuine)
    false = 1 - np.searchsorted(np.sort(different), between) / len(different)
    return float(between[np.argmin(missed + FALSE_JOIN * false)])


def _all_pairs(n: int) -> Pairs:
    """All of them where they are few, else a drawing, the same each time."""
    if n * (n - 1) // 2 <= SAMPLE:
        every: Pairs = np.stack(np.triu_indices(n, 1), axis=1)
        return every
    drawn = np.random.default_rng(0).integers(0, n, (SAMPLE, 2))
    some: Pairs = drawn[drawn[:, 0] != drawn[:, 1]]
    return some


def _sampled(pairs: Pairs) -> Pairs:
    if len(pairs) <= SAMPLE:
        return pairs
    drawn: Pairs = pairs[np.random.default_rng(0).choice(len(pairs), SAMPLE, replace=False)]
    return drawn


def _means(features: Tensor, member: Labels, n: int) -> Tensor:
    rows = torch.from_numpy(member).to(features.device)
    return F.normalize(features.new_zeros(n, features.shape[1]).index_add_(0, rows, features))


def _to_others(features: Tensor, labels: Labels, sizes: NDArray[np.int64]) -> NDArray[np.float64]:
    """(T,) mean similarity of each row to the others of its label; NaN where there are none."""
    rows = torch.from_numpy(labels).to(features.device)
    sums = features.new_zeros(int(labels.max(initial=-1)) + 1, features.shape[1])
    sums.index_add_(0, rows, features)
    total = features.new_zeros(len(features))
    for start in range(0, len(features), 4096):  # not all sums at once
        at = slice(start, start + 4096)
        total[at] = (features[at] * (sums[rows[at]] - features[at])).sum(dim=1)
    return np.where(sizes > 1, total.double().cpu().numpy() / np.maximum(sizes - 1, 1), np.nan)
