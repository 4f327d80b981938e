"""Means of single numbers, such as CLIP similarities, with their intervals."""

import functools
import math
from collections.abc import Sequence

from .rates import Z95


def mean_interval(values: Sequence[float | None]) -> tuple[float, float, float] | None:
    """The mean and its 95 % interval by Student's t; `None` when nothing was judged.

    One value alone has no interval: its bounds are the value itself, and mean nothing.
    """
    judged = [v for v in values if v is not None]
    if not judged:
        return None
    mean = math.fsum(judged) / len(judged)
    spread = math.fsum((v - mean) ** 2 for v in judged) / max(len(judged) - 1, 1)
    half = find_t95(len(judged) - 1) * math.sqrt(spread / len(judged)) if len(judged) > 1 else 0.0
    return mean, mean - half, mean + half


@functools.cache
def find_t95(freedom: int) -> float:
    """The number that Student's t exceeds in absolute value in 5 % of cases, by its series for whole degrees of freedom
    (Abramowitz and Stegun 26.7.3 and 26.7.4); the normal one from 1,000 degrees on.

    >>> round(find_t95(1), 3), round(find_t95(7), 3), round(find_t95(1000), 3)
    (12.706, 2.365, 1.96)
    """
    if freedom >= 1000:
        return Z95

    def measure_within(t: float) -> float:
        angle, odd = math.atan(t / math.sqrt(freedom)), freedom % 2
        term, total = math.cos(angle) if odd else 1.0, 0.0
        for k in range(1, freedom // 2 + 1):
            total += term
            term *= math.cos(angle) ** 2 * (2 * k / (2 * k + 1) if odd else (2 * k - 1) / (2 * k))
        whole = math.sin(angle) * total
        return 2 / math.pi * (angle + whole) if odd else whole

    low, high = Z95, 13.0
    while low < (middle := (low + high) / 2) < high:
        low, high = (middle, high) if measure_within(middle) < 0.95 else (low, middle)
    return middle
