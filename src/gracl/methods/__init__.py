"""Methods that learn from pseudo labels, one file each. None of them ever sees a true identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from scipy.sparse import csr_array
from torch import Tensor

from gracl.clustering import Labels
from gracl.methods.gracl import GRACL


class Method(Protocol):
    """What the training loop asks of a method."""

    def label(self, features: Tensor) -> tuple[Labels, csr_array]:
        """(N, D) features -> (N,) pseudo labels, whatever they are, and the distances used."""
        ...

    def start_epoch(self, features: Tensor) -> Labels:
        """(N, D) features of all images -> (N,) pseudo labels; rebuilds the method's memory."""
        ...

    def loss(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """(B, D) features and (B,) labels of a batch -> named scalars to be summed."""
        ...

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Moves the memory, after the optimiser's step."""
        ...


METHODS: dict[str, Callable[..., Method]] = {"gracl": GRACL}
"""A new method is one file and one line here."""
