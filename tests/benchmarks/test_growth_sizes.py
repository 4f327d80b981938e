"""The axes of much to do: each can be measured at its least, and a growth is fitted as it is."""

from __future__ import annotations

import pytest

from benchmarks.growth_sizes import POINTS, attack_rows, count_rows, erase_targets, fit_growth, measure
from tiny import tiny_model


@pytest.mark.parametrize("power", [0.5, 1.0, 2.0])
def test_a_growth_is_fitted_as_it_is(power: float) -> None:
    assert fit_growth([(n, 3 * n**power) for n in (1, 10, 100, 1000)]) == pytest.approx(power)


def test_fixed_cost_counts_less_the_further_an_axis_goes() -> None:
    assert fit_growth([(n, 5 + 0.01 * n) for n in (1, 10, 1000, 10_000, 100_000)]) == pytest.approx(1, abs=0.15)


def test_every_axis_ends_where_real_requests_do() -> None:
    ends = {axis: (points[0], points[-1]) for axis, points in POINTS.items()}
    assert ends == {"targets": (1, 500), "rows": (250, 100_000), "edits": (1, 50), "attack rows": (4, 400)}


def test_rows_and_edits_take_time_that_is_measured() -> None:
    model = tiny_model("epsilon")
    assert measure("edits", 2, model) > 0 and measure("rows", 20, model) > 0
    count_rows(64, model)()
    assert callable(erase_targets(2, model)) and callable(attack_rows(4, model))
