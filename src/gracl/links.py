"""Pairs of images that must, or cannot, share a cluster: tracklets, boxes of one frame, decisions.

How the clusters of any algorithm are changed so that they obey is in `gracl.linked_clusters`.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.csgraph import connected_components

from gracl.errors import LinkConflict, ShapeError

OUTLIER = -1
"""The label of an image that belongs to no cluster."""

Labels = NDArray[np.int64]
Pairs = NDArray[np.int64]

SHOWN = 10
"""Contradictions that an error spells out."""


def _no_pairs() -> Pairs:
    return np.zeros((0, 2), dtype=np.int64)


@dataclass(frozen=True)
class Links:
    """Pairs of row numbers; the order within a pair, and among pairs, means nothing.

    >>> len(Links(must=np.array([[0, 1], [1, 2]])))
    2
    """

    must: Pairs = field(default_factory=_no_pairs)
    """(M, 2) pairs that share a cluster; whoever is linked through others is linked too."""
    cannot: Pairs = field(default_factory=_no_pairs)
    """(K, 2) pairs that do not."""
    names: Sequence[str] = ()
    """Of all images, for errors; rows are named by their number where there are none."""

    def __post_init__(self) -> None:
        for name in ("must", "cannot"):
            pairs = np.asarray(getattr(self, name))
            if pairs.size == 0:
                pairs = _no_pairs()
            if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype.kind not in "iu":
                raise ShapeError(
                    f"{name}-links have shape {pairs.shape} and type {pairs.dtype}; expected (M, 2) "
                    "whole numbers, the rows of two images each"
                )
            alone = pairs[pairs[:, 0] == pairs[:, 1]]
            if len(alone):
                raise ShapeError(f"a {name}-link names row {alone[0, 0]} twice; it needs two images")
            object.__setattr__(self, name, pairs.astype(np.int64))

    def __len__(self) -> int:
        return len(self.must) + len(self.cannot)


def must_within(groups: Sequence[Hashable | None]) -> Pairs:
    """Must-links that hold the members of each group together; None is no group.

    >>> must_within(["t1", None, "t1", "t2", "t1"]).tolist()
    [[0, 2], [2, 4]]
    """
    chains = (pairwise(rows) for rows in _members(groups))
    return _pairs(pair for chain in chains for pair in chain)


def cannot_within(groups: Sequence[Hashable | None]) -> Pairs:
    """Cannot-links between all members of each group; None is no group.

    >>> cannot_within(["frame 1", "frame 1", None, "frame 1"]).tolist()
    [[0, 1], [0, 3], [1, 3]]
    """
    return _pairs(pair for rows in _members(groups) for pair in combinations(rows, 2))


def must_groups(links: Links, n: int) -> Labels:
    """(n,) a number for each image that it shares with those it is must-linked to, and no others.

    Raises:
        ShapeError: a link names a row that is not there.
        LinkConflict: images that cannot share a cluster are must-linked. Worth asking before the
            clusters are made: no labels are needed to know.
    """
    _require_rows(links, n)
    groups = components(n, links.must)
    within = groups[links.cannot[:, 0]] == groups[links.cannot[:, 1]]
    if within.any():
        raise _conflict(links, np.unique(np.sort(links.cannot[within], axis=1), axis=0))
    return groups


def number_by_first(labels: Labels) -> Labels:
    """Renumbers clusters 0, 1, ... in the order of their first image; outliers stay.

    >>> number_by_first(np.array([7, -1, 2, 7])).tolist()
    [0, -1, 1, 0]
    """
    result = np.full(len(labels), OUTLIER, dtype=np.int64)
    inside = labels != OUTLIER
    _, first, inverse = np.unique(labels[inside], return_index=True, return_inverse=True)
    order = np.empty(len(first), dtype=np.int64)
    order[np.argsort(first)] = np.arange(len(first))
    result[inside] = order[inverse]
    return result


# -- contradictions -------------------------------------------------------------------------------


def _require_rows(links: Links, n: int) -> None:
    for name, pairs in (("must", links.must), ("cannot", links.cannot)):
        outside = pairs[(pairs < 0) | (pairs >= n)]
        if len(outside):
            raise ShapeError(
                f"a {name}-link names row {outside[0]}; there are {n} images, in rows counted from 0"
            )


def _conflict(links: Links, wrong: Pairs) -> LinkConflict:
    """Names each wrong pair and the fewest must-links that join it."""
    graph = defaultdict(list)
    for a, b in links.must.tolist():
        graph[a].append(b)
        graph[b].append(a)

    def named(row: int) -> str:
        return links.names[row] if links.names else f"row {row}"

    def joined(chain: list[int]) -> str:
        names = [named(row) for row in chain]
        if len(names) > 2 * SHOWN:
            names[SHOWN:-SHOWN] = [f"... {len(names) - 2 * SHOWN} more ..."]
        return " = ".join(names)

    lines = [
        f"{named(a)} and {named(b)} cannot share a cluster, and must: {joined(_chain(graph, a, b))}"
        for a, b in wrong[:SHOWN].tolist()
    ]
    more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    return LinkConflict(
        f"contradictory links, pairs of images: {len(wrong)}. {'; '.join(lines)}{more}. For each, "
        "remove the cannot-link or one of the must-links named"
    )


def _chain(graph: dict[int, list[int]], start: int, goal: int) -> list[int]:
    """The fewest must-links from one image to another."""
    came_from = {start: start}
    waiting = deque([start])
    while goal not in came_from:
        row = waiting.popleft()
        for other in graph[row]:
            if other not in came_from:
                came_from[other] = row
                waiting.append(other)
    chain = [goal]
    while chain[-1] != start:
        chain.append(came_from[chain[-1]])
    return chain[::-1]


# -- small parts ----------------------------------------------------------------------------------


def _members(groups: Sequence[Hashable | None]) -> list[list[int]]:
    members: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        if group is not None:
            members[group].append(row)
    return list(members.values())


def _pairs(pairs: Iterable[tuple[int, int]]) -> Pairs:
    return np.array(list(pairs), dtype=np.int64).reshape(-1, 2)


def components(n: int, edges: Pairs) -> Labels:
    """(n,) the connected component of each node."""
    ones = np.ones(len(edges), dtype=np.int8)
    graph = sparse.csr_array((ones, (edges[:, 0], edges[:, 1])), shape=(n, n))
    found: Labels = connected_components(graph, directed=False)[1].astype(np.int64)
    return found
