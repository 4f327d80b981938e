"""The strength of an edit: 0 is the untouched model, 1 the whole edit, and other numbers extrapolate."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..plurals import write_count

LARGEST = 10.0
"""Strengths from -LARGEST to LARGEST are allowed; larger ones leave no model that draws."""


def check_strength(strength: float) -> float:
    """Returns the strength; raises ValueError where it is no finite number from -10 to 10.

    >>> check_strength(0.5)
    0.5
    """
    if not (math.isfinite(strength) and abs(strength) <= LARGEST):
        raise ValueError(
            f"a strength is a number from {-LARGEST:g} to {LARGEST:g}, where 0 is the untouched model and 1 the whole "
            f"edit; got {strength:g}"
        )
    return strength


def spread_strengths(strength: float | Sequence[float], count: int) -> list[float]:
    """The strength of each of `count` edits, from one number for all of them or a number for each.

    Raises ValueError where there is another number of strengths, or one is out of bounds.

    >>> spread_strengths(0.5, 2), spread_strengths((0.5, 1.0), 2)
    ([0.5, 0.5], [0.5, 1.0])
    """
    each = [strength] * count if isinstance(strength, int | float) else list(strength)
    if len(each) != count:
        raise ValueError(
            f"{write_count(len(each), 'strength')} for {write_count(count, 'edit')}; give one for all, or one for each"
        )
    if isinstance(strength, int | float):
        check_strength(strength)
    return [check_strength(one) for one in each]
