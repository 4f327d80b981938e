"""Finds places for the labels of a plot at which none covers another, a mark, or the frame."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

LETTER, ASCENT, DESCENT = 7.4, 10.6, 2.8
"""The width of a letter and the extents above and below the baseline, at least, of the plots' text of 11 units."""
LINE = ASCENT + DESCENT
"""The height of a line of text."""
NEAR = 12.0
"""The distance from its mark from which on a label is joined to it by a line."""
CLEARLY = 1.5
"""A label belongs to its mark clearly if all other marks are so many times farther away."""
STEP = 4.0
CORNERS = [(1, -1), (-1, -1), (1, 1), (-1, 1)]
DIRECTIONS = [
    *CORNERS,
    (1, 0),
    (-1, 0),
    (0, -1),
    (0, 1),
    *((a * x, b * y) for x, y in CORNERS for a, b in ((0.5, 1), (1, 0.5))),
]
"""Where a label is tried around its mark: first at the corners, then at the sides, then between them."""


@dataclass(frozen=True)
class Box:
    """A rectangle in units of the view box; y grows downwards."""

    left: float
    top: float
    right: float
    bottom: float

    def measure_overlap(self, other: Box) -> float:
        """The area that both boxes share."""
        wide = min(self.right, other.right) - max(self.left, other.left)
        high = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(wide, 0.0) * max(high, 0.0)

    def holds(self, other: Box) -> bool:
        """Whether the other box is wholly within this one."""
        return (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )


@dataclass(frozen=True)
class Label:
    """A text with its place, and the mark (x, y) that it belongs to."""

    text: str
    box: Box
    mark: tuple[float, float]

    def draw(self, title: str = "") -> str:
        """Draws the text, which shows `title` on hover, with a line to its mark where that is not beside it."""
        x, y = self.mark
        end_x = min(max(x, self.box.left), self.box.right)
        end_y = min(max(y, self.box.top), self.box.bottom)
        far = math.hypot(end_x - x, end_y - y) > NEAR
        line = f'<line class="leader" x1="{x}" y1="{y}" x2="{end_x:.1f}" y2="{end_y:.1f}"/>' if far else ""
        middle, base = (self.box.left + self.box.right) / 2, self.box.bottom - DESCENT
        hover = f"<title>{escape(title)}</title>" if title else ""
        text = f'<text x="{middle:.1f}" y="{base:.1f}" text-anchor="middle">{escape(self.text)}</text>'
        return Markup(f'<g class="label">{hover}{line}{text}</g>')


def place_labels(
    labels: Sequence[tuple[str, tuple[float, float]]], area: Box, marks: Sequence[tuple[float, float]], radius: float
) -> list[Label]:
    """Places each label, given with the (x, y) of its mark, as near to the mark as there is free room in the area.

    `marks` are the centres of all marks that must stay visible, `radius` is their size. A place that is hardly nearer
    to the label's own mark than to another is taken only where there is no better one. Where no room is left at all, a
    label lies where it covers the least.
    """
    taken = [Box(x - radius, y - radius, x + radius, y + radius) for x, y in marks]
    out: list[Label] = []
    for text, mark in labels:
        best, least = None, (math.inf, False)
        for box in _list_places(text, mark, area, radius):
            cost = (sum(box.measure_overlap(other) for other in taken), _misleads(box, mark, marks))
            if cost < least:
                best, least = box, cost
            if cost == (0, False):
                break
        if best is None:  # the text is longer than the area is wide
            wide = len(text) * LETTER
            best = Box(area.left, mark[1] - radius - LINE, area.left + wide, mark[1] - radius)
        taken.append(best)
        out.append(Label(text, best, mark))
    return out


def _misleads(box: Box, mark: tuple[float, float], marks: Sequence[tuple[float, float]]) -> bool:
    """Whether a reader could take the text in this box for another mark's."""
    centre = ((box.left + box.right) / 2, (box.top + box.bottom) / 2)
    return any(other != mark and math.dist(centre, other) < CLEARLY * math.dist(centre, mark) for other in marks)


def spread_labels(heights: Sequence[float], top: float, bottom: float, gap: float = LINE) -> list[float]:
    """Moves baselines, which grow downwards, until they are `gap` apart between `top` and `bottom`.

    Upper labels are moved up first, and where they would pass the top, all that are too near are moved down again. If
    there are too many labels for the height, they stand as far apart as it allows.
    """
    if len(heights) > 1:
        gap = min(gap, (bottom - top) / (len(heights) - 1))
    out = [min(max(height, top), bottom) for height in heights]
    order = sorted(range(len(out)), key=lambda i: out[i])
    for lower, upper in zip(reversed(order), list(reversed(order))[1:], strict=False):
        out[upper] = min(out[upper], out[lower] - gap)
    for place, i in enumerate(order):
        out[i] = max(out[i], top + place * gap)
    return out


def _list_places(text: str, mark: tuple[float, float], area: Box, radius: float) -> Iterator[Box]:
    """The places of a text around its mark that are within the area, the nearest first."""
    wide, high = len(text) * LETTER, LINE
    away = radius + 1.0
    while away < max(area.right - area.left, area.bottom - area.top):
        for across, down in DIRECTIONS:
            x = mark[0] + across * (away + wide / 2)
            y = mark[1] + down * (away + high / 2)
            box = Box(x - wide / 2, y - high / 2, x + wide / 2, y + high / 2)
            if area.holds(box):
                yield box
        away += STEP
