"""What the training loop and a method say to each other.

Letters: N images, D dimensions, B images of a batch, P parts of an image.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from torch import Tensor

from gracl import neighbors
from gracl.clustering import Labels
from gracl.links import Links

Stage = Callable[[str], AbstractContextManager[object]]
Need = Literal["cameras", "classes", "parts", "teacher"]


@dataclass(frozen=True)
class Known:
    """What a method is told of the N images, besides their features."""

    links: Links | None = None
    """Pairs that must, or cannot, share a cluster."""
    cameras: NDArray[np.int64] | None = None
    """(N,) camera of each image, -1 where it is not known; None where none is."""
    classes: NDArray[np.int64] | None = None
    """(N,) for the supervised bound alone, see `Method.needs`; -1 takes no part."""
    memory: int = neighbors.MEMORY
    """Bytes that one block of similarities may take."""


@dataclass(frozen=True)
class Batch:
    """A batch, or one BatchNorm group of it: rows of one length."""

    features: Tensor
    """(B, D) unit rows; with gradient in `loss`, without in `update`."""
    labels: Tensor
    """(B,) their clusters in this epoch, each >= 0."""
    rows: Tensor = field(default_factory=lambda: Tensor().long())
    """(B,) which of the N images they are."""
    parts: Tensor | None = None
    """(B, P, D) unit rows of the parts of each image, for a method that needs parts."""
    teacher: Tensor | None = None
    """(B, D) unit rows by the teacher, of the same images changed in another way and without erasing,
    without gradient; for a method that needs a teacher, and in `loss` alone."""
    rate: float = 1.0
    """Share of its height that warm-up and schedule give the learning rate at this step; in `update`,
    for what a method moves by a rate of its own."""

    def detach(self) -> Batch:
        """The same without gradient, as float32."""
        parts = None if self.parts is None else self.parts.detach().float()
        return replace(self, features=self.features.detach().float(), parts=parts)


class Method(Protocol):
    """What the training loop asks of a method."""

    needs: ClassVar[frozenset[Need]]
    """What it cannot do without: known cameras, parts of each image, a teacher's features, or, for the
    supervised bound alone, the classes that all others must find."""
    banks: dict[str, Tensor]
    """The memory: read in `loss`, moved in `update`, rebuilt in `start_epoch`, else left alone."""

    def __init__(self, known: Known | None = None, **settings: Any) -> None: ...

    def label(self, features: Tensor) -> tuple[Labels, csr_array]:
        """(N, D) features -> (N,) pseudo labels, whatever they are, and the distances used."""
        ...

    def needed_memory(self, n: int, dimensions: int, *, parts: int, group: int) -> int:
        """Bytes that it takes beside features, neighbours and distances, at its widest moment.

        Args:
            n, dimensions: of the features.
            parts: P, of a method that needs parts.
            group: images of a BatchNorm group.
        """
        ...

    def remembered(self) -> Tensor | None:
        """(N, D) unit rows that the next epoch starts from; None where it takes features of all images.

        A method that remembers every image needs features of them in its first epoch alone.
        """
        ...

    def start_epoch(
        self, features: Tensor, stage: Stage = nullcontext, *, parts: Tensor | None = None
    ) -> Labels:
        """(N, D) features, or what was `remembered` -> (N,) pseudo labels; rebuilds the memory.

        Each stage runs in the context that `stage` gives for its name. `parts` (N, P, D) are there for
        a method that needs them.
        """
        ...

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Named scalars to be summed, each a mean over the rows of one BatchNorm group.

        A batch comes in groups, so what a row adds may depend on the memory and on the rows of its
        group, but not on the rest of the batch. A group holds whole clusters where its size is a
        multiple of `sampler.images_per_cluster`; else a cluster may be cut, down to one image.
        """
        ...

    def update(self, batch: Batch) -> None:
        """Moves the memory by the whole batch, after the optimiser's step."""
        ...

    def state(self) -> dict[str, Tensor]:
        """What the next epoch needs of this one besides the weights; empty for most."""
        ...

    def load(self, state: dict[str, Tensor]) -> None:
        """Continues from a `state`."""
        ...
