"""Rates, thresholds and their intervals against their definitions; how often these hold the truth."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gracl.error_rates import least_rate, list_comparisons, rate_at, threshold_at
from gracl.errors import ConfigError, EvaluationError, ShapeError


def strangers(seed, n_units=8, ties=False):
    """Comparisons between images of different units, each unit with an error-proneness of its own."""
    random = np.random.default_rng(seed)
    units = random.integers(0, n_units, 3 * n_units)
    first, second = np.triu_indices(len(units), 1)
    first, second = units[first], units[second]
    apart = first != second
    first, second = first[apart], second[apart]
    likeness = random.normal(size=n_units)
    values = likeness[first] + likeness[second] + random.normal(size=len(first))
    values = np.round(values) if ties else values
    return values.astype(np.float32), first, second, n_units


# -- variance -------------------------------------------------------------------------------------


def naive_effective(values, first, second, n_units, threshold):
    """All pairs of comparisons that share a unit, one by one."""
    errors = (values >= threshold).astype(float)
    mean = errors.mean()
    residuals = {}
    for a, b, error in zip(first.tolist(), second.tolist(), errors, strict=True):
        key = (min(a, b), max(a, b))
        residuals[key] = residuals.get(key, 0) + error - mean
    shared = sum(
        r * s for (one, r), (other, s) in product(residuals.items(), repeat=2) if {*one} & {*other}
    )
    n = len({*first.tolist(), *second.tolist()})
    variance = shared * n / (n - 1) / len(values) ** 2
    binomial = mean * (1 - mean) / len(values)
    return max(1.0, mean * (1 - mean) / max(variance, binomial))


@given(seed=st.integers(0, 9999), share=st.floats(0.01, 0.9))
def test_the_independent_comparisons_of_impostors_equal_their_naive_twin(seed, share):
    values, first, second, n_units = strangers(seed)
    threshold = float(np.quantile(values, 1 - share))
    found = rate_at(list_comparisons(values, first, second, n_units), threshold)
    assert found.value == pytest.approx((values >= threshold).mean())
    assert found.effective == pytest.approx(
        naive_effective(values, first, second, n_units, threshold), rel=1e-6
    )


@given(seed=st.integers(0, 9999))
def test_the_independent_comparisons_of_genuine_pairs_equal_their_naive_twin(seed):
    random = np.random.default_rng(seed)
    units = np.concatenate([[0, 1], random.integers(0, 6, 40)])
    values = (random.normal(size=6)[units] + random.normal(size=len(units))).astype(np.float32)
    threshold = float(np.median(values))
    found = rate_at(list_comparisons(values, units, units, 6), threshold)
    assert found.effective == pytest.approx(naive_effective(values, units, units, 6, threshold))


def test_comparisons_that_share_nothing_count_one_by_one():
    first, second = np.arange(0, 400, 2), np.arange(1, 400, 2)
    values = np.random.default_rng(0).random(200)
    found = rate_at(list_comparisons(values, first, second, 400), 0.5)
    assert found.effective == pytest.approx(200, rel=0.02)


def test_one_individual_that_looks_like_all_others_makes_many_comparisons_worth_few():
    first, second = np.triu_indices(40, 1)
    values = np.where(first == 0, 0.9, 0.1)
    found = rate_at(list_comparisons(values, first, second, 40), 0.5)
    assert found.value == pytest.approx(39 / 780)
    assert found.effective < 40
    assert found.high > 0.4  # of others, there may be one in every few


def people(random, individuals, images, dimensions=10):
    centres = np.repeat(random.normal(size=(individuals, dimensions)), images, axis=0)
    rows = centres + 0.6 * random.normal(size=centres.shape)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_intervals_hold_the_truth_about_as_often_as_stated_and_those_of_single_pairs_do_not():
    everyone = people(np.random.default_rng(10**6), 2500, 1)
    population = np.sort((everyone @ everyone.T)[np.triu_indices(2500, 1)])
    right = int(0.98 * len(population))
    units = np.repeat(np.arange(25), 4)
    first, second = np.triu_indices(100, 1)
    apart = units[first] != units[second]
    first, second = first[apart], second[apart]
    held = held_by_pairs = held_threshold = 0
    for draw in range(100):
        rows = people(np.random.default_rng(draw), 25, 4)
        values = (rows[first] * rows[second]).sum(axis=1)
        threshold, rate = threshold_at(list_comparisons(values, units[first], units[second], 25), 0.02)
        truth = 1 - np.searchsorted(population, threshold.value) / len(population)
        held += rate.low <= truth <= rate.high
        held_threshold += threshold.low <= population[right] <= threshold.high
        held_by_pairs += abs(truth - 0.02) <= 1.96 * np.sqrt(0.02 * 0.98 / len(values))
    assert 88 <= held <= 100
    assert 88 <= held_threshold <= 100
    assert held_by_pairs < 80


# -- thresholds -----------------------------------------------------------------------------------


@given(seed=st.integers(0, 9999), rate=st.floats(0.05, 0.9), ties=st.booleans())
def test_no_lower_threshold_keeps_to_the_rate(seed, rate, ties):
    values, first, second, n_units = strangers(seed, ties=ties)
    found = list_comparisons(values, first, second, n_units)
    try:
        threshold, achieved = threshold_at(found, rate)
    except EvaluationError:
        return
    assert (values >= threshold.value).mean() == pytest.approx(achieved.value)
    assert achieved.value <= rate + 1e-9
    below = np.unique(values)
    below = below[below < threshold.value]
    assert (values >= below[-1]).mean() > rate
    assert threshold.low <= threshold.value <= threshold.high
    assert achieved.low <= achieved.value <= achieved.high


def test_the_threshold_lies_midway_between_what_it_separates():
    first, second = np.arange(0, 200, 2), np.arange(1, 200, 2)
    values = np.arange(100) / 100
    threshold, achieved = threshold_at(list_comparisons(values, first, second, 200), 0.1)
    assert threshold.value == pytest.approx(0.895)
    assert achieved.value == pytest.approx(0.1)


def test_a_similarity_at_the_threshold_reaches_it():
    found = list_comparisons([0.5, 0.25], np.array([0, 2]), np.array([1, 3]), 4)
    assert rate_at(found, 0.5).value == 0.5
    assert rate_at(found, np.nextafter(0.5, 1)).value == 0


def test_impostors_that_all_tie_are_all_kept_out():
    first, second = np.triu_indices(70, 1)
    threshold, achieved = threshold_at(list_comparisons(np.full(2415, 0.7), first, second, 70), 0.1)
    assert threshold.value > np.float32(0.7)
    assert achieved.value == 0
    assert achieved.high == pytest.approx(3 / 35)  # thirty-five pairs share nobody


def test_no_error_among_few_shows_little():
    first, second = np.triu_indices(30, 1)
    with pytest.raises(EvaluationError, match=r"type --rate 0\.[23]"):
        threshold_at(list_comparisons(np.full(435, 0.7), first, second, 30), 0.1)


def test_a_rate_that_so_few_cannot_show_is_refused_and_the_least_is_named():
    values, first, second, n_units = strangers(3, n_units=12)
    found = list_comparisons(values, first, second, n_units)
    least = least_rate(found)
    with pytest.raises(EvaluationError, match=rf"0\.0001 is not supported by .* type --rate {least:g}"):
        threshold_at(found, 0.0001)
    threshold, _ = threshold_at(found, least)
    assert np.isfinite(threshold.value)


def test_the_least_rate_falls_with_more_individuals():
    rates = []
    for individuals in (10, 30, 90):
        rows = people(np.random.default_rng(1), individuals, 1)
        first, second = np.triu_indices(individuals, 1)
        found = list_comparisons((rows[first] * rows[second]).sum(1), first, second, individuals)
        rates.append(least_rate(found))
    assert rates[0] > rates[1] > rates[2]


@pytest.mark.parametrize("n", [0, 1, 2])
def test_hardly_any_comparison_shows_no_rate_at_all(n):
    found = list_comparisons(np.zeros(n), np.zeros(n, dtype=int), np.arange(1, n + 1), n + 1)
    assert least_rate(found) is None
    with pytest.raises(EvaluationError, match="no impostor comparison" if not n else "no rate at all"):
        threshold_at(found, 0.3)


def test_no_comparison_has_no_rate():
    with pytest.raises(EvaluationError, match="no comparisons"):
        rate_at(list_comparisons([], np.zeros(0, dtype=int), np.zeros(0, dtype=int), 0), 0.5)


@pytest.mark.parametrize("rate", [0, 1, -0.1, float("nan")])
def test_a_rate_is_a_share(rate):
    found = list_comparisons([0.1], np.array([0]), np.array([1]), 2)
    with pytest.raises(ConfigError, match="expected a share"):
        threshold_at(found, rate)


def test_nan_is_refused():
    with pytest.raises(ShapeError, match="hold NaN"):
        list_comparisons([0.1, np.nan], np.array([0, 0]), np.array([1, 2]), 3)
