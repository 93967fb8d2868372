"""All features on a plane: near images are alike, and what distances between groups say is little.

Letters: N images, D feature dimensions, M of them on the map.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from gracl.data.records import Records
from gracl.links import OUTLIER, Labels
from gracl.report.album import Album, Shot

DIMENSIONS = 50
"""Principal directions that t-SNE is given, as its authors do."""
PERPLEXITY = 30.0
FEWEST = 5
"""Images that t-SNE needs to place them."""
COLOURS, SHAPES = 8, 4
"""Of marks: 32 groups differ, others are told apart by the legend."""
SIDE = 1000
"""Of the map's square."""
NOWHERE = "outliers"
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Group:
    """Images that are marked alike."""

    name: str
    count: int
    """On the map."""
    colour: int
    """0 .. COLOURS - 1; -1 for those that belong to no group."""
    shape: int
    """0 .. SHAPES - 1; -1 likewise."""


@dataclass(frozen=True)
class Grouping:
    """One way to colour the map."""

    name: str
    """cluster, camera or identity."""
    groups: tuple[Group, ...]
    """The largest first, those of no group last."""
    of_point: tuple[int, ...]
    """(M,) places among the groups."""


@dataclass(frozen=True)
class FeatureMap:
    """Points, how they may be coloured, and their pictures."""

    n_images: int
    """Of which the map shows some."""
    x: tuple[int, ...]
    """(M,) 0 .. SIDE, as y is."""
    y: tuple[int, ...]
    groupings: tuple[Grouping, ...]
    shots: tuple[Shot, ...]
    """(M,)"""

    @property
    def data(self) -> dict[str, object]:
        """What the page's script needs, but for the pictures."""
        return {
            "x": self.x,
            "y": self.y,
            "shots": [shot.number for shot in self.shots],
            "paths": [shot.path for shot in self.shots],
            "groupings": {
                grouping.name: {
                    "of": grouping.of_point,
                    "groups": [[g.name, g.colour, g.shape] for g in grouping.groups],
                }
                for grouping in self.groupings
            },
        }


def draw_map(
    features: Tensor,
    labels: Labels,
    records: Records,
    album: Album,
    *,
    images: int,
    seed: int,
) -> FeatureMap:
    """A map of images drawn at random, with their clusters, and cameras and identities where known.

    Args:
        features: (N, D) unit rows.
        labels: (N,) clusters.
        records: of the N images.
        album: where their pictures are asked for.
        images: M at most.
        seed: of the draw and of the places.
    """
    drawn = np.random.default_rng(seed).permutation(len(features))[:images]
    x, y = places(features.numpy()[np.sort(drawn)], seed=seed).T.tolist()
    chosen = records.take(np.sort(drawn))
    clusters = [None if label == OUTLIER else str(label) for label in labels[np.sort(drawn)].tolist()]
    groupings = [group("cluster", clusters, NOWHERE)]
    groupings += [
        group(name, chosen.values(name), UNKNOWN) for name in ("camera", "identity") if chosen.has(name)
    ]
    at = {int(row): place for place, row in enumerate(np.sort(drawn))}
    shots = {at[int(row)]: album.place(records[int(row)]) for row in drawn}  # in random order
    return FeatureMap(
        len(features), tuple(x), tuple(y), tuple(groupings), tuple(shots[m] for m in range(len(x)))
    )


def places(features: NDArray[np.float32], *, seed: int) -> NDArray[np.int64]:
    """(M, 2) places in 0 .. SIDE: principal components, then t-SNE; one thread, so the same each time.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.

    >>> places(np.eye(3, dtype=np.float32)[:1], seed=0).tolist()
    [[500, 500]]
    """
    plane = _plane(features, seed) if len(features) > 1 and np.ptp(features, axis=0).any() else None
    if plane is None:  # one image, or all alike
        return np.full((len(features), 2), SIDE // 2)
    low, high = plane.min(axis=0), plane.max(axis=0)
    around = (plane - (low + high) / 2) / (high - low).max()
    scaled: NDArray[np.int64] = (SIDE * (0.5 + 0.97 * around)).round().astype(np.int64)
    return scaled


def _plane(features: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """(M, 2) by t-SNE; of the few images that it cannot place, their first principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits

    count = len(features)
    with threadpool_limits(1):  # sums of several threads end in other digits each time
        main = PCA(min(DIMENSIONS, *features.shape), random_state=seed).fit_transform(features)
        plane: NDArray[np.float32] = np.zeros((count, 2), dtype=np.float32)
        plane[:, : main.shape[1]] = main[:, :2]
        if count < FEWEST:
            return plane
        placed: NDArray[np.float32] = TSNE(
            perplexity=min(PERPLEXITY, (count - 1) / 3),
            init=plane / plane[:, 0].std() * 1e-4,
            random_state=seed,
            n_jobs=1,
        ).fit_transform(main)
    return placed


def group(name: str, values: Sequence[str | None], missing: str) -> Grouping:
    """Points grouped by a fact, the largest group first; neighbours in that order look different.

    Args:
        name: of the fact.
        values: (M,) of each point; None is none.
        missing: what those are called.

    >>> [found.name for found in group("camera", ["a", "b", "b", None], "unknown").groups]
    ['b', 'a', 'unknown']
    """
    counts = Counter(value for value in values if value is not None)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], len(item[0]), item[0]))
    groups = [
        Group(value, count, at % COLOURS, (at // COLOURS) % SHAPES)
        for at, (value, count) in enumerate(ordered)
    ]
    place = {value: at for at, (value, _) in enumerate(ordered)}
    if None in values:
        groups.append(Group(missing, list(values).count(None), -1, -1))
    of_point = tuple(len(ordered) if value is None else place[value] for value in values)
    return Grouping(name, tuple(groups), of_point)
