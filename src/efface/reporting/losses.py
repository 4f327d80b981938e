"""Plots the losses of a training, which its Edit holds, over its steps."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup, escape

from .svg import PLOT, name_ends

Values = Sequence[float | None]
WIDE = 20.0
"""The ratio of the largest and the smallest loss from which on the vertical axis is logarithmic."""


@dataclass(frozen=True)
class LossSeries:
    """Losses by role at some steps; None where a role had no part."""

    steps: Sequence[int]
    roles: Mapping[str, Values]


def read_series(note: Any) -> LossSeries | None:
    """Reads the series that `efface.training.loss_log` wrote; None for anything else, and for a single step."""
    if not isinstance(note, Mapping) or not all(isinstance(v, list | tuple) for v in note.values()):
        return None
    steps = note.get("step", ())
    roles = {role: v for role, v in note.items() if role != "step" and any(x is not None for x in v)}
    numbers = all(x is None or type(x) in (int, float) for v in roles.values() for x in v)
    whole = all(type(step) is int for step in steps) and all(len(v) == len(steps) for v in roles.values())
    return LossSeries(steps, roles) if roles and numbers and whole and len(steps) > 1 else None


def describe_series(series: LossSeries) -> str:
    """The first and the last loss of each role, in words."""
    ends = {role: [v for v in values if v is not None] for role, values in series.roles.items()}
    return "; ".join(f"{role}: {v[0]:.4g} at first, {v[-1]:.4g} at last" for role, v in ends.items())


def draw_losses(series: LossSeries) -> Markup:
    """Draws a line for each role over the steps, with gaps where the role had no part.

    The vertical axis is logarithmic where all losses are above 0 and the largest is `WIDE` times the smallest.
    """
    there = [v for values in series.roles.values() for v in values if v is not None]
    by_log = min(there) > 0 and max(there) >= WIDE * min(there)
    low, high = (math.log10(v) if by_log else v for v in (min(there), max(there)))
    first, last, reach = series.steps[0], series.steps[-1], (high - low) or 1.0

    def place(step: int, value: float) -> tuple[float, float]:
        return (step - first) / (last - first), ((math.log10(value) if by_log else value) - low) / reach

    marks = [PLOT.draw_tick_y(i / 4, f"{_find_value(low + i / 4 * reach, by_log):.2g}") for i in range(5)]
    marks += [
        PLOT.draw_tick_x((s - first) / (last - first), f"{s}") for s in sorted({first, (first + last) // 2, last})
    ]
    pieces = {
        role: _split([None if v is None else place(s, v) for s, v in zip(series.steps, values, strict=True)])
        for role, values in series.roles.items()
    }
    ends = []
    for number, (role, found) in enumerate(pieces.items()):
        style = f'class="line{number % 4}"'
        paths = [" ".join(f"{PLOT.place_x(x)},{PLOT.place_y(y)}" for x, y in part) for part in found]
        lines = "".join(f'<polyline points="{path}"/>' for path in paths)
        ends.append((role, style, (PLOT.place_x(found[-1][-1][0]), PLOT.place_y(found[-1][-1][1]))))
        marks.append(f"<g {style}><title>{escape(role)}</title>{lines}</g>")
    marks += name_ends(ends)
    return PLOT.draw(marks, "step of the training", "loss, logarithmic" if by_log else "loss")


def _find_value(height: float, by_log: bool) -> float:
    return 10**height if by_log else height


def _split(points: Sequence[tuple[float, float] | None]) -> list[list[tuple[float, float]]]:
    """Splits points at the gaps into runs of consecutive points."""
    found: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is not None:
            found[-1].append(point)
        elif found[-1]:
            found.append([])
    return [part for part in found if part]
