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

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import linkage, to_tree
from scipy.spatial.distance import squareform
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
class _Candidate:
    first: tuple[int, ...]
    second: tuple[int, ...]
    together: bool
    similarity: float


class Questions:
    """Candidates for questions about the clusters as they stand; what did not change is kept."""

    def __init__(self, standing: Standing) -> None:
        self.standing, self.partition = standing, standing.partition
        self._cuts: dict[int, _Candidate | None] = {}
        self._near: dict[int, list[int]] = {}

    def refresh(self, numbers: Iterable[int]) -> None:
        """Forgets what was found of clusters that changed."""
        gone = set(numbers)
        for number in gone:
            self._cuts.pop(number, None)
        self._near = {
            number: near for number, near in self._near.items() if gone.isdisjoint([number, *near])
        }

    def best(
        self,
        answers: Sequence[Answer],
        *,
        groups: NDArray[np.int64],
        apart: Collection[frozenset[int]] = (),
        skipped: Collection[frozenset[int]] = (),
    ) -> Question | None:
        """The question that is expected to mend the most; None where there is none left.

        Args:
            answers: to earlier questions.
            groups: (N,) images that were said to be the same share a number here, and are never cut
                apart.
            apart: pairs of clusters that were said to be different.
            skipped: pairs of images that the person would not judge.
        """
        candidates = [*self._halves(groups), *self._neighbours(apart)]
        if not candidates:
            return None
        similarity = np.array([c.similarity for c in candidates])
        together = np.array([c.together for c in candidates])
        likely = _probabilities(similarity, together, answers)
        pairs = np.array([len(c.first) * len(c.second) for c in candidates], dtype=np.float64)
        gain = np.where(together, 1 - likely, likely) * pairs
        for at in np.argsort(-gain, kind="stable").tolist():
            question = self._question(candidates[at], float(likely[at]))
            if frozenset((question.first, question.second)) not in skipped:
                return question
        return None

    def _question(self, found: _Candidate, likely: float) -> Question:
        first, second = (self._typical(rows) for rows in (found.first, found.second))
        return Question(first[0], second[0], first, second, found.together, found.similarity, likely)

    def _typical(self, rows: Sequence[int]) -> tuple[int, ...]:
        images = self.standing.features[torch.tensor(rows)]
        order = (images @ images.sum(0)).argsort(descending=True, stable=True)
        return tuple(rows[at] for at in order.tolist())

    def _halves(self, groups: NDArray[np.int64]) -> list[_Candidate]:
        for number in self.partition.numbers:
            if number not in self._cuts:
                self._cuts[number] = self._cut(number, groups)
        return [cut for cut in self._cuts.values() if cut is not None]

    def _cut(self, number: int, groups: NDArray[np.int64]) -> _Candidate | None:
        rows = self.partition.rows(number)
        images = self.standing.features[torch.tensor(rows)]
        sides = halves(images, groups[rows])
        if sides is None:
            return None
        first, second = (tuple(np.asarray(rows)[side].tolist()) for side in (sides, ~sides))
        x, y = (images[torch.from_numpy(side)].mean(0) for side in (sides, ~sides))
        return _Candidate(first, second, True, float(x @ y))

    def _neighbours(self, apart: Collection[frozenset[int]]) -> list[_Candidate]:
        found = {}
        for number in self.partition.numbers:
            if number not in self._near:
                self._near[number] = [other for other, _ in self.standing.near(number, NEAR)]
            for other in self._near[number]:
                pair = frozenset((number, other))
                if pair not in found and pair not in apart and not self._differ_in_name(pair):
                    found[pair] = self._between(*sorted(pair))
        return [*found.values(), *self._alone(apart)]

    def _between(self, a: int, b: int) -> _Candidate:
        first, second = self.partition.rows(a), self.partition.rows(b)
        similarity = self.standing.sums[a] @ self.standing.sums[b] / (len(first) * len(second))
        return _Candidate(tuple(first), tuple(second), False, float(similarity))

    def _alone(self, apart: Collection[frozenset[int]]) -> Iterable[_Candidate]:
        """Images that are in no cluster, each with the nearest one."""
        for row in self.partition.rows(OUTLIER):
            near = self.standing.nearest_of(row)
            if near != OUTLIER and frozenset((-1 - row, near)) not in apart:
                rows = self.partition.rows(near)
                similarity = self.standing.features[row] @ self.standing.sums[near] / len(rows)
                yield _Candidate((row,), tuple(rows), False, float(similarity))

    def _differ_in_name(self, pair: frozenset[int]) -> bool:
        names = {self.partition.names[number] for number in pair if number in self.partition.names}
        return len(names) == 2


def halves(images: Tensor, groups: NDArray[np.int64]) -> NDArray[np.bool_] | None:
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
    left = to_tree(linkage(squareform(distance, checks=False), method="average")).get_left()
    side = np.zeros(len(chosen), dtype=bool)
    side[left.pre_order() if left is not None else 0] = True
    if len(chosen) < len(groups):
        side = _spread(images, chosen, side, groups)
    return side if side[0] else ~side


def _spread(
    images: Tensor, chosen: NDArray[np.int64], side: NDArray[np.bool_], groups: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """The sides of all images, from those of a sample: the nearer one, by groups as a whole."""
    x, y = (images[torch.from_numpy(chosen[part])].mean(0) for part in (side, ~side))
    nearer = (images @ (x - y)).double().numpy()
    nearer[chosen] = np.where(side, 1e6, -1e6)  # their group goes with them
    votes = np.bincount(groups, weights=nearer)
    found: NDArray[np.bool_] = votes[groups] > 0
    return found


def _probabilities(
    similarity: NDArray[np.float64], together: NDArray[np.bool_], answers: Sequence[Answer]
) -> NDArray[np.float64]:
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


def _logistic(
    x: NDArray[np.float64], y: NDArray[np.float64], weights: NDArray[np.float64]
) -> tuple[float, float, float]:
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
