"""Error rates of a threshold, with intervals that know how few individuals many comparisons come from.

A thousand images of twenty individuals make half a million comparisons, which are no half a million
independent trials: all that share an individual rise and fall together. So the unit is the individual
(or what stands for one: a tracklet, a cluster), and the variance of a rate is taken from what errors
have in common:

    Var(sum of r_ab over a < b)  =  sum over a of (sum over b of r_ab)^2  -  sum over a < b of r_ab^2

where r_ab is the number of errors between a and b, less what the mean rate leads to expect. It takes in
all pairs of comparisons that share an individual at either end. (The subsets bootstrap of Bolle, Ratha
and Pankanti, "Error analysis of pattern recognition systems", CVIU 2004, does so at one end, so its
intervals of false match rates are too short: Li et al., ICB 2009.) p (1 - p) over the variance is the
number of independent comparisons that would tell as much, and Wilson's interval takes that number;
source: Fogliato, Patil and Perona, "Confidence Intervals for Error Rates in 1:1 Matching Tasks", IJCV
2024. Student's quantile stands for the normal one, since the variance too comes from few individuals.

Letters: M comparisons, of which the K most similar are listed; U units.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gracl.errors import ConfigError, EvaluationError, ShapeError
from gracl.metrics import Codes

CONFIDENCE = 0.95
"""Share of cases in which an interval should hold the true rate."""
RULE_OF_THREE = 3.0
"""Independent errors that a rate must lead to expect if it is to be shown: at a true rate of 3/n, n
trials see no error in 5 of 100 cases (ISO/IEC 19795-1, rule of 3)."""
RULE_OF_THIRTY = 30.0
"""Independent errors from which on a rate is known to a third or so (ISO/IEC 19795-1, rule of 30)."""


@dataclass(frozen=True, eq=False)
class Comparisons:
    """Comparisons of one kind, genuine or impostor: the most similar one by one, the rest as counts."""

    similarities: NDArray[np.float32]
    """(K,) falling."""
    first: Codes
    """(K,) the unit of one image, 0 .. U - 1."""
    second: Codes
    """(K,) the unit of the other; the same in a genuine comparison."""
    n: int
    """M. Those that are not listed are no more similar than any that is."""
    of_unit: NDArray[np.float64]
    """(U,) comparisons that each unit takes part in."""
    shared: NDArray[np.float64]
    """(K,) comparisons that there are between the two units of each."""
    squares: float
    """Comparisons between two units, squared, and summed over all pairs of different units."""

    def __post_init__(self) -> None:
        if np.isnan(self.similarities).any():
            raise ShapeError(
                "similarities hold NaN; expected numbers. Check the model's weights and the images for "
                "NaN features"
            )

    @property
    def n_units(self) -> int:
        """Units that take part in any comparison."""
        return int((self.of_unit > 0).sum())

    def reaching(self, threshold: float) -> int:
        """How many of the listed reach a threshold; a similarity that equals it does."""
        rising = self.similarities[::-1]
        return len(rising) - int(np.searchsorted(rising, np.float64(threshold), side="left"))


@dataclass(frozen=True)
class Rate:
    """A share of comparisons, with its 95 % interval."""

    value: float
    low: float
    high: float
    n: int
    """Comparisons it was counted in."""
    effective: float
    """Independent comparisons that would tell as much."""

    def __str__(self) -> str:
        return f"{_percent(self.value)} ({_percent(self.low)} to {_percent(self.high)})"


@dataclass(frozen=True)
class Threshold:
    """The similarity at which a rate of impostors is reached, with its 95 % interval."""

    value: float
    low: float
    """-1 where the interval reaches below all comparisons that are listed."""
    high: float


def list_comparisons(
    similarities: NDArray[np.float32] | Sequence[float], first: Codes, second: Codes, n_units: int
) -> Comparisons:
    """Comparisons, all of them listed.

    Args:
        similarities: (M,) of images, in any order.
        first, second: (M,) the units that the two images show, 0 .. U - 1.
        n_units: U.

    >>> found = list_comparisons([0.5, 0.9, 0.5], np.array([0, 0, 1]), np.array([1, 2, 2]), 3)
    >>> found.n, found.of_unit.tolist(), found.reaching(0.5)
    (3, [2.0, 2.0, 2.0], 3)
    """
    values = np.asarray(similarities, dtype=np.float32)
    order = np.argsort(-values, kind="stable")
    low, high = np.minimum(first, second)[order], np.maximum(first, second)[order]
    of_unit = np.bincount(low, minlength=n_units) + np.bincount(high[high != low], minlength=n_units)
    _, place, counts = np.unique(low * n_units + high, return_inverse=True, return_counts=True)
    differ = np.zeros(len(counts), dtype=np.bool_)
    differ[place] = low != high
    squares = float((counts[differ].astype(np.float64) ** 2).sum())
    return Comparisons(
        values[order],
        low,
        high,
        n=len(values),
        of_unit=of_unit.astype(np.float64),
        shared=counts[place].astype(np.float64),
        squares=squares,
    )


def rate_at(found: Comparisons, threshold: float) -> Rate:
    """The share of comparisons that reach a threshold.

    Raises:
        EvaluationError: there is no comparison, or the threshold lies below all that are listed.

    >>> chain = np.array([0, 1, 2, 3]), np.array([1, 2, 3, 0])
    >>> found = list_comparisons([0.9, 0.5, 0.3, 0.1], *chain, 4)
    >>> rate_at(found, 0.5).value
    0.5
    """
    if not found.n:
        raise EvaluationError("there are no comparisons to take a rate of; expected one or more")
    count = found.reaching(threshold)
    if count == len(found.similarities) < found.n:
        raise EvaluationError(
            f"threshold {threshold:g} lies below the {count} most similar of {found.n} comparisons, "
            "which alone are listed, so the rate at it is not known. Give a higher one"
        )
    return _rate_of(found, count)


def threshold_at(
    found: Comparisons, rate: float, *, unit: str = "individuals"
) -> tuple[Threshold, Rate]:
    """The lowest threshold that no more than a share of impostors reach, and the share that do.

    It lies midway between the last impostor that is let in and the first that is not, so that rounding
    decides nothing. Its interval ends where the ends of the rate's interval would put it (Woodruff,
    "Confidence Intervals for Medians and Other Position Measures", JASA 1952).

    Args:
        found: impostors.
        rate: the share, in (0, 1).
        unit: what units are called in errors.

    Raises:
        ConfigError: a rate outside (0, 1).
        EvaluationError: so few comparisons, of so few units, cannot show so low a rate (rule of three).
            The lowest that they can is named.

    >>> units = np.triu_indices(60, 1)
    >>> found = list_comparisons(np.linspace(0, 1, 1770, dtype=np.float32), *units, 60)
    >>> threshold, achieved = threshold_at(found, 0.1)
    >>> round(threshold.value, 3), round(achieved.value, 3)
    (0.9, 0.1)
    """
    if not 0 < rate < 1:
        raise ConfigError(f"rate is {rate:g}; expected a share in (0, 1), such as 0.01")
    if not found.n:
        raise EvaluationError("there is no impostor comparison; expected images of two individuals")
    if not _is_shown(found, rate):
        raise EvaluationError(_not_shown(found, rate, unit))
    value = _lowest(found, rate)
    achieved = _rate_of(found, found.reaching(value))
    low, high = _lowest(found, achieved.high), _lowest(found, achieved.low)
    return Threshold(value, min(low, value), max(high, value)), achieved


def least_rate(found: Comparisons) -> float | None:
    """About the lowest rate that these comparisons can show; None if not even one in two.

    >>> few = list_comparisons([0.1, 0.2, 0.3], np.array([0, 0, 1]), np.array([1, 2, 2]), 3)
    >>> least_rate(few) is None
    True
    """
    if not found.n:
        return None
    first = max(RULE_OF_THREE / found.n, 1e-9)
    steps = math.ceil(4 * math.log2(0.5 / first)) if first < 0.5 else -1
    rates = (first * 2 ** (step / 4) for step in range(steps + 1))
    return next((_up(rate) for rate in rates if _is_shown(found, _up(rate))), None)


# -- the parts ------------------------------------------------------------------------------------


def _lowest(found: Comparisons, rate: float) -> float:
    """The lowest threshold that no more than this share reach."""
    allowed = math.floor(rate * found.n + 1e-9)
    listed = found.similarities
    if allowed >= len(listed):
        return -1.0
    refused = float(listed[allowed])
    above = len(listed) - int(np.searchsorted(listed[::-1], listed[allowed], side="right"))
    if not above:  # nothing lies above: the next number does
        return float(np.nextafter(listed[allowed], np.float32(np.inf)))
    return (refused + float(listed[above - 1])) / 2


def _rate_of(found: Comparisons, count: int) -> Rate:
    """The rate that so many of the listed, the most similar ones, are."""
    value = count / found.n
    effective, freedom = _effective(found, count)
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    low, high = _wilson(value, effective, quantile)
    if not count:
        high = min(1.0, RULE_OF_THREE / effective)
    if count == found.n:
        low = max(0.0, 1 - RULE_OF_THREE / effective)
    return Rate(value, low, high, found.n, effective)


def _effective(found: Comparisons, count: int) -> tuple[float, float]:
    """Independent comparisons that would tell as much of the rate, and degrees of freedom.

    Where there are no errors, or nothing but errors, it cannot be seen how they hang together: then
    only comparisons that share no unit count, as if all that do were one.
    """
    value = count / found.n
    units = found.n_units
    alone = max(1.0, min(found.n, units / 2 if found.squares else units))
    if count in (0, found.n):
        return alone, max(1, units - 1)
    rest, variance = _variance(found, count)
    least = value * (1 - value) / found.n  # that of independent comparisons
    effective = value * (1 - value) / max(variance, least)
    # Satterthwaite: a few units that make most of the errors are few, however many others there are.
    fourth = float((rest**4).sum())
    freedom = float((rest**2).sum()) ** 2 / fourth if fourth else 1.0
    return max(1.0, effective), max(1.0, min(freedom, units - 1.0))


def _variance(found: Comparisons, count: int) -> tuple[NDArray[np.float64], float]:
    """(U,) each unit's errors beyond the mean, and the variance of the rate; see the top."""
    value, n_units = count / found.n, len(found.of_unit)
    first, second = found.first[:count], found.second[:count]
    differ = first != second
    errors = np.bincount(first, minlength=n_units) + np.bincount(second[differ], minlength=n_units)
    rest = errors - value * found.of_unit
    keys = (np.minimum(first, second) * n_units + np.maximum(first, second))[differ]
    _, at, together = np.unique(keys, return_index=True, return_counts=True)
    expected = value * found.shared[:count][differ][at]
    once = float((together**2 - 2 * together * expected).sum()) + value**2 * found.squares
    units = max(2, found.n_units)
    total = (float((rest**2).sum()) - once) * units / (units - 1)
    return rest, max(0.0, total) / found.n**2


def _wilson(value: float, n: float, quantile: float) -> tuple[float, float]:
    """Wilson's score interval ("Probable Inference", JASA 1927)."""
    square = quantile**2 / n
    middle = (value + square / 2) / (1 + square)
    reach = math.sqrt(value * (1 - value) * square + square**2 / 4) / (1 + square)
    return max(0.0, min(value, middle - reach)), min(1.0, max(value, middle + reach))


def _is_shown(found: Comparisons, rate: float) -> bool:
    """Whether a rate would lead to expect three independent errors."""
    allowed = math.floor(rate * found.n + 1e-9)
    if allowed < RULE_OF_THREE or allowed >= found.n:
        return False
    # Fewer than are allowed reach the threshold where they tie.
    effective, _ = _effective(found, found.reaching(_lowest(found, rate)))
    return effective * rate >= RULE_OF_THREE


def _not_shown(found: Comparisons, rate: float, unit: str) -> str:
    least = least_rate(found)
    can = "no rate at all;" if least is None else f"{least:g} at the least: type --rate {least:g}, or"
    return (
        f"a rate of {rate:g} is not supported by {found.n} trials with strangers that {found.n_units} "
        f"{unit} make: they would have to hold three false matches with nothing in common (rule of "
        f"three). So many can show {can} bring more {unit}"
    )


def _up(value: float) -> float:
    """Two digits, rounded up: what a person would type."""
    power = 10.0 ** (math.floor(math.log10(value)) - 1)
    return float(f"{math.ceil(value / power - 1e-9) * power:.3g}")


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
