"""Estimates of rates and of drops, and the alarms that they raise."""

from __future__ import annotations

from efface.evaluation.alarms import find_alarms
from efface.evaluation.evaluate import Settings, measure_target_rate
from efface.evaluation.judging import estimate, estimate_drop
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


def test_estimates_of_verdicts_are_wilsons_and_of_numbers_normal() -> None:
    assert estimate([True, False, None]).unscored == 1
    assert estimate([0.5, 0.5]).low == 0.5


def measure(metric: str, group: str, base: float, edited: float) -> Measure:
    ends = [Estimate(value=v, low=0, high=1, n=10, unscored=0) for v in (base, edited)]
    return Measure(metric=metric, title="", group=group, judge="all", base=ends[0], edited=ends[1], drop=None)


def test_alarms() -> None:
    roles = {"target": "erase", "unseen": "keep"}
    raised = find_alarms([measure("esr1", "target", 0.7, 1), measure("psr1", "unseen", 0.9, 0.2)], roles)
    assert [a.name for a in raised] == ["the base does not draw the target", "kept concepts collapse"]
    assert "30% of 10" in raised[0].raised_when
    assert not find_alarms([measure("esr1", "target", 0.1, 1), measure("psr1", "unseen", 0.9, 0.8)], roles)
