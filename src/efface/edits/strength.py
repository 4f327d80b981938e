"""How much of an edit is applied: 0 is the untouched model, 1 the whole edit, and beyond lies extrapolation."""

from __future__ import annotations

import math

LARGEST = 10.0
"""Strengths from -LARGEST to LARGEST are taken; what lies beyond leaves no model that draws."""


def check_strength(strength: float) -> float:
    """The strength; ValueError where it is no finite number from -10 to 10.

    >>> check_strength(0.5)
    0.5
    """
    if not (math.isfinite(strength) and abs(strength) <= LARGEST):
        raise ValueError(
            f"a strength is a number from {-LARGEST:g} to {LARGEST:g}, where 0 is the untouched model and 1 the whole "
            f"edit; got {strength:g}"
        )
    return strength
