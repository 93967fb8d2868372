"""How an epoch starts, for all methods: neighbours, Jaccard distances, clusters, memory.

Letters: N images, D dimensions, P parts of an image.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import ClassVar, get_args

import torch
from scipy import sparse
from torch import Tensor

from gracl import distributed, neighbors
from gracl.clustering import Algorithm, Labels, cluster, require_clusters
from gracl.errors import ConfigError, did_you_mean
from gracl.jaccard import jaccard_from_neighbors
from gracl.methods.protocol import Batch, Known, Need, Stage
from gracl.neighbors import Neighbors


class PseudoLabels:
    """What a method that clusters is made on: it adds `build_memory`, `loss` and `update`.

    Args:
        known: of the images, besides their features.
        k1, k2: of the Jaccard distance, *the image itself included*.
        eps, min_samples: of the clustering.
        clustering: how distances become clusters (see `gracl.cluster`).
        search: how neighbours are found (see `gracl.neighbors.search`).
    """

    needs: ClassVar[frozenset[Need]] = frozenset()

    def __init__(
        self,
        known: Known | None = None,
        *,
        k1: int = 30,
        k2: int = 6,
        eps: float = 0.6,
        min_samples: int = 4,
        clustering: Algorithm = "dbscan",
        search: neighbors.Algorithm = "auto",
    ) -> None:
        require_choice(clustering, Algorithm)
        require_choice(search, neighbors.Algorithm)
        self.known = known or Known()
        self.k1, self.k2, self.eps, self.min_samples = k1, k2, eps, min_samples
        self.clustering, self.search = clustering, search
        self.banks: dict[str, Tensor] = {}

    def needed_memory(self, n: int, dimensions: int, *, parts: int, group: int) -> int:  # noqa: ARG002
        """0 bytes: some rows a cluster are little beside the features of its images."""
        return 0

    def remembered(self) -> Tensor | None:
        """None: each epoch starts from features of all images."""
        return None

    def start_epoch(
        self, features: Tensor, stage: Stage = nullcontext, *, parts: Tensor | None = None
    ) -> Labels:
        """Clusters the features of all images and rebuilds the memory.

        Args:
            features: (N, D), in record order.
            stage: called with the name of each stage, gives the context that it runs in: for clocks.
            parts: (N, P, D) features of the parts, where the method needs them.

        Returns:
            (N,) pseudo labels; `OUTLIER` takes no part in this epoch.

        Raises:
            ClusterCollapse: fewer than two clusters, so there is nothing to contrast.
        """
        features = features.float()
        with stage("search"):
            found = self.find_neighbors(features)
        with stage("graph"):
            distance = self.measure(features, found)
        with stage("cluster"):
            labels = self.choose(self.cluster(distance), distance)
        with stage("proxies"):
            banks = self.build_memory(features, labels, distance=distance, found=found, parts=parts)
            self.banks = {name: distributed.of_first(bank) for name, bank in banks.items()}
        return labels

    def find_neighbors(self, features: Tensor) -> Neighbors:
        """The neighbours of all images that the Jaccard distance needs."""
        k = max(self.k1, self.k2)
        return neighbors.search(features, k, algorithm=self.search, memory=self.known.memory)

    def measure(self, features: Tensor, found: Neighbors) -> sparse.csr_array:
        """(N, N) Jaccard distances below 1."""
        return jaccard_from_neighbors(features, found, k1=self.k1, k2=self.k2)

    def cluster(self, distance: sparse.csr_array, *, eps: float | None = None) -> Labels:
        """(N,) pseudo labels, which may all be outliers; with another `eps` if one is given."""
        labels = cluster(
            distance,
            algorithm=self.clustering,
            eps=self.eps if eps is None else eps,
            min_samples=self.min_samples,
            links=self.known.links,
        )
        # Sums of another device may differ in their last digit, and a cluster may hang on it.
        return distributed.of_first(torch.from_numpy(labels)).numpy()

    def choose(self, labels: Labels, distance: sparse.csr_array) -> Labels:  # noqa: ARG002
        """What an epoch trains on: the clusters as they are, if there are two."""
        return require_clusters(labels)

    def label(self, features: Tensor) -> tuple[Labels, sparse.csr_array]:
        """(N,) pseudo labels, which may all be outliers, and the Jaccard distances they rest on."""
        features = features.float()
        distance = self.measure(features, self.find_neighbors(features))
        return self.cluster(distance), distance

    def build_memory(
        self,
        features: Tensor,
        labels: Labels,
        *,
        distance: sparse.csr_array,
        found: Neighbors,
        parts: Tensor | None,
    ) -> dict[str, Tensor]:
        """The banks of an epoch, each with a row for whatever the method keeps."""
        raise NotImplementedError

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalars to be summed, each a mean over the rows."""
        raise NotImplementedError

    def update(self, batch: Batch) -> None:
        """Moves the memory by a whole batch."""
        raise NotImplementedError

    def state(self) -> dict[str, Tensor]:
        """Nothing: all that an epoch keeps is rebuilt by the next."""
        return {}

    def load(self, state: dict[str, Tensor]) -> None:
        """Continues from a `state`."""


def require_choice(value: str, kind: object) -> None:
    """Refuses a value that is not one of a `Literal`'s."""
    if value not in get_args(kind):
        raise ConfigError(f"'{value}' is no choice; {did_you_mean(value, get_args(kind))}")
