"""What came of methods and settings side by side: a table, and differences compared seed by seed.

Scores are those of the last epoch. A difference is told with the interval that so few seeds allow.
`gracl.contest` trains what is compared here, `gracl.curves` draws it.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gracl.errors import ConfigError, RunError, did_you_mean
from gracl.paths import is_file
from gracl.run_json import read_object

SHARES = ("mAP", "R1", "mINP", "ARI")
"""What is better when larger, in [0, 1]; ARI is of the clusters."""
MEASURES = (*SHARES, "minutes", "memory")
"""What a run is measured by. minutes: of its epochs, without decoding and scoring. memory: GiB at most,
of the GPU where there is one, else of the process; away from Linux, with all that it did before."""
CONFIDENCE = 0.95
KIND = "gracl comparison"


@dataclass(frozen=True)
class Outcome:
    """What came of one training."""

    contender: str
    seed: int
    measures: dict[str, float]
    """By `MEASURES`; without ARI where no identity of a training image is known, empty if it failed."""
    curves: dict[str, tuple[tuple[int, float], ...]]
    """mAP and ARI by the epochs that the model had been trained."""
    protocol: str
    """What it was scored under; empty if it failed."""
    on_training_images: bool
    """Whether the training images searched each other."""
    machine: dict[str, Any]
    """Device, processes, threads and versions that it ran with."""
    failure: str | None = None
    """Why it has no scores; None if it has."""


@dataclass(frozen=True)
class Spread:
    """One measure over the seeds of a contender."""

    mean: float
    std: float | None
    """Sample standard deviation (divisor n - 1); None for one seed."""
    n: int
    """Seeds that it was measured with."""


@dataclass(frozen=True)
class Row:
    """A contender's line of the table."""

    name: str
    spreads: dict[str, Spread]
    """By `MEASURES`; those that are not known are missing."""
    finished: int
    """Seeds that were trained to the end."""


@dataclass(frozen=True)
class Paired:
    """A difference between two contenders, each seed of one beside the same seed of the other."""

    difference: float
    """Mean over the seeds that both finished."""
    low: float | None
    """Lower end of the 95 % confidence interval of a paired t; None for one seed, which has none."""
    high: float | None
    n: int
    """Seeds that both finished."""

    @property
    def excludes_zero(self) -> bool:
        """Whether the interval lies on one side of zero; False where there is none."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def word(self) -> str:
        """Of a measure that is better when larger: "better", "worse" or "not told apart"."""
        if not self.excludes_zero:
            return "not told apart"
        return "better" if self.difference > 0 else "worse"


@dataclass(frozen=True)
class Comparison:
    """Contenders and what came of each with each seed."""

    data: str
    """The data set's name."""
    contenders: tuple[str, ...]
    seeds: tuple[int, ...]
    settings: dict[str, dict[str, Any]]
    """By contender: the settings in which not all are alike; None where its method has no such one."""
    outcomes: tuple[Outcome, ...]
    """Of the runs that are done, seed by seed."""

    @property
    def rows(self) -> tuple[Row, ...]:
        """A line of the table for each contender, in their order."""
        return tuple(self._row(name) for name in self.contenders)

    @property
    def protocols(self) -> tuple[str, ...]:
        """What the runs were scored under; scores under different ones are not comparable."""
        return tuple(sorted({o.protocol for o in self.outcomes if o.failure is None}))

    @property
    def failures(self) -> tuple[Outcome, ...]:
        """The runs that stopped on an error of the training."""
        return tuple(o for o in self.outcomes if o.failure is not None)

    def values(self, contender: str, measure: str) -> dict[int, float]:
        """One measure of a contender by seed; without the seeds in which it is not known.

        Raises:
            ConfigError: no contender, or no measure, has this name.
        """
        if contender not in self.contenders:
            known = did_you_mean(contender, self.contenders)
            raise ConfigError(f"no contender '{contender}'; {known}")
        if measure not in MEASURES:
            raise ConfigError(f"no measure '{measure}'; {did_you_mean(measure, MEASURES)}")
        own = (o for o in self.outcomes if o.contender == contender)
        return {o.seed: o.measures[measure] for o in own if measure in o.measures}

    def paired(self, a: str, b: str, measure: str = "mAP") -> Paired:
        """How much more a contender has of a measure than another: a minus b.

        The seeds are paired, since a seed sets the data's split, the first weights and the batches of
        both. The interval supposes that differences are spread normally over seeds.

        Args:
            a, b: contenders by name.
            measure: one of `MEASURES`.

        Raises:
            ConfigError: an unknown name, or no seed in which both are measured.
        """
        first, second = self.values(a, measure), self.values(b, measure)
        common = [seed for seed in self.seeds if seed in first and seed in second]
        if not common:
            raise ConfigError(
                f"no seed in which both '{a}' and '{b}' have {measure}, so there is no difference. "
                "Compare contenders that finished, or give more seeds"
            )
        return paired_difference([first[s] for s in common], [second[s] for s in common])

    def _row(self, name: str) -> Row:
        found = {measure: list(self.values(name, measure).values()) for measure in MEASURES}
        spreads = {measure: _spread(values) for measure, values in found.items() if values}
        return Row(name, spreads, len(found["minutes"]))


def paired_difference(a: Sequence[float], b: Sequence[float]) -> Paired:
    """The mean of a - b, with the confidence interval of a paired t where there are two pairs or more.

    >>> found = paired_difference([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])
    >>> print(f"{found.difference:.2f} [{found.low:.2f}, {found.high:.2f}]")
    0.20 [-0.05, 0.45]
    """
    from scipy.stats import t

    delta = np.subtract(a, b).astype(np.float64)
    n, mean = len(delta), float(delta.mean())
    if n < 2:
        return Paired(mean, None, None, n)
    half = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * float(delta.std(ddof=1)) / math.sqrt(n)
    return Paired(mean, mean - half, mean + half, n)


def _spread(values: Sequence[float]) -> Spread:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return Spread(float(np.mean(values)), std, len(values))


# -- its file -------------------------------------------------------------------------------------


def read_comparison(out: str | Path) -> Comparison:
    """A comparison by its folder, also one that is going on.

    Raises:
        RunError: the folder holds none, or one that is damaged.
    """
    path = Path(out) / "comparison.json"
    if not is_file(path):
        raise RunError(f"there is no {path}. Make it with: gracl compare")
    found = read_object(path, remedy="Make it with: gracl compare")
    if found.get("kind") != KIND:
        raise RunError(f"{path} is no comparison of gracl. Give the --out of: gracl compare")
    return Comparison(
        data=found["data"],
        contenders=tuple(found["contenders"]),
        seeds=tuple(found["seeds"]),
        settings=found["settings"],
        outcomes=tuple(_outcome_from(line) for line in found["runs"]),
    )


def to_json(found: Comparison) -> str:
    """What `read_comparison` reads."""
    plain = dataclasses.asdict(found)
    runs = plain.pop("outcomes")
    return json.dumps({"kind": KIND, **plain, "protocols": found.protocols, "runs": runs}, indent=1)


def _outcome_from(line: dict[str, Any]) -> Outcome:
    points = {
        name: tuple((int(epochs), float(value)) for epochs, value in curve)
        for name, curve in line["curves"].items()
    }
    names = [field.name for field in dataclasses.fields(Outcome)]
    return Outcome(**{**{name: line[name] for name in names}, "curves": points})
