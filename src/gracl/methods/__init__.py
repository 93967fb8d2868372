"""Methods that learn from pseudo labels, one file each. None of them ever sees a true identity."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Protocol

from scipy.sparse import csr_array
from torch import Tensor

from gracl.clustering import Labels
from gracl.methods.gracl import GRACL, Stage


class Method(Protocol):
    """What the training loop asks of a method."""

    banks: dict[str, Tensor]
    """The memory: read in `loss`, moved in `update`, rebuilt in `start_epoch`, else left alone."""

    def label(self, features: Tensor) -> tuple[Labels, csr_array]:
        """(N, D) features -> (N,) pseudo labels, whatever they are, and the distances used."""
        ...

    def start_epoch(self, features: Tensor, stage: Stage = nullcontext) -> Labels:
        """(N, D) features of all images -> (N,) pseudo labels; rebuilds the method's memory.

        Each stage runs in the context that `stage` gives for its name.
        """
        ...

    def loss(self, features: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """(B, D) features and (B,) labels -> named scalars to be summed, each a mean over the rows.

        A batch comes in parts, so what a row adds may depend on the memory but not on other rows.
        """
        ...

    def update(self, features: Tensor, labels: Tensor) -> None:
        """Moves the memory by the whole batch, after the optimiser's step."""
        ...


METHODS: dict[str, Callable[..., Method]] = {"gracl": GRACL}
"""A new method is one file and one line here."""
