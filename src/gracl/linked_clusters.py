"""Clusters of any algorithm, changed as far as links between images ask.

Letters: N images.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse

from gracl.errors import ShapeError
from gracl.linkage import link_graph
from gracl.links import OUTLIER, Labels, Links, components, must_groups, number_by_first

LOOSE = 0.9
"""Mean distance above which parts of a cluster that is taken apart stay apart: they only hung together
through others. Chosen on drawn people (see docs/review.md), where 0.8 to 0.95 differ little."""


def honour(labels: Labels, distance: sparse.csr_array, links: Links) -> Labels:
    """The labels, changed as far as the links ask.

    1. Must-linked images share a cluster, even where none of them was in one. A cluster that holds one
       of them takes the others in, and clusters that a must-link joins become one.
    2. Cannot-linked images never share a cluster. Where the algorithm and rule 1 put two together, that
       cluster is taken apart and put together again by average linkage (see `gracl.linkage`):
       must-linked images first, then the nearest parts that no cannot-link bars, up to a mean distance
       of `LOOSE`. Single images that this leaves become outliers.
    3. All other clusters, and outliers without must-links, stay as they are. Labels that obey the
       links are returned as they came; else clusters are numbered by their first image.

    Args:
        labels: (N,) 0 .. C - 1 of any algorithm; `OUTLIER` is none.
        distance: (N, N) the symmetric graph that the labels rest on; the diagonal is not read, and a
            stored zero is a pair like any other.
        links: pairs of its rows.

    Returns:
        (N,) int64 labels. Clusters may have fewer images than the algorithm's `min_samples`.

    Raises:
        ShapeError: labels, graph and rows of the links do not fit each other.
        LinkConflict: images that cannot share a cluster are must-linked, by themselves or through
            others. Each pair is named with what links it.

    >>> chain = sparse.csr_array(np.array([[0, .1, 0], [.1, 0, .2], [0, .2, 0]], dtype=np.float32))
    >>> honour(np.array([0, 0, 0]), chain, Links(cannot=np.array([[0, 2]]))).tolist()
    [0, 0, -1]
    """
    n = len(labels)
    if distance.shape != (n, n):
        raise ShapeError(f"{n} labels and distances of shape {distance.shape}; expected ({n}, {n})")
    groups = must_groups(links, n)
    if not len(links):
        return labels
    wanted = _take_in(labels, groups)
    at_odds = wanted[links.cannot[:, 0]] == wanted[links.cannot[:, 1]]
    at_odds &= wanted[links.cannot[:, 0]] != OUTLIER
    broken = np.unique(wanted[links.cannot[at_odds, 0]])
    if len(broken):
        wanted = _rebuild(wanted, broken, distance, links)
    wanted = number_by_first(wanted)
    return labels if np.array_equal(wanted, number_by_first(labels)) else wanted


def _take_in(labels: Labels, groups: Labels) -> Labels:
    """Rule 1: clusters and must-linked groups that share an image become one."""
    n = len(labels)
    linked = np.bincount(groups)[groups] > 1
    # Images, clusters and groups are nodes of one graph; what hangs together is a cluster.
    clustered = labels != OUTLIER
    rows = np.concatenate([np.flatnonzero(clustered), np.flatnonzero(linked)])
    n_clusters = int(labels.max()) + 1
    nodes = n + np.concatenate([labels[clustered], n_clusters + groups[linked]])
    edges = np.stack([rows, nodes], axis=1)
    together = components(n + n_clusters + n, edges)[:n]
    return np.where(clustered | linked, together, OUTLIER)


def _rebuild(labels: Labels, broken: Labels, distance: sparse.csr_array, links: Links) -> Labels:
    """Rule 2 for the clusters that are at odds with a cannot-link."""
    inside = np.flatnonzero(np.isin(labels, broken))
    place = np.full(len(labels), OUTLIER)
    place[inside] = np.arange(len(inside))
    must, cannot = (place[pairs] for pairs in (links.must, links.cannot))
    own = Links(*(pairs[(pairs != OUTLIER).all(axis=1)] for pairs in (must, cannot)))
    parts = link_graph(_within(distance, labels, inside), eps=LOOSE, links=own)
    alone = np.bincount(parts)[parts] == 1
    result = labels.copy()
    result[inside] = np.where(alone, OUTLIER, labels.max() + 1 + parts)
    return result


def _within(distance: sparse.csr_array, labels: Labels, rows: Labels) -> sparse.csr_array:
    """The graph of some rows, without the pairs of different clusters."""
    part = distance[rows][:, rows]
    first = np.repeat(np.arange(len(rows)), np.diff(part.indptr))
    kept = labels[rows[first]] == labels[rows[part.indices]]
    pairs = first[kept], part.indices[kept]
    return sparse.csr_array((part.data[kept], pairs), shape=part.shape)
