"""Estimates how many more pictures would decide a rule whose interval is too wide."""

from __future__ import annotations

import math

from ..evaluation.alarms import UNSCORED
from ..functional.rates import wilson
from .gate import WIDEST, RuleResult
from .rules import parse_rule

MOST = 1_000_000
"""The largest number of pictures that anybody would draw; beyond it the rate is practically on the bar."""


def count_deciding(finding: RuleResult, widest: float = WIDEST) -> int | None:
    """Estimates how many further pictures would decide a rule if the rate stays the same.

    A rate's interval is computed as Wilson's at the larger n; any other interval is assumed to shrink with the square
    root of n. The rule is decided if `gate.judge_rule` would say that it holds or failed.

    Args:
        finding: the result of the rule.
        widest: the largest width of a deciding interval, as in `gate.verify`.

    Returns:
        The number of pictures beyond `finding.n`; None where the rule is decided already, where more pictures don't
        help because nothing was measured or too many have no score, and where a million would not suffice.
    """
    if finding.outcome != "unjudged" or finding.value is None or not finding.n:
        return None
    if finding.unscored / (finding.n + finding.unscored) > UNSCORED:
        return None
    if _is_decided(finding, finding.n, widest):
        return None  # it is open because of an interrupted attack, not for lack of pictures
    low, high = finding.n, finding.n
    while not _is_decided(finding, high, widest):
        if high >= MOST:
            return None
        low, high = high, min(2 * high, MOST)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if _is_decided(finding, middle, widest) else (middle, high)
    return high - finding.n


def _is_decided(finding: RuleResult, n: int, widest: float) -> bool:
    """Whether the rule would hold or fail with n pictures of the same rate."""
    low, high = _find_interval(finding, n)
    if parse_rule(finding.rule).below:
        holds, fails = low >= finding.bar, high < finding.bar
    else:
        holds, fails = high <= finding.bar, low > finding.bar
    return holds or fails or high - low <= widest + 1e-9


def _find_interval(finding: RuleResult, n: int) -> tuple[float, float]:
    value = finding.value or 0.0
    if 0.0 <= value <= 1.0:  # losses are negative where something is gained, and scores can be any number
        own = wilson(round(value * finding.n), finding.n)
        if math.isclose(own[0], finding.low, abs_tol=1e-9) and math.isclose(own[1], finding.high, abs_tol=1e-9):
            return wilson(round(value * n), n)
    shrink = math.sqrt(finding.n / n)
    return value - (value - finding.low) * shrink, value + (finding.high - value) * shrink
