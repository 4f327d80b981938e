"""Draws lines on two logarithmic axes as SVG, without a plotting package."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 480, 320, 64, 46, 14, 90
COLOURS = ("#2458a6", "#b8472a", "#3d8a4e", "#7a4fa3")


@dataclass(frozen=True)
class Line:
    """Points (x, y), both above 0, by rising x."""

    name: str
    points: Sequence[tuple[float, float]]


def plot(lines: Sequence[Line], x_title: str, y_title: str) -> str:
    """Draws the whole picture; ValueError where a point has no logarithm."""
    every = [point for line in lines for point in line.points]
    if not every or min(min(point) for point in every) <= 0:
        raise ValueError("a logarithmic plot needs points above 0")
    (x_low, x_high), (y_low, y_high) = (_find_bounds([point[i] for point in every]) for i in (0, 1))

    def place(x: float, y: float) -> tuple[float, float]:
        across = (math.log10(x) - x_low) / (x_high - x_low)
        up = (math.log10(y) - y_low) / (y_high - y_low)
        return LEFT + across * (WIDTH - LEFT - RIGHT), HEIGHT - BOTTOM - up * (HEIGHT - TOP - BOTTOM)

    marks = []
    for k in _list_ticks(x_low, x_high):
        x, y = place(k, 10**y_low)
        marks.append(f'<line x1="{x:.1f}" y1="{TOP}" x2="{x:.1f}" y2="{y:.1f}" stroke="#ddd"/>')
        marks.append(f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{k:g}</text>')
    for k in _list_ticks(y_low, y_high):
        x, y = place(10**x_low, k)
        marks.append(f'<line x1="{x:.1f}" y1="{y:.1f}" x2="{WIDTH - RIGHT}" y2="{y:.1f}" stroke="#ddd"/>')
        marks.append(f'<text x="{x - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{k:g}</text>')
    for line, colour in zip(lines, COLOURS * len(lines), strict=False):
        placed = [place(*point) for point in line.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        marks.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        marks += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in placed]
        x, y = placed[-1]
        marks.append(f'<text x="{x + 7:.1f}" y="{y + 4:.1f}" fill="{colour}">{escape(line.name)}</text>')
    middle, half = (LEFT + WIDTH - RIGHT) / 2, (TOP + HEIGHT - BOTTOM) / 2
    marks.append(f'<text x="{middle}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>')
    marks.append(f'<text transform="translate(14 {half}) rotate(-90)" text-anchor="middle">{escape(y_title)}</text>')
    style = "font: 12px sans-serif; background: white"
    head = f'xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" style="{style}"'
    return f"<svg {head}>{''.join(marks)}</svg>\n"


def _find_bounds(values: Sequence[float]) -> tuple[float, float]:
    """The exponents around the values, which are never equal."""
    low, high = math.log10(min(values)), math.log10(max(values))
    room = max(0.05, 0.05 * (high - low))
    return low - room, high + room


def _list_ticks(low: float, high: float) -> list[float]:
    """1, 2 and 5 times each power of ten within the exponents, or only the powers if there are many."""
    every = [m * 10.0**k for k in range(math.floor(low), math.ceil(high) + 1) for m in (1, 2, 5)]
    inside = [v for v in every if low <= math.log10(v) <= high]
    return inside if len(inside) <= 8 else [v for v in inside if math.log10(v) == round(math.log10(v))]
