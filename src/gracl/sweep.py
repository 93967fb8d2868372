"""One graph of distances clustered with many eps: what becomes of the clusters, and which to take."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from gracl.clustering import Algorithm, Health, Labels, adjusted_mutual_information, cluster, health
from gracl.disk import put
from gracl.errors import ConfigError, RunError, ShapeError
from gracl.links import Links

GRID = tuple(np.arange(0.3, 0.801, 0.025).round(3).tolist())
PICTURES = (".png", ".svg", ".pdf")
NEARLY = 0.98
"""Share of the greatest stability that counts as just as stable."""
CHAINED = 0.25
"""Share of the clustered images in one cluster from which it looks chained together."""
NEARLY_ALL = 0.9
"""Share from which it is no individual's, however stable."""


@dataclass(frozen=True)
class Point:
    """The clusters at one eps."""

    eps: float
    labels: Labels
    health: Health
    """Its stability is this point's: the mean AMI with the labels at the eps before and after."""


@dataclass(frozen=True)
class Sweep:
    """The clusters at rising eps."""

    points: tuple[Point, ...]

    @property
    def rival(self) -> Point | None:
        """A point with one large cluster that may be right all the same; None if there is none.

        A cluster of more than a quarter of the images looks chained together. But an individual may
        be in so many: then the cluster stays as eps grows, and fewer images are left out. No label
        tells these apart, so a person has to look.
        """
        suggested = self.suggestion
        stability, outliers = 0.0, 0.5
        if suggested is not None:
            stability, outliers = suggested.health.stability or 0.0, suggested.health.outlier_share
        rivals = [
            point
            for point in self.points
            if CHAINED < point.health.largest_share <= NEARLY_ALL
            and point.health.n_clusters >= 2
            and point.health.outlier_share < outliers
            and (point.health.stability or 0.0) >= max(stability, NEARLY)
        ]
        return min(rivals, key=lambda point: point.eps, default=None)

    @property
    def suggestion(self) -> Point | None:
        """The largest eps about as stable as the most stable one; None where no clusters are sound.

        Small eps leave images out and split identities; a large one chains them together, and just
        before it does, labels change quickly with eps. So of the eps at which labels hardly change,
        the largest is taken. Only sound points are asked: at least two clusters, no cluster of more
        than a quarter of the images, and at least half of the images clustered. No label is used.
        """
        sound = [point for point in self.points if _is_sound(point.health)]
        if not sound:
            return None
        greatest = max(point.health.stability or 0.0 for point in sound)
        stable = [p for p in sound if (p.health.stability or 0.0) >= NEARLY * greatest]
        return max(stable, key=lambda point: point.eps)


def sweep_eps(
    distance: sparse.csr_array,
    *,
    eps: Sequence[float] = GRID,
    min_samples: int = 4,
    algorithm: Algorithm = "dbscan",
    links: Links | None = None,
) -> Sweep:
    """Clusters one graph with each eps.

    Args:
        distance: (N, N), what `gracl.jaccard_distance` gives.
        eps: at least two values, in [0, 1); they are taken in rising order.
        min_samples, algorithm, links: as of `gracl.cluster`. HDBSCAN has no eps to sweep.

    >>> from gracl.jaccard import jaccard_distance
    >>> import torch
    >>> two_pairs = torch.nn.functional.normalize(torch.tensor([[1., 0], [1, .1], [0, 1], [.1, 1]]))
    >>> found = sweep_eps(jaccard_distance(two_pairs, k1=2, k2=1), eps=(0.2, 0.4), min_samples=2)
    >>> [point.health.n_clusters for point in found.points]
    [2, 2]
    """
    rising = sorted({float(value) for value in eps})
    if len(rising) < 2 or not 0 <= rising[0] <= rising[-1] < 1:
        raise ShapeError(f"eps are {tuple(eps)}; a sweep needs two or more values in [0, 1)")
    if algorithm == "hdbscan":
        raise ConfigError("hdbscan has no eps to sweep; choose dbscan, agglomerative or community")
    settings: dict[str, Any] = {"algorithm": algorithm, "min_samples": min_samples, "links": links}
    labels = [cluster(distance, eps=value, **settings) for value in rising]
    agreement = [adjusted_mutual_information(a, b) for a, b in pairwise(labels)]
    # An end has one neighbour, every other point two.
    stability = [float(np.mean(agreement[max(0, i - 1) : i + 1])) for i in range(len(rising))]
    return Sweep(
        tuple(
            Point(value, found, replace(health(found), stability=stable))
            for value, found, stable in zip(rising, labels, stability, strict=True)
        )
    )


def draw_sweep(found: Sweep, path: str | Path) -> None:
    """Clusters, outliers, largest cluster and stability over eps, as a picture.

    Raises:
        ConfigError: the picture cannot be drawn or written there; see `require_drawable`.
    """
    require_drawable(path)
    from matplotlib.figure import Figure

    eps = [point.eps for point in found.points]
    figure = Figure(figsize=(7, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    above.plot(eps, [point.health.n_clusters for point in found.points], "o-", color="black")
    above.set_ylabel("clusters")
    above.set_ylim(bottom=0)
    shares = {
        "stable": [point.health.stability for point in found.points],
        "outliers": [point.health.outlier_share for point in found.points],
        "largest": [point.health.largest_share for point in found.points],
    }
    for (name, values), style in zip(shares.items(), ("o-", "s--", "^:"), strict=True):
        below.plot(eps, values, style, label=name)
    below.set_ylim(0, 1.02)
    below.set_xlabel("eps")
    below.set_ylabel("share")
    below.legend()
    suggested = found.suggestion
    if suggested is not None:
        for axes in (above, below):
            axes.axvline(suggested.eps, color="tab:red", linewidth=1)
        above.set_title(f"suggested without labels: eps {suggested.eps:g}", color="tab:red")
    picture, kind = io.BytesIO(), Path(path).suffix[1:].lower()
    figure.savefig(picture, format=kind)
    put(Path(path), picture.getvalue(), RunError, "another --plot")


def require_drawable(path: str | Path) -> None:
    """Raises a `ConfigError` where a picture could not be written, before work is spent on it."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ConfigError("a plot needs matplotlib: pip install 'gracl[report]'") from error
    if Path(path).suffix.lower() not in PICTURES:
        raise ConfigError(f"a plot is {' or '.join(PICTURES)}; found {path}")
    if not Path(path).parent.is_dir():
        raise ConfigError(f"{Path(path).parent} is not a folder, so no plot can be written there")


def _is_sound(state: Health) -> bool:
    return state.n_clusters >= 2 and state.largest_share <= CHAINED and state.outlier_share <= 0.5
