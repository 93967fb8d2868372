"""What each kind of decision means: which images change cluster, and what it says of pairs of them.

A draft is made from the clusters as they stand, and changes nothing. Of pairs a decision says no more
than the person has: two clusters that are merged are linked by their most typical images, and whatever
else is in them may still be parted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray

from gracl.errors import Contradiction, ReviewError
from gracl.links import OUTLIER
from gracl.review.ledger import Kind
from gracl.review.partition import Change
from gracl.review.questions import Question
from gracl.review.standing import Standing

TYPICAL = 32
"""Images of a cluster, the most typical ones, that an ejected image is said to be different from."""
UNNAMED = re.compile(r"cluster[-_]\d+")
"""How tables call a cluster that has no name."""

Said = list[tuple[Kind, int, int]]
"""Pairs of rows that a decision speaks of."""


@dataclass(frozen=True)
class Draft:
    """A decision before it is made."""

    kind: str
    text: str
    """In words."""
    change: Change = field(default_factory=Change)
    said: Said = field(default_factory=list)


class Drafts:
    """Makes drafts of decisions about the clusters as they stand.

    Each method raises ReviewError where the decision would mean nothing, and Contradiction where
    clusters of two names would become one, unless that is to be overruled.
    """

    def __init__(self, standing: Standing, path_of: Callable[[int], str]) -> None:
        """Reads clusters and features; `path_of` names an image by its row."""
        self.standing, self.partition = standing, standing.partition
        self.path_of = path_of

    def merge(self, numbers: Sequence[int], *, overrule: bool) -> Draft:
        """Clusters are one individual; they become the first of them."""
        numbers = list(dict.fromkeys(numbers))
        if len(numbers) < 2:
            raise ReviewError("a merge needs two clusters or more")
        self.require_clusters(numbers)
        first, *others = numbers
        medoid = self.standing.medoid
        said: Said = [("must", medoid(first), medoid(other)) for other in others]
        rows = [row for other in others for row in self.partition.rows(other)]
        names = self._joined_names(numbers, overrule)
        text = f"merged clusters {_listed(self._called(number) for number in numbers)}"
        return Draft("merge", text, self.partition.moving(rows, first, names), said)

    def split(self, rows: Sequence[int]) -> Draft:
        """Images leave a cluster for one of their own: they are not the individual of its rest.

        That they are one individual is said only where they are gathered, of several clusters or none.
        """
        rows = self.require_rows(rows)
        number, sources = self.partition.new_number(), self._sources(rows)
        rest = {other for source in sources - {OUTLIER} for other in self.partition.rows(source)}
        rest -= set(rows)
        if not rest and len(sources) == 1 and OUTLIER not in sources:
            raise ReviewError("these images are a whole cluster already; choose a part of it")
        is_gathered = len(sources) > 1 or OUTLIER in sources
        said: Said = [("must", a, b) for a, b in pairwise(rows)] if is_gathered else []
        said += [("cannot", rows[0], other) for other in sorted(rest)]
        if not is_gathered:
            typical = self.standing.ordered(sorted(rest))[0]
            said += [("cannot", row, typical) for row in rows[1:]]
        text = f"split {_count(rows)} from {self._origin(rows)} into cluster {number}"
        return Draft("split", text, self.partition.moving(rows, number), said)

    def eject(self, rows: Sequence[int]) -> Draft:
        """Images do not belong to their clusters, and it is not said where they belong."""
        rows = self.require_rows(rows)
        inside = [row for row in rows if self.partition.labels[row] != OUTLIER]
        if not inside:
            raise ReviewError("these images are in no cluster already")
        text = f"ejected {_count(inside)} from {self._origin(inside)}"
        change = self.partition.moving(inside, OUTLIER)
        return Draft("eject", text, change, self._parted(inside, TYPICAL))

    def move(self, rows: Sequence[int], number: int) -> Draft:
        """Images are the individual of another cluster, and not of their own."""
        rows = self.require_rows(rows)
        self.require_clusters([number])
        moved = [row for row in rows if self.partition.labels[row] != number]
        if not moved:
            raise ReviewError(f"these images are in {self.title(number)} already")
        target = self.standing.medoid(number)
        said: Said = [("must", row, target) for row in moved]
        said += self._parted(moved, 1)
        text = f"moved {_count(moved)} from {self._origin(moved)} to {self.title(number)}"
        return Draft("move", text, self.partition.moving(moved, number), said)

    def confirm(self, number: int) -> Draft:
        """All images of a cluster are one individual."""
        self.require_clusters([number])
        return Draft("confirm", f"confirmed {self.title(number)}", said=self._all_one(number))

    def name(self, number: int, name: str | None) -> Draft:
        """Who a cluster is, which confirms it; a cluster of that name becomes part of it."""
        self.require_clusters([number])
        before, name = self.partition.names.get(number), (name or "").strip() or None
        if name == before:
            raise ReviewError(
                f"cluster {number} has no name already"
                if name is None
                else f"cluster {number} is called {name} already"
            )
        if name is None:
            change = self.partition.moving([], number, {number: None})
            return Draft("name", f"took the name {before} from cluster {number}", change)
        said = self._all_one(number)
        text, other = f"named cluster {number} {name}", self.partition.named(name)
        if other is None:
            return Draft("name", text, self.partition.moving([], number, {number: name}), said)
        said.append(("must", self.standing.medoid(number), self.standing.medoid(other)))
        rows = self.partition.rows(other)
        change = self.partition.moving(rows, number, {number: name, other: None})
        return Draft("name", f"{text}, and so joined it with cluster {other}", change, said)

    def same(self, a: int, b: int, *, overrule: bool) -> Draft:
        """Two images are one individual; their clusters become one, the first image's."""
        self._require_pair(a, b)
        label, other = (int(self.partition.labels[row]) for row in (a, b))
        names = None
        if label == other == OUTLIER:
            rows, number = [a, b], self.partition.new_number()
        elif OUTLIER in (label, other):
            rows, number = ([a], other) if label == OUTLIER else ([b], label)
        elif label == other:
            rows, number = [], label
        else:
            rows, number = self.partition.rows(other), label
            names = self._joined_names([label, other], overrule)
        text = f"said that {self.path_of(a)} and {self.path_of(b)} are the same"
        if OUTLIER not in (label, other) and label != other:
            text += f", and so joined {self.title(label)} with {self.title(other)}"
        return Draft("same", text, self.partition.moving(rows, number, names), [("must", a, b)])

    def same_alone(self, a: int, b: int, *, groups: NDArray[np.int64]) -> list[Draft]:
        """As `same`, but of their clusters only the images linked to the two come together.

        For clusters that cannot be joined as a whole, since other images of them were said to be
        different. In the first image's cluster, in the second's, or in one of their own.
        """
        whole = self.same(a, b, overrule=True)
        linked = np.flatnonzero((groups == groups[a]) | (groups == groups[b])).tolist()
        targets = [int(self.partition.labels[row]) for row in (a, b)]
        targets = [*dict.fromkeys(targets), self.partition.new_number()]
        changes = [self.partition.moving(linked, target) for target in targets if target != OUTLIER]
        text = f"said that {self.path_of(a)} and {self.path_of(b)} are the same"
        return [replace(whole, change=change, text=text) for change in changes]

    def different(
        self, a: int, b: int, *, question: Question | None, groups: NDArray[np.int64]
    ) -> Draft:
        """Two images are two individuals; a cluster that holds both is parted."""
        self._require_pair(a, b)
        rows: Sequence[int] = ()
        label = int(self.partition.labels[a])
        if label == self.partition.labels[b] and label != OUTLIER:
            halved = question is not None and question.together
            rows = question.second_rows if halved and question else self._side_of(b, a, groups)
        number = self.partition.new_number()
        change = self.partition.moving(rows, number) if rows else Change()
        text = f"said that {self.path_of(a)} and {self.path_of(b)} are different"
        if rows:
            text += f", and so split {_count(rows)} from {self.title(label)} into cluster {number}"
        return Draft("different", text, change, [("cannot", a, b)])

    def assign(self, identities: Mapping[int, str], text: str) -> Draft:
        """Images by row and whose they are: those of one individual become one cluster.

        A name that no cluster has goes to the cluster that holds most of its images, where that has no
        name and no images of another; else to a new one.
        """
        self.require_rows(list(identities))
        wanted: dict[str, list[int]] = {}
        for row, name in sorted(identities.items()):
            wanted.setdefault(name, []).append(row)
        taken = Counter(int(self.partition.labels[row]) for row in identities)
        fresh = self.partition.new_number()
        changes: list[Change] = []
        said: Said = []
        for name, rows in wanted.items():
            target = self.partition.named(name)
            if target is None:
                most, count = Counter(self.partition.labels[rows].tolist()).most_common(1)[0]
                free = most != OUTLIER and most not in self.partition.names and taken[most] == count
                target, fresh = (most, fresh) if free else (fresh, fresh + 1)
            names = {} if UNNAMED.fullmatch(name) else {target: name}
            changes.append(self.partition.moving(rows, target, names))
            said += [("must", a, b) for a, b in pairwise(rows)]
        return Draft("import", text, Change.joined(changes), said)

    # -- small parts -------------------------------------------------------------------------------

    def title(self, number: int) -> str:
        """A cluster in words."""
        return f"cluster {self._called(number)}"

    def require_clusters(self, numbers: Iterable[int]) -> None:
        """Refuses a number that no cluster has."""
        for number in numbers:
            if number not in self.partition:
                raise ReviewError(f"there is no cluster {number} (any more); look at the list again")

    def require_rows(self, rows: Sequence[int]) -> list[int]:
        """The rows, each once, in order; refuses none, and rows that are not there."""
        n = len(self.partition.labels)
        outside = [row for row in rows if not 0 <= row < n]
        if outside or not len(rows):
            found = f"row {outside[0]}" if outside else "no image"
            raise ReviewError(f"{found} was chosen; there are {n} images, in rows counted from 0")
        return list(dict.fromkeys(rows))

    def _called(self, number: int) -> str:
        name = self.partition.names.get(number)
        return str(number) if name is None else f"{number} ({name})"

    def _require_pair(self, a: int, b: int) -> None:
        self.require_rows([a, b])
        if a == b:
            raise ReviewError("an image was compared with itself; choose two")

    def _all_one(self, number: int) -> Said:
        """Of an image that is alone it is said with itself, so that it was spoken of too."""
        rows = self.partition.rows(number)
        return [("must", a, b) for a, b in pairwise(rows if len(rows) > 1 else rows * 2)]

    def _joined_names(self, numbers: Sequence[int], overrule: bool) -> dict[int, str | None] | None:
        """The name that the first of these clusters has once they are one."""
        known = [self.partition.names[n] for n in numbers if n in self.partition.names]
        if not known:
            return None
        if len(known) > 1 and not overrule:
            raise Contradiction(
                f"{_listed(known)} are different names, so these clusters are different individuals. "
                f"Take one name away first, or overrule it, which keeps {known[0]}"
            )
        return {numbers[0]: known[0], **dict.fromkeys(numbers[1:])}

    def _parted(self, rows: Sequence[int], most: int) -> Said:
        """Images are not the individual of the clusters that they leave."""
        said: Said = []
        for source in sorted(self._sources(rows) - {OUTLIER}):
            leaving = [row for row in rows if self.partition.labels[row] == source]
            rest = sorted(set(self.partition.rows(source)) - set(leaving))
            typical = self.standing.ordered(rest)[:most] if rest else []
            said += [("cannot", row, other) for row in leaving for other in typical]
        return said

    def _side_of(self, leaver: int, stayer: int, groups: NDArray[np.int64]) -> list[int]:
        """Rows of their cluster that go with one of two images; linked ones as a whole."""
        rows = np.array(self.partition.rows(int(self.partition.labels[leaver])))
        features = self.standing.features
        nearer = features[torch.from_numpy(rows)] @ (features[leaver] - features[stayer])
        _, group = np.unique(groups[rows], return_inverse=True)
        goes = np.bincount(group, weights=nearer.double().numpy())[group] > 0
        # Where both are of one group, which is then overruled, the image goes alone.
        linked = groups[leaver] == groups[stayer]
        goes[groups[rows] == groups[stayer]] = False
        goes[rows == leaver if linked else groups[rows] == groups[leaver]] = True
        return [int(row) for row in rows[goes]]

    def _sources(self, rows: Iterable[int]) -> set[int]:
        return {int(self.partition.labels[row]) for row in rows}

    def _origin(self, rows: Sequence[int]) -> str:
        sources = sorted(self._sources(rows))
        return _listed("no cluster" if n == OUTLIER else self.title(n) for n in sources)


def _count(rows: Sequence[int]) -> str:
    return "1 image" if len(rows) == 1 else f"{len(rows)} images"


def _listed(words: Iterable[object]) -> str:
    found = [str(word) for word in words]
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} and {found[-1]}"
