"""What the features say of the clusters as they stand; kept up to date while images move.

Letters: N images, C clusters, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gracl import doubt
from gracl.links import OUTLIER
from gracl.review.partition import Partition


class Standing:
    """Doubts of images and clusters, and which clusters are near; the same as `gracl.doubt` gives."""

    def __init__(self, features: Tensor, partition: Partition) -> None:
        """Looks at all images once; afterwards `refresh` looks at what changed.

        Args:
            features: (N, D) unit rows, on the CPU.
            partition: the clusters; read, never changed.
        """
        self.features, self.partition = features, partition
        labels = partition.labels
        self.sums = doubt.cluster_sums(features, labels, partition.capacity)
        """(C, D) of the rows of each cluster; zeros where there is none of that number."""
        self.means = F.normalize(self.sums)
        """(C, D) unit rows."""
        self._typical = self._to_own_mean(np.arange(len(labels)))
        self._own = doubt.own_similarity(features, labels, self.sums)
        self._foreign, self._nearest = doubt.foreign_similarity(
            features, labels, F.normalize(self.sums)
        )
        self._judge()

    def refresh(self, numbers: Sequence[int]) -> None:
        """Looks again at clusters that changed, and at the images that this may concern."""
        self._make_room()
        labels, changed = self.partition.labels, torch.tensor(sorted(numbers), dtype=torch.int64)
        inside = np.flatnonzero(np.isin(labels, changed))
        members = torch.from_numpy(inside)
        self.sums[changed] = 0
        self.sums.index_add_(0, torch.from_numpy(labels[inside]), self.features[members])
        self.means[changed] = F.normalize(self.sums[changed])
        self._typical[inside] = self._to_own_mean(inside)
        self._own[labels == OUTLIER] = np.nan
        self._own[inside] = doubt.own_similarity(self.features[members], labels[inside], self.sums)

        again = np.isin(labels, changed) | np.isin(self._nearest, changed) | (labels != self._seen)
        again |= self._nearest == OUTLIER
        rows = np.flatnonzero(again)
        self._foreign[rows], self._nearest[rows] = doubt.foreign_similarity(
            self.features[torch.from_numpy(rows)], labels[rows], self.means
        )
        # To all others a cluster that changed is another's, and can only have come nearer.
        nobody = np.full(len(labels), OUTLIER)
        near, which = doubt.foreign_similarity(self.features, nobody, self.means[changed])
        closer = ~again & (near > self._foreign)
        self._foreign[closer] = near[closer]
        self._nearest[closer] = changed.numpy()[which[closer]]
        self._judge()

    def nearest_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The nearest cluster that each of these images is not in; -1 where there is none."""
        return self._nearest[rows]

    def ordered(self, rows: Sequence[int]) -> list[int]:
        """Rows of one cluster, the most typical first: those nearest to its mean, itself included."""
        at = np.asarray(rows)
        found: list[int] = at[np.argsort(-self._typical[at], kind="stable")].tolist()
        return found

    def all_ordered(self) -> dict[int, list[int]]:
        """`ordered` rows of every cluster, by its number."""
        labels = self.partition.labels
        order = np.lexsort((-self._typical, labels))
        numbers, starts = np.unique(labels[order], return_index=True)
        parts = np.split(order, starts[1:])
        found = zip(numbers.tolist(), parts, strict=True)
        return {number: rows.tolist() for number, rows in found if number != OUTLIER}

    def medoid(self, number: int) -> int:
        """The most typical image of a cluster."""
        return self.ordered(self.partition.rows(number))[0]

    def near(self, number: int, k: int) -> list[tuple[int, float]]:
        """The k clusters whose means are nearest to a cluster's, with their similarities, falling."""
        ((numbers, similarities),) = self.near_each([number], k)
        return list(zip(numbers.tolist(), similarities.tolist(), strict=True))

    def near_each(
        self, numbers: Sequence[int], k: int
    ) -> list[tuple[NDArray[np.int64], NDArray[np.float32]]]:
        """The same of several clusters: numbers and similarities of each, as arrays."""
        gone = ~self.sums.any(dim=1)
        found = []
        for start in range(0, len(numbers), doubt.BLOCK):
            part = torch.tensor(numbers[start : start + doubt.BLOCK], dtype=torch.int64)
            similarity = self.means[part] @ self.means.T
            similarity[:, gone] = -torch.inf
            similarity[torch.arange(len(part)), part] = -torch.inf
            best, which = similarity.topk(min(k, similarity.shape[1]))
            there = torch.isfinite(best).sum(dim=1).tolist()
            pairs = zip(which.numpy(), best.numpy(), there, strict=True)
            found += [(others[:n], values[:n]) for others, values, n in pairs]
        return found

    def _to_own_mean(self, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """Cosine of images and the mean of their cluster; -1 of those in none."""
        found = np.full(len(rows), -1, dtype=np.float32)
        labels = self.partition.labels[rows]
        inside = np.flatnonzero(labels != OUTLIER)
        for part in np.split(inside, range(doubt.BLOCK, len(inside), doubt.BLOCK)):
            images = self.features[torch.from_numpy(rows[part])]
            found[part] = (images * self.means[torch.from_numpy(labels[part])]).sum(1).numpy()
        return found

    def _make_room(self) -> None:
        more = self.partition.capacity - len(self.sums)
        if more > 0:
            room = torch.zeros(more, self.sums.shape[1])
            self.sums, self.means = torch.cat([self.sums, room]), torch.cat([self.means, room])

    def _judge(self) -> None:
        labels = self.partition.labels
        self._seen = labels.copy()
        self.image = doubt.doubt_of(self._own, self._foreign)
        self.image[labels == OUTLIER] = 1
        self.cluster = doubt.cluster_doubts(self.image, labels, self.partition.capacity)
