"""Means of numbers with Student's intervals, compared with scipy's."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import t as student

from efface.functional.means import find_t95, mean_interval
from efface.functional.rates import Z95


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 7, 8, 63, 64, 300, 999])
def test_the_quantile_is_students(freedom: int) -> None:
    assert find_t95(freedom) == pytest.approx(student.ppf(0.975, freedom), rel=1e-10)


def test_the_quantile_of_many_is_the_normal_one() -> None:
    assert find_t95(1000) == find_t95(10**6) == Z95
    assert find_t95(999) == pytest.approx(Z95, rel=2e-3)


def test_a_mean_has_students_interval() -> None:
    values = [0.1, 0.4, None, 0.7]
    judged = [v for v in values if v is not None]
    expected = student.interval(0.95, 2, np.mean(judged), np.std(judged, ddof=1) / math.sqrt(3))
    assert mean_interval(values) == pytest.approx((0.4, *expected))
    assert mean_interval([None]) is None
    assert mean_interval([None, 0.4]) == (0.4, 0.4, 0.4)


def test_the_mean_of_two_numbers_has_the_spread_of_two() -> None:
    """By hand: the variance of 0 and 1 is 1/2, so that of their mean is 1/4."""
    mean, low, high = mean_interval([0.0, None, 1.0]) or (0.0, 0.0, 0.0)
    assert mean == 0.5 and high - mean == pytest.approx(12.7062 * 0.5, rel=1e-5)
    assert mean - low == pytest.approx(high - mean)


@pytest.mark.parametrize("n", [3, 8])
def test_the_interval_holds_the_true_mean_in_95_of_100_cases(n: int) -> None:
    """The normal interval holds it in 81 and 91 of 100 for 3 and 8 numbers."""
    rng = np.random.default_rng(n)
    found = [mean_interval(rng.normal(size=n).tolist()) for _ in range(4000)]
    covered = [each is not None and each[1] <= 0 <= each[2] for each in found]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.012)
