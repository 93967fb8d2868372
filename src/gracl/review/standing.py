"""What the features say of the clusters as they stand; kept up to date while images move.

Letters: N images, C clusters, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
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
        self._own[labels == OUTLIER] = np.nan
        self._own[inside] = doubt.own_similarity(self.features[members], labels[inside], self.sums)

        means = F.normalize(self.sums)
        again = np.isin(labels, changed) | np.isin(self._nearest, changed) | (labels != self._seen)
        again |= self._nearest == OUTLIER
        rows = np.flatnonzero(again)
        self._foreign[rows], self._nearest[rows] = doubt.foreign_similarity(
            self.features[torch.from_numpy(rows)], labels[rows], means
        )
        # To all others a cluster that changed is another's, and can only have come nearer.
        nobody = np.full(len(labels), OUTLIER)
        near, which = doubt.foreign_similarity(self.features, nobody, means[changed])
        closer = ~again & (near > self._foreign)
        self._foreign[closer] = near[closer]
        self._nearest[closer] = changed.numpy()[which[closer]]
        self._judge()

    def mean(self, number: int) -> Tensor:
        """(D,) the unit mean of a cluster."""
        return F.normalize(self.sums[number], dim=0)

    def nearest_of(self, row: int) -> int:
        """The nearest cluster that an image is not in; -1 where there is none."""
        return int(self._nearest[row])

    def ordered(self, rows: Sequence[int], number: int) -> list[int]:
        """Rows of a cluster, the most typical first: those nearest to its mean."""
        at = torch.tensor(rows, dtype=torch.int64)
        similarity = self.features[at] @ self.mean(number)
        return at[similarity.argsort(descending=True, stable=True)].tolist()

    def medoid(self, number: int) -> int:
        """The most typical image of a cluster."""
        return self.ordered(self.partition.rows(number), number)[0]

    def near(self, number: int, k: int) -> list[tuple[int, float]]:
        """The k clusters whose means are nearest to a cluster's, with their similarities, falling."""
        similarity = F.normalize(self.sums) @ self.mean(number)
        similarity[number] = -torch.inf
        similarity[~self.sums.any(dim=1)] = -torch.inf
        best, which = similarity.topk(min(k, len(similarity)))
        pairs = zip(which.tolist(), best.tolist(), strict=True)
        return [(other, value) for other, value in pairs if value > -torch.inf]

    def _make_room(self) -> None:
        more = self.partition.capacity - len(self.sums)
        if more > 0:
            self.sums = torch.cat([self.sums, torch.zeros(more, self.sums.shape[1])])

    def _judge(self) -> None:
        labels = self.partition.labels
        self._seen = labels.copy()
        self.image = doubt.doubt_of(self._own, self._foreign)
        self.image[labels == OUTLIER] = 1
        self.cluster = doubt.cluster_doubts(self.image, labels, self.partition.capacity)
