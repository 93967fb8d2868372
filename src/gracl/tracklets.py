"""Set-to-set evaluation: each sequence of images as one row, by the mean of their features.

What comes out are records and features like any others, so the ordinary protocols apply. It is how
MARS and other video sets are scored (Zheng et al., "MARS: A Video Benchmark for Large-Scale Person
Re-identification", ECCV 2016: average pooling).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gracl.data.records import Field, Record, Records
from gracl.errors import DataError, ShapeError


@dataclass(frozen=True)
class Tracklets:
    """Sequences of images, in the order of their first image."""

    records: Records
    """One a sequence: its first image, with what is known of the sequence."""
    members: NDArray[np.int64]
    """(N,) the sequence of each image."""

    def mean(self, features: Tensor) -> Tensor:
        """The mean of each sequence's features, made unit length again.

        Args:
            features: (N, D) unit rows of all images.

        Returns:
            (T, D) a row a sequence.

        >>> from pathlib import Path
        >>> images = [Record(Path(name), sequence="t1") for name in "ab"]
        >>> group(Records(tuple(images))).mean(torch.eye(2))
        tensor([[0.7071, 0.7071]])
        """
        if features.ndim != 2 or len(features) != len(self.members):
            raise ShapeError(
                f"features of shape {tuple(features.shape)}; expected ({len(self.members)}, D)"
            )
        sums = features.new_zeros(len(self.records), features.shape[1])
        rows = torch.from_numpy(self.members).to(features.device)
        # The sum points where the mean does; its length goes anyway.
        return F.normalize(sums.index_add_(0, rows, features))


def group(records: Records) -> Tracklets:
    """The sequences that images belong to; an image of no sequence stands for itself.

    What is known of any image of a sequence is known of it. A date is kept where there is only one.

    Raises:
        DataError: a sequence holds images of two identities or cameras; it is named.

    >>> from pathlib import Path
    >>> names = {"a": "t1", "b": None, "c": "t1"}
    >>> found = group(Records(tuple(Record(Path(n), sequence=s) for n, s in names.items())))
    >>> len(found.records), found.members.tolist()
    (2, [0, 1, 0])
    """
    numbers: dict[str | int, int] = {}
    members = np.array(
        [numbers.setdefault(r.sequence or row, len(numbers)) for row, r in enumerate(records)],
        dtype=np.int64,
    )
    of_sequence: list[list[int]] = [[] for _ in numbers]
    for row, number in enumerate(members):
        of_sequence[number].append(row)

    return Tracklets(Records(tuple(_merge(records.take(rows)) for rows in of_sequence)), members)


def _merge(images: Records) -> Record:
    """The first image, with what is known of all."""
    dates = _known(images, "date")
    return replace(
        images[0],
        identity=_only(images, "identity"),
        camera=_only(images, "camera"),
        date=dates[0] if len(dates) == 1 else None,
    )


def _known(images: Records, name: Field) -> list[str]:
    return sorted({value for value in images.values(name) if value is not None})


def _only(images: Records, name: Field) -> str | None:
    found = _known(images, name)
    if len(found) > 1:
        raise DataError(
            f"sequence '{images[0].sequence}' holds images of {name} {', '.join(found[:5])}; expected "
            "one individual seen by one camera. Give each sequence a name of its own, such as "
            "identity-camera-number"
        )
    return found[0] if found else None
