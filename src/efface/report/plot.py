"""A small plot by hand: preservation against erasure, with intervals, as SVG that needs nothing."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 460, 320, 52, 14, 14, 44


@dataclass(frozen=True)
class Point:
    """A rate on each axis with its interval, all in [0, 1]."""

    label: str
    kind: str
    """"base" or "edit": decides its mark."""
    x: tuple[float, float, float]
    y: tuple[float, float, float]


def scatter(points: Sequence[Point], x_title: str, y_title: str) -> Markup:
    """Points with crosses for their intervals; each says its numbers on hover and to screen readers."""
    ticks = [_tick(v / 4) for v in range(5)]
    titles = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>'
        f'<text transform="translate(14 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
    marks = "".join(_mark(p) for p in points)
    name = escape(f"{y_title} against {x_title}")
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"{''.join(ticks)}{titles}{marks}</svg>"
    )


def _x(v: float) -> float:
    return round(LEFT + v * (WIDTH - LEFT - RIGHT), 1)


def _y(v: float) -> float:
    return round(HEIGHT - BOTTOM - v * (HEIGHT - TOP - BOTTOM), 1)


def _tick(v: float) -> str:
    x, y = _x(v), _y(v)
    return (
        f'<line class="grid" x1="{x}" y1="{_y(0)}" x2="{x}" y2="{_y(1)}"/>'
        f'<line class="grid" x1="{_x(0)}" y1="{y}" x2="{_x(1)}" y2="{y}"/>'
        f'<text x="{x}" y="{_y(0) + 16}" text-anchor="middle">{v:.0%}</text>'
        f'<text x="{_x(0) - 6}" y="{y + 4}" text-anchor="end">{v:.0%}</text>'
    )


def _mark(p: Point) -> str:
    (x, x_low, x_high), (y, y_low, y_high) = p.x, p.y
    says = escape(f"{p.label}: {x:.1%} and {y:.1%}")
    beside = 'text-anchor="end" dx="-9"' if x > 0.6 else 'dx="9"'
    return (
        f'<g class="{escape(p.kind)}"><title>{says}</title>'
        f'<line x1="{_x(x_low)}" y1="{_y(y)}" x2="{_x(x_high)}" y2="{_y(y)}"/>'
        f'<line x1="{_x(x)}" y1="{_y(y_low)}" x2="{_x(x)}" y2="{_y(y_high)}"/>'
        f'<circle cx="{_x(x)}" cy="{_y(y)}" r="5"/>'
        f'<text x="{_x(x)}" y="{_y(y)}" dy="-7" {beside}>{escape(p.label)}</text></g>'
    )
