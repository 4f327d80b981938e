"""Estimates of rates and of drops, and the alarms that they raise."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import t as student

from efface.evaluation.alarms import find_alarms
from efface.evaluation.evaluate import Settings, measure_target_rate
from efface.evaluation.judging import estimate, estimate_drop, estimate_gain
from efface.functional.rates import bootstrap, paired_difference, wilson
from efface.models.adapters.sd import StableDiffusion
from efface.records.report import Estimate, Measure
from efface.suites.spec import Suite
from judging_fixtures import Planted


def test_what_the_base_draws_is_measured(model: StableDiffusion, suite: Suite) -> None:
    seen = measure_target_rate(model, suite.select_group("target"), [Planted()], Settings())
    assert (seen.value, seen.n) == (1, 12)


def test_paired_differences_resample_concepts() -> None:
    drop = estimate_drop([1, 1, 1, 0, None], [1, 0, 0, 0, 1], ["a", "a", "b", "b", "b"])
    assert drop and (drop.value, drop.clusters) == (0.5, 2)
    assert (drop.low, drop.high) == (0.5, 0.5)
    assert estimate_drop([True], [False], ["a"]) is None


def test_estimates_of_verdicts_are_wilsons_and_of_numbers_students() -> None:
    verdicts = estimate([True, False, None, True])
    assert (verdicts.value, verdicts.n, verdicts.unscored) == (2 / 3, 3, 1)
    assert (verdicts.low, verdicts.high) == wilson(2, 3)
    for nothing in ([], [None, None]):
        found = estimate(nothing)
        assert (found.value, found.low, found.high, found.n, found.unscored) == (None, 0, 1, 0, len(nothing))
    numbers = [0.2, None, 0.5, 0.8, 1.0]
    found, judged = estimate(numbers), [0.2, 0.5, 0.8, 1.0]
    half = student.ppf(0.975, 3) * float(np.std(judged, ddof=1)) / 2
    assert (found.n, found.unscored, found.value) == (4, 1, pytest.approx(0.625))
    assert (found.low, found.high) == pytest.approx((0.625 - half, 0.625 + half))
    assert estimate([1.0, 1.0]).low == 1.0, "numbers that are all 1 are no verdicts"


def test_a_drop_is_the_base_minus_the_edited_model() -> None:
    """By hand: concept a loses 1/2 on average, b gains 1/4; the row without a score does not count."""
    base, edited = [1.0, 0.5, 0.5, 0.5, None], [0.0, 0.5, 0.5, 1.0, 0.0]
    drop = estimate_drop(base, edited, ["a", "a", "b", "b", "b"])
    assert drop and (drop.value, drop.clusters) == (0.125, 2)
    assert (drop.low, drop.high) == (-0.25, 0.5)
    alone = estimate_drop(base, edited, ["a"] * 5)
    rows = {"0": [1.0], "1": [0.0], "2": [0.0], "3": [-0.5]}
    assert alone and (alone.value, alone.clusters) == (0.125, 4)
    assert (alone.low, alone.high) == bootstrap(rows)


ROWS = [(True, False)] * 5 + [(False, True)] * 2 + [(True, True)] * 3 + [(False, False)] * 6
"""Whether an attack and its baseline broke a row: 5 rows for it, 2 against it."""


@pytest.mark.parametrize("prompts", [[str(i) for i in range(16)], ["a cat"] * 16])
def test_the_gain_of_an_attack_is_tangos_where_rows_are_independent(prompts: list[str]) -> None:
    after, floor = ([pair[side] for pair in ROWS] for side in (0, 1))
    gain = estimate_gain(after, floor, prompts)
    assert gain and (gain.value, gain.clusters) == (3 / 16, 16)
    assert (gain.low, gain.high) == paired_difference(5, 2, 16)
    lost = estimate_gain([*after, None, True], [*floor, True, None], [*prompts, prompts[0], prompts[0]])
    assert lost == gain, "rows that were not judged under both do not count"
    assert estimate_gain([None, True], [True, None], prompts[:2]) is None


def test_the_gain_of_an_attack_resamples_prompts_that_have_several_rows() -> None:
    after, floor = ([pair[side] for pair in ROWS] for side in (0, 1))
    prompts = ["a"] * 7 + ["b"] * 9
    gain = estimate_gain(after, floor, prompts)
    assert gain and gain.clusters == 2
    assert gain.value == pytest.approx(3 / 16), "as the success rate is above the baseline's"
    drawn, independent = (0, 3 / 7), paired_difference(5, 2, 16)
    assert (gain.low, gain.high) == pytest.approx((min(drawn[0], independent[0]), max(drawn[1], independent[1])))
    agreed = estimate_gain([True] * 4, [False] * 4, ["a", "a", "b", "b"])
    assert agreed and (agreed.low, agreed.high, agreed.clusters) == (*paired_difference(4, 0, 4), 2), "not [1, 1]"


def test_a_loss_is_the_difference_of_the_two_rates_whatever_the_sizes_of_concepts() -> None:
    """90 rows of one concept lose nothing, 10 of another all: 10 points of the share of pictures, not 50."""
    edited, concepts = [True] * 90 + [False] * 10, ["a"] * 90 + ["b"] * 10
    drop = estimate_drop([True] * 100, edited, concepts)
    assert drop and drop.clusters == 2
    assert drop.value == pytest.approx(estimate([True] * 100).value - estimate(edited).value) == pytest.approx(0.1)  # type: ignore[operator]
    sizes = {"a": [0.0] * 90, "b": [1.0] * 10, "c": [0.0] * 30, "d": [1.0] * 20, "e": [0.5] * 10}
    several = estimate_drop(
        [v for values in sizes.values() for v in values],
        [0.0] * 160,
        [name for name, values in sizes.items() for _ in values],
    )
    rng, parts = np.random.default_rng(1), [np.array(values) for values in sizes.values()]
    draws = [np.concatenate([parts[i] for i in rng.integers(5, size=5)]).mean() for _ in range(20_000)]
    assert several and several.value == pytest.approx(35 / 160)
    assert (several.low, several.high) == pytest.approx(np.quantile(draws, [0.025, 0.975]), abs=0.03)


def test_one_concepts_loss_resamples_prompts_and_not_their_seeds() -> None:
    """4 prompts with 25 seeds each, whose pictures are all alike: the evidence is of 4 prompts, not of 100 pictures."""
    lost = [1.0, 0.0, 0.0, 1.0]
    base, prompts = [lost[i // 25] for i in range(100)], [f"prompt {i // 25}" for i in range(100)]
    drop = estimate_drop(base, [0.0] * 100, ["a"] * 100, prompts)
    assert drop and (drop.value, drop.clusters) == (0.5, 4)
    assert (drop.low, drop.high) == bootstrap({str(i): [x] for i, x in enumerate(lost)})
    rows = estimate_drop(base, [0.0] * 100, ["a"] * 100, ["one prompt"] * 100)
    assert rows and rows.clusters == 100 and rows.high - rows.low < 0.5 * (drop.high - drop.low)
    half = estimate_drop([*base, None], [0.0] * 101, ["a"] * 100 + ["b"], [*prompts, "other"])
    assert half == drop, "a concept of which nothing was judged is none"


def measure(metric: str, group: str, base: float, edited: float) -> Measure:
    ends = [Estimate(value=v, low=0, high=1, n=10, unscored=0) for v in (base, edited)]
    return Measure(metric=metric, title="", group=group, judge="all", base=ends[0], edited=ends[1], drop=None)


def test_alarms() -> None:
    roles = {"target": "erase", "unseen": "keep"}
    raised = find_alarms([measure("esr1", "target", 0.7, 1), measure("psr1", "unseen", 0.9, 0.2)], roles)
    assert [a.name for a in raised] == ["the base does not draw the target", "kept concepts collapse"]
    assert "30% of 10" in raised[0].raised_when
    assert not find_alarms([measure("esr1", "target", 0.1, 1), measure("psr1", "unseen", 0.9, 0.8)], roles)
