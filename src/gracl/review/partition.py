"""Which cluster each image is in, as it stands: clusters keep their numbers while others change.

Letters: N images.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gracl.links import OUTLIER, Labels


@dataclass(frozen=True)
class Change:
    """What one decision changes, in a form that can be taken back."""

    rows: tuple[int, ...] = ()
    before: tuple[int, ...] = ()
    """The cluster of each row before."""
    after: tuple[int, ...] = ()
    """And afterwards."""
    names: Mapping[int, tuple[str | None, str | None]] = field(default_factory=dict)
    """Clusters that are named, renamed or lose their name: (before, after)."""

    def reversed(self) -> Change:
        """What takes it back."""
        back = {number: (after, before) for number, (before, after) in self.names.items()}
        return Change(self.rows, self.after, self.before, back)

    @classmethod
    def joined(cls, changes: Sequence[Change]) -> Change:
        """Changes of different rows as one."""
        return cls(
            tuple(row for change in changes for row in change.rows),
            tuple(number for change in changes for number in change.before),
            tuple(number for change in changes for number in change.after),
            {number: names for change in changes for number, names in change.names.items()},
        )

    @property
    def clusters(self) -> tuple[int, ...]:
        """Numbers of the clusters that it changes, makes or ends."""
        return tuple(sorted({*self.before, *self.after, *self.names} - {OUTLIER}))

    def to_json(self) -> dict[str, Any]:
        """As plain values; `of_json` reads them."""
        names = [[number, *both] for number, both in self.names.items()]
        return {"rows": self.rows, "before": self.before, "after": self.after, "names": names}

    @classmethod
    def of_json(cls, found: Mapping[str, Any]) -> Change:
        """Of the values that `to_json` gave."""
        names = {number: (before, after) for number, before, after in found["names"]}
        return cls(tuple(found["rows"]), tuple(found["before"]), tuple(found["after"]), names)


class Partition:
    """Labels of N images, the rows of each cluster, and the names that clusters have."""

    def __init__(self, labels: Labels, names: Mapping[int, str] | None = None) -> None:
        self.labels: Labels = np.array(labels, dtype=np.int64)
        self.names = dict(names or {})
        self._rows: dict[int, set[int]] = {}
        for row, number in enumerate(self.labels.tolist()):
            self._rows.setdefault(number, set()).add(row)
        self._rows.setdefault(OUTLIER, set())
        self._next = int(self.labels.max(initial=OUTLIER)) + 1

    @property
    def numbers(self) -> list[int]:
        """Of the clusters that there are, rising."""
        return sorted(number for number in self._rows if number != OUTLIER)

    @property
    def capacity(self) -> int:
        """One more than the greatest number that a cluster has or had."""
        return self._next

    def __contains__(self, number: object) -> bool:
        return number != OUTLIER and number in self._rows

    def rows(self, number: int) -> list[int]:
        """The rows of a cluster, rising; those of none for `OUTLIER`."""
        return sorted(self._rows.get(number, ()))

    def new_number(self) -> int:
        """One that no cluster has or had."""
        return self._next

    def named(self, name: str) -> int | None:
        """The cluster of that name."""
        return next((number for number, known in self.names.items() if known == name), None)

    def moving(
        self,
        rows: Iterable[int],
        number: int,
        names: Mapping[int, str | None] | None = None,
    ) -> Change:
        """The change that puts these rows into a cluster, and gives clusters other names.

        A cluster that it empties loses its name.
        """
        moved = [row for row in rows if self.labels[row] != number]
        before = [int(self.labels[row]) for row in moved]
        wanted = dict(names or {})
        for emptied in set(before) - {OUTLIER}:
            if before.count(emptied) == len(self._rows[emptied]) and emptied not in wanted:
                wanted[emptied] = None
        renamed = {
            cluster: (self.names.get(cluster), name)
            for cluster, name in wanted.items()
            if self.names.get(cluster) != name
        }
        return Change(tuple(moved), tuple(before), (number,) * len(moved), renamed)

    def apply(self, change: Change) -> None:
        """Makes a change."""
        for row, before, after in zip(change.rows, change.before, change.after, strict=True):
            held = self._rows[before]
            held.remove(row)
            if not held and before != OUTLIER:
                del self._rows[before]
            self._rows.setdefault(after, set()).add(row)
            self.labels[row] = after
            self._next = max(self._next, after + 1)
        for number, (_, name) in change.names.items():
            if name is None:
                self.names.pop(number, None)
            else:
                self.names[number] = name
