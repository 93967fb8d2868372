"""Which images make a batch: some clusters, some images of each, from different cameras."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from gracl.errors import ShapeError

Indices = NDArray[np.int64]


class ClusterSampler:
    """Yields batches of P clusters x K images, as places in record order.

    * The clusters of a batch are distinct, and over an epoch each is drawn equally often, to within
      one. With fewer than P clusters a batch holds all of them.
    * The images of a cluster are distinct as long as it has K of them; a smaller cluster repeats
      its images equally often, to within one.
    * Clusters of one image, such as outliers that are classes of their own, stand together: up to K
      of them take one cluster's place. A batch of K copies each would teach the model nothing.
    * Where cameras are known, an image drawn first chooses its partners from other cameras, and
      from its own only when these run out.
    * A batch is ordered by cluster, so a BatchNorm group holds whole clusters where K divides it.
    * The draws come from a generator of its own: the same seed and epoch give the same batches.

    Args:
        labels: (N,) cluster of each image; negative takes no part.
        clusters_per_batch: P.
        images_per_cluster: K.
        steps: batches an epoch; `len` of the sampler, and what it yields.
        cameras: (N,) camera codes, negative is unknown; None where there are none.
        seed: any number of non-negative integers, such as (run's seed, epoch).

    >>> sampler = ClusterSampler(np.array([0, 0, 1, 1, -1]), clusters_per_batch=2,
    ...     images_per_cluster=2, steps=3, seed=(0,))
    >>> len(sampler), sorted(next(iter(sampler)).tolist())
    (3, [0, 1, 2, 3])
    """

    def __init__(
        self,
        labels: Indices,
        *,
        clusters_per_batch: int,
        images_per_cluster: int,
        steps: int,
        cameras: Indices | None = None,
        seed: tuple[int, ...],
    ) -> None:
        if min(clusters_per_batch, images_per_cluster, steps) < 1:
            raise ShapeError(
                f"clusters_per_batch {clusters_per_batch}, images_per_cluster "
                f"{images_per_cluster}, steps {steps}: each must be at least 1"
            )
        known = np.flatnonzero(labels >= 0)
        if not len(known):
            raise ShapeError("no image has a cluster, so there is nothing to draw batches from")
        by_label = known[np.argsort(labels[known], kind="stable")]
        borders = np.flatnonzero(np.diff(labels[by_label])) + 1
        clusters = np.split(by_label, borders)
        self.lone = np.array([c[0] for c in clusters if len(c) == 1], dtype=np.int64)
        """Images that are a cluster by themselves."""
        self.clusters = [c for c in clusters if len(c) > 1]
        self.bundles = -(-len(self.lone) // images_per_cluster)
        """Places that they take."""
        self.clusters_per_batch = min(clusters_per_batch, len(self.clusters) + self.bundles)
        self.images_per_cluster = images_per_cluster
        self.steps = steps
        self.cameras = cameras
        self.seed = seed

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Indices]:
        random = np.random.default_rng(self.seed)
        waiting = np.empty(0, dtype=np.int64)
        places = self.clusters
        if self.bundles:
            places = [*places, *np.array_split(random.permutation(self.lone), self.bundles)]
        for _ in range(self.steps):
            if len(waiting) < self.clusters_per_batch:
                # Those still waiting go to the end of the next round, so no batch draws one twice.
                order = random.permutation(len(places))
                left = np.isin(order, waiting)
                waiting = np.concatenate([waiting, order[~left], order[left]])
            drawn = waiting[: self.clusters_per_batch]
            waiting = waiting[self.clusters_per_batch :]
            yield np.concatenate([self._images(places[c], random) for c in drawn])

    def _images(self, members: Indices, random: np.random.Generator) -> Indices:
        order = random.permutation(members)
        if self.cameras is not None:
            camera = self.cameras[order]
            # The first image stays; partners of other cameras come before those of its own.
            same = (camera == camera[0]) & (camera >= 0)
            same[0] = False
            order = np.concatenate([order[~same], order[same]])
        return np.resize(order, self.images_per_cluster)
