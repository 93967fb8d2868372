"""Which pair of images to ask a person about next: the answer that is expected to mend the most.

Two groups of images stand for each question, one image of each is shown:

* two clusters that are near each other. If the two images are the same individual, the clusters become
  one; that mends the relation of |X| |Y| pairs of images.
* the two halves of one cluster, cut where it hangs together least. If the two images are different
  individuals, the cluster is parted there, and that mends as many.

How likely "the same" is follows from the mean similarity of X and Y by a logistic curve. It starts from
what the clusters themselves claim (halves of one cluster are the same, nearest clusters are not), which
weighs as much as a few answers, and learns from each answer. The expected gain of a question is the
number of pairs times the probability that the answer is not what the clusters say now.

Letters: N images, C clusters, D feature dimensions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage
from torch import Tensor

from gracl.links import OUTLIER
from gracl.review.standing import Standing

NEAR = 8
"""Nearest clusters that a cluster may be asked about."""
SAMPLE = 400
"""Images of a cluster that are looked at, at most, to find where it hangs together least."""
BELIEF = 4.0
"""Answers that the clusters' own claims weigh as much as, on each side."""
FLAT = 1e-2
"""Holds the curve's steepness down where all evidence agrees."""

BLOCK = 4096
"""Images that are in no cluster, looked at together."""

Numbers = NDArray[np.int64]
Values = NDArray[np.float64]
Answer = tuple[float, bool]
"""Mean similarity of two groups, and whether a person said that they are the same individual."""


@dataclass(frozen=True)
class Question:
    """Two images, and the groups that they stand for."""

    first: int
    second: int
    """Rows of the two images: the most typical of their groups."""
    first_rows: tuple[int, ...]
    second_rows: tuple[int, ...]
    """Rows of the groups, the most typical first."""
    together: bool
    """Whether they are in one cluster now."""
    similarity: float
    """Mean cosine of the two groups."""
    likely: float
    """Probability that they are the same individual."""

    @property
    def gain(self) -> float:
        """Expected number of pairs of images whose relation the answer mends."""
        surprise = 1 - self.likely if self.together else self.likely
        return surprise * len(self.first_rows) * len(self.second_rows)


@dataclass(frozen=True)
class _Cut:
    """The two halves of a cluster."""

    first: tuple[int, ...]
    second: tuple[int, ...]
    similarity: float


@dataclass(frozen=True)
class _Candidates:
    """Pairs of groups that may be asked about; K of them."""

    first: Numbers
    """(K,) a cluster's number, or -1 - row for an image that is in none."""
    second: Numbers
    """(K,) the other cluster's; the same number where they are the halves of one cluster."""
    pairs: Values
    """(K,) how many pairs of images there are between them."""
    similarity: Values
    """(K,) mean cosine."""

    @property
    def together(self) -> NDArray[np.bool_]:
        """(K,) whether they are halves of one cluster."""
        found: NDArray[np.bool_] = self.first == self.second
        return found

    def __add__(self, other: _Candidates) -> _Candidates:
        parts = zip(self._columns, other._columns, strict=True)
        return _Candidates(*(np.concatenate(both) for both in parts))

    def kept(self, which: NDArray[np.bool_]) -> _Candidates:
        """Some of them."""
        return _Candidates(*(column[which] for column in self._columns))

    @property
    def _columns(self) -> tuple[NDArray[Any], ...]:
        return self.first, self.second, self.pairs, self.similarity


class Questions:
    """Candidates for questions about the clusters as they stand; what did not change is kept."""

    def __init__(self, standing: Standing) -> None:
        self.standing, self.partition = standing, standing.partition
        self._cuts: dict[int, _Cut | None] = {}
        self._near: dict[int, tuple[Numbers, Values]] = {}
        """By cluster, its nearest clusters and their mean similarities to it."""

    def refresh(self, numbers: Iterable[int]) -> None:
        """Forgets what was found of clusters that changed."""
        gone = set(numbers)
        for number in gone:
            self._cuts.pop(number, None)
        self._near = {
            number: near
            for number, near in self._near.items()
            if number not in gone and gone.isdisjoint(near[0].tolist())
        }

    def best(
        self,
        answers: Sequence[Answer],
        *,
        groups: Numbers,
        apart: Collection[frozenset[int]] = (),
        skipped: Collection[frozenset[int]] = (),
    ) -> Question | None:
        """The question that is expected to mend the most; None where there is none left.

        Args:
            answers: to earlier questions.
            groups: (N,) images that were said to be the same share a number here, and are never cut
                apart.
            apart: pairs of clusters that were said to be different; an image that is in none stands
                there as -1 - its row.
            skipped: pairs of images that the person would not judge.
        """
        found = self._halves(groups) + self._without(apart, self._neighbours() + self._alone())
        if not len(found.first):
            return None
        likely = _probabilities(found.similarity, found.together, answers)
        gain = np.where(found.together, 1 - likely, likely) * found.pairs
        for at in np.argsort(-gain, kind="stable").tolist():
            question = self._question(found, at, float(likely[at]))
            if frozenset((question.first, question.second)) not in skipped:
                return question
        return None

    def _question(self, found: _Candidates, at: int, likely: float) -> Question:
        a, b = int(found.first[at]), int(found.second[at])
        cut = self._cuts[a] if a == b else None
        sides = (self._rows(a), self._rows(b)) if cut is None else (cut.first, cut.second)
        first, second = (self._typical(rows) for rows in sides)
        return Question(first[0], second[0], first, second, a == b, float(found.similarity[at]), likely)

    def _rows(self, place: int) -> list[int]:
        return [-1 - place] if place < 0 else self.partition.rows(place)

    def _typical(self, rows: Sequence[int]) -> tuple[int, ...]:
        images = self.standing.features[torch.tensor(rows)]
        order = (images @ images.sum(0)).argsort(descending=True, stable=True)
        return tuple(rows[at] for at in order.tolist())

    # -- candidates --------------------------------------------------------------------------------

    def _halves(self, groups: Numbers) -> _Candidates:
        for number in self.partition.numbers:
            if number not in self._cuts:
                self._cuts[number] = self._cut(number, groups)
        there = {number: cut for number, cut in self._cuts.items() if cut is not None}
        numbers = np.array(list(there), dtype=np.int64)
        pairs = np.array([len(c.first) * len(c.second) for c in there.values()], dtype=np.float64)
        similarity = np.array([cut.similarity for cut in there.values()], dtype=np.float64)
        return _Candidates(numbers, numbers, pairs, similarity)

    def _cut(self, number: int, groups: Numbers) -> _Cut | None:
        rows = np.array(self.partition.rows(number))
        images = self.standing.features[torch.from_numpy(rows)]
        side = halves(images, groups[rows])
        if side is None:
            return None
        x, y = (images[torch.from_numpy(part)].mean(0) for part in (side, ~side))
        return _Cut(tuple(rows[side].tolist()), tuple(rows[~side].tolist()), float(x @ y))

    def _neighbours(self) -> _Candidates:
        """Each pair of clusters of which one is among the nearest of the other, once."""
        numbers = self.partition.numbers
        missing = [number for number in numbers if number not in self._near]
        for number, (others, _) in zip(missing, self.standing.near_each(missing, NEAR), strict=True):
            self._near[number] = others, self._between(number, others)
        first = np.repeat(numbers, [len(self._near[number][0]) for number in numbers])
        second = np.concatenate([np.empty(0, np.int64), *(self._near[n][0] for n in numbers)])
        similarity = np.concatenate([np.empty(0), *(self._near[n][1] for n in numbers)])
        low, high = np.minimum(first, second), np.maximum(first, second)
        _, once = np.unique(low * self.partition.capacity + high, return_index=True)
        low, high = low[once].astype(np.int64), high[once].astype(np.int64)
        sizes = self._sizes()
        return _Candidates(low, high, sizes[low] * sizes[high], similarity[once])

    def _between(self, number: int, others: Numbers) -> Values:
        """Mean similarities of a cluster and others."""
        sizes = self._sizes()
        products = self.standing.sums[torch.from_numpy(others)] @ self.standing.sums[number]
        found: Values = products.double().numpy() / (sizes[number] * sizes[others])
        return found

    def _alone(self) -> _Candidates:
        """Images that are in no cluster, each with the nearest one."""
        rows = np.array(self.partition.rows(OUTLIER), dtype=np.int64)
        near = self.standing.nearest_of(rows)
        rows, near = rows[near != OUTLIER], near[near != OUTLIER]
        sizes, similarity = self._sizes(), np.empty(len(rows))
        for start in range(0, len(rows), BLOCK):
            part = slice(start, start + BLOCK)
            images = self.standing.features[torch.from_numpy(rows[part])]
            sums = self.standing.sums[torch.from_numpy(near[part])]
            similarity[part] = (images * sums).sum(1).double().numpy() / sizes[near[part]]
        return _Candidates(-1 - rows, near, sizes[near], similarity)

    def _without(self, apart: Collection[frozenset[int]], found: _Candidates) -> _Candidates:
        """Candidates but for those that were said to be different, or have different names."""
        names = self.partition.names
        said = {*apart, *(frozenset(pair) for pair in combinations(names, 2))}
        base = 2 * len(self.partition.labels) + self.partition.capacity + 2

        def key(a: NDArray[Any], b: NDArray[Any]) -> Numbers:
            found: Numbers = np.minimum(a, b) * base + np.maximum(a, b)
            return found

        gone = np.array([sorted(pair) for pair in said if len(pair) == 2], dtype=np.int64)
        if not len(gone):
            return found
        denied = np.isin(key(found.first, found.second), key(gone[:, 0], gone[:, 1]))
        return found.kept(~denied)

    def _sizes(self) -> Values:
        """(C,) images of each cluster."""
        inside = self.partition.labels[self.partition.labels != OUTLIER]
        return np.bincount(inside, minlength=self.partition.capacity).astype(np.float64)


def halves(images: Tensor, groups: Numbers) -> NDArray[np.bool_] | None:
    """Where a cluster hangs together least: which of its n images are on one side of the cut.

    The cut is the last join of average linkage on cosine distances, in which images of one group are
    joined before all others. Of more than `SAMPLE` images the cut is that of a sample, and every other
    goes to the nearer side.

    Args:
        images: (n, D) unit rows.
        groups: (n,) images that share a number stay together.

    Returns:
        (n,) True on one side, or None where there is no cut: one group alone.

    >>> two = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.1], [0.1, 1.0]])
    >>> halves(torch.nn.functional.normalize(two), np.arange(4)).tolist()
    [True, False, True, False]
    """
    _, groups = np.unique(groups, return_inverse=True)
    if groups.max(initial=0) == 0:
        return None
    chosen = np.arange(len(groups))
    if len(groups) > SAMPLE:
        chosen = np.sort(np.random.default_rng(0).permutation(len(groups))[:SAMPLE])
        if len(np.unique(groups[chosen])) == 1:
            return None
    part = images[torch.from_numpy(chosen)]
    distance = np.clip(1 - (part @ part.T).double().numpy(), 1e-9, None)
    distance[groups[chosen][:, None] == groups[chosen][None]] = 0
    np.fill_diagonal(distance, 0)
    joins = linkage(distance[np.triu_indices(len(chosen), 1)], method="average")
    side = np.zeros(len(chosen), dtype=bool)
    side[_leaves(joins, int(joins[-1, 0]))] = True
    if len(chosen) < len(groups):
        side = _spread(images, chosen, side, groups)
    return side if side[0] else ~side


def _leaves(joins: Values, node: int) -> list[int]:
    """The images below a node of scipy's linkage: numbers from n stand for joins."""
    n, found, waiting = len(joins) + 1, [], [node]
    while waiting:
        node = waiting.pop()
        if node < n:
            found.append(node)
        else:
            waiting += joins[node - n, :2].astype(int).tolist()
    return found


def _spread(
    images: Tensor, chosen: Numbers, side: NDArray[np.bool_], groups: Numbers
) -> NDArray[np.bool_]:
    """The sides of all images, from those of a sample: the nearer one, by groups as a whole."""
    x, y = (images[torch.from_numpy(chosen[part])].mean(0) for part in (side, ~side))
    nearer = (images @ (x - y)).double().numpy()
    nearer[chosen] = np.where(side, 1e6, -1e6)  # their group goes with them
    votes = np.bincount(groups, weights=nearer)
    found: NDArray[np.bool_] = votes[groups] > 0
    return found


def _probabilities(
    similarity: Values, together: NDArray[np.bool_], answers: Sequence[Answer]
) -> Values:
    """Of candidates: how likely each pair of groups is the same individual."""
    x = [similarity]
    y = [together.astype(np.float64)]
    # What the clusters claim: each kind weighs `BELIEF` in all, however many there are.
    weights = [np.where(together, BELIEF / max(1, together.sum()), BELIEF / max(1, (~together).sum()))]
    if answers:
        x.append(np.array([value for value, _ in answers]))
        y.append(np.array([same for _, same in answers], dtype=np.float64))
        weights.append(np.ones(len(answers)))
    intercept, slope, middle = _logistic(np.concatenate(x), np.concatenate(y), np.concatenate(weights))
    return 1 / (1 + np.exp(-np.clip(intercept + slope * (similarity - middle), -30, 30)))


def _logistic(x: Values, y: Values, weights: Values) -> tuple[float, float, float]:
    """Intercept and slope about the middle of x, by Newton's method with a little ridge.

    A falling curve is never believed: more similar groups are not less likely the same.
    """
    middle, spread = float(np.average(x, weights=weights)), float(x.std()) or 1.0
    design = np.stack([np.ones_like(x), (x - middle) / spread], axis=1)
    found = np.zeros(2)
    for _ in range(50):
        p = 1 / (1 + np.exp(-np.clip(design @ found, -30, 30)))
        gradient = design.T @ (weights * (y - p)) - FLAT * found
        curvature = (design * (weights * p * (1 - p))[:, None]).T @ design + FLAT * np.eye(2)
        step = np.linalg.solve(curvature, gradient)
        found += np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-8:
            break
    if found[1] < 0:
        share = float(np.average(y, weights=weights))
        return float(np.log(max(share, 1e-6) / max(1 - share, 1e-6))), 0.0, middle
    return float(found[0]), float(found[1] / spread), middle
