"""Draws small plots as SVG without a library: a canvas with axes, and the pages' plots on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ..plurals import write_count
from ..records.report import Estimate, Measure, Record
from .labels import ASCENT, Box, place_labels, spread_labels


@dataclass(frozen=True)
class Canvas:
    """A plot's area with its margins, in units of its view box; positions go from 0 to 1 on each axis."""

    width: int = 460
    height: int = 320
    left: int = 66
    top: int = 14
    right: int = 22
    bottom: int = 44
    title_x: int = 11
    """The x coordinate of the vertical axis' title."""

    def place_x(self, v: float) -> float:
        """The coordinate of a position on the horizontal axis."""
        return round(self.left + v * (self.width - self.left - self.right), 1)

    def place_y(self, v: float) -> float:
        """The coordinate of a position on the vertical axis, from the top; position 1 is highest."""
        return round(self.height - self.bottom - v * (self.height - self.top - self.bottom), 1)

    def draw_tick_x(self, v: float, text: str) -> str:
        """A grid line with its text below."""
        x = self.place_x(v)
        return (
            f'<line class="grid" x1="{x}" y1="{self.place_y(0)}" x2="{x}" y2="{self.place_y(1)}"/>'
            f'<text x="{x}" y="{self.place_y(0) + 18}" text-anchor="middle">{text}</text>'
        )

    def draw_tick_y(self, v: float, text: str) -> str:
        """A grid line with its text on the left."""
        y = self.place_y(v)
        return (
            f'<line class="grid" x1="{self.place_x(0)}" y1="{y}" x2="{self.place_x(1)}" y2="{y}"/>'
            f'<text x="{self.place_x(0) - 6}" y="{y + 4}" text-anchor="end">{text}</text>'
        )

    def draw(self, marks: Sequence[str], x_title: str, y_title: str) -> Markup:
        """Draws the plot: the titles of the axes, and the marks, which are SVG already."""
        titles = (
            f'<text x="{(self.left + self.width - self.right) / 2}" y="{self.height - 8}" text-anchor="middle">'
            f"{escape(x_title)}</text>"
            f'<text transform="translate({self.title_x} {(self.top + self.height - self.bottom) / 2}) rotate(-90)" '
            f'text-anchor="middle">{escape(y_title)}</text>'
        )
        name = escape(" against ".join(filter(None, (y_title, x_title))))
        return Markup(
            f'<svg class="plot" viewBox="0 0 {self.width} {self.height}" role="img" aria-label="{name}">'
            f"{titles}{''.join(marks)}</svg>"
        )

    @property
    def area(self) -> Box:
        """The area within the axes."""
        return Box(self.place_x(0), self.place_y(1), self.place_x(1), self.place_y(0))

    def spread_labels(self, heights: Sequence[float]) -> list[float]:
        """Moves the baselines of labels apart, above the horizontal axis."""
        return spread_labels(heights, ASCENT, self.place_y(0) - 2)


PLOT = Canvas()
DOT = 5.0
"""The radius of a point's mark."""
NAME = 40
"""The number of letters of a line's name that a plot has room for."""


@dataclass(frozen=True)
class Point:
    """A rate on each axis with its interval, all in [0, 1]."""

    number: int
    """The number beside its mark."""
    label: str
    kind: str
    """"base" or "edit", which decides its mark."""
    x: tuple[float, float, float]
    y: tuple[float, float, float]


@dataclass(frozen=True)
class Series:
    """A line of estimates, ordered by position."""

    label: str
    kind: str
    """"base" or "edit", which decides its style."""
    points: Sequence[tuple[float, Estimate]]


@dataclass(frozen=True)
class Curve:
    """A plot of lines, with its title."""

    title: str
    svg: Markup


def draw_scatter(points: Sequence[Point], x_title: str, y_title: str) -> Markup:
    """Draws points with crosses for their intervals; each shows its numbers on hover.

    The numbers of edits stand beside their marks where neither another number nor a mark is.
    """
    ticks = [PLOT.draw_tick_x(v / 4, f"{v / 4:.0%}") + PLOT.draw_tick_y(v / 4, f"{v / 4:.0%}") for v in range(5)]
    marks = [(PLOT.place_x(p.x[0]), PLOT.place_y(p.y[0])) for p in points]
    numbered = [(p, mark) for p, mark in zip(points, marks, strict=True) if p.kind == "edit"]
    placed = place_labels([(str(p.number), mark) for p, mark in numbered], PLOT.area, marks, DOT + 1)
    numbers = [label.draw(_describe(p)) for label, (p, _) in zip(placed, numbered, strict=True)]
    return PLOT.draw([*ticks, *(_mark(p) for p in points), *numbers], x_title, y_title)


def plot_thresholds(record: Record) -> list[Curve]:
    """Plots each number that was measured at several thresholds, for the base and the edited model."""
    found: dict[tuple[str, str, str], list[tuple[float, Measure]]] = {}
    for m in record.measures:
        if m.threshold is not None:
            found.setdefault((m.metric, m.group, m.judge), []).append((m.threshold, m))
    made = []
    for (metric, group, judge), taken in found.items():
        if len(taken) > 1:
            taken = sorted(taken, key=lambda pair: pair[0])
            lines = [
                Series("base", "base", [(t, m.base) for t, m in taken]),
                Series("edited", "edit", [(t, m.edited) for t, m in taken]),
            ]
            by = "" if judge == "all" else f" ({judge})"
            share = taken[0][1].unit == "share"
            made.append(Curve(f"{format_metric(metric)} of {group} by threshold{by}", draw_curve(lines, metric, share)))
    return made


def format_metric(metric: str) -> str:
    return metric.upper() if len(metric) < 5 else metric.capitalize()


def draw_curve(lines: Sequence[Series], y_title: str, share: bool = True) -> Markup:
    """Draws lines over the thresholds of a detector, with bands for their intervals."""
    highest = max([e.high for line in lines for _, e in line.points if e.value is not None], default=0.0)
    top = next((t for t in (0.1, 0.25, 0.5) if highest <= t), 1.0) if share else max(highest, 1e-12)
    ticks = [PLOT.draw_tick_y(v / 4, f"{v / 4 * top:.3g}" if not share else f"{v * 25 * top:g}%") for v in range(5)]
    places = sorted({t for line in lines for t, _ in line.points})
    reach = (places[-1] - places[0]) or 1.0
    ticks += [PLOT.draw_tick_x((t - places[0]) / reach, f"{t:g}") for t in places]
    marks = [_draw_line(line, [(t - places[0]) / reach for t, _ in line.points], top) for line in lines]
    marks += _name_lines(lines, places[0], reach, top)
    return PLOT.draw([*ticks, *marks], "threshold from which a detection counts", y_title)


def draw_climbs(rates: Mapping[str, Sequence[float]], y_title: str) -> Markup:
    """Draws how rates rise with queries, a line for each. `rates` has the rates after 0, 1, 2 … queries, in [0, 1]."""
    most = max((len(r) for r in rates.values()), default=1) - 1
    ticks = [PLOT.draw_tick_y(v / 4, f"{v / 4:.0%}") for v in range(5)]
    ticks += [PLOT.draw_tick_x(q / max(most, 1), f"{q}") for q in sorted({0, most // 4, most // 2, most})]
    marks, ends = [], []
    for number, (name, rate) in enumerate(rates.items()):
        path = " ".join(f"{PLOT.place_x(q / max(most, 1))},{PLOT.place_y(v)}" for q, v in enumerate(rate))
        dash = ("", ' stroke-dasharray="6 3"', ' stroke-dasharray="2 2"')[number // 4 % 3]
        style = f'class="line{number % 4}"{dash}'
        ends.append((name, style, (PLOT.place_x((len(rate) - 1) / max(most, 1)), PLOT.place_y(rate[-1]))))
        title = f"<title>{escape(name)}: {rate[-1]:.1%} after {len(rate) - 1}</title>"
        marks.append(f'<g {style}>{title}<polyline points="{path}"/></g>')
    marks += name_ends(ends)
    return PLOT.draw([*ticks, *marks], "queries of a row", y_title)


def draw_strip(chosen: Sequence[str], words: Sequence[str]) -> Markup:
    """Draws which word was chosen at which step: a line for each of `words`, with marks at its steps."""
    line, left, width = 18, 120, 640
    height = line * len(words) + 30
    each = (width - left - 10) / max(len(chosen), 1)
    marks = []
    for row, word in enumerate(words):
        y = row * line + 4
        marks.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(word)}</text>')
        for begin, end in _find_runs([c == word for c in chosen]):
            says = escape(f"{word}: {begin + 1} to {end}" if end > begin + 1 else f"{word}: {end}")
            x, w = left + begin * each, max((end - begin) * each, 0.75)
            marks.append(f'<rect x="{x:.2f}" y="{y}" width="{w:.2f}" height="{line - 4}"><title>{says}</title></rect>')
    foot = height - 10
    marks.append(f'<text x="{left}" y="{foot}">1</text>')
    marks.append(f'<text x="{width - 10}" y="{foot}" text-anchor="end">{len(chosen)}</text>')
    marks.append(f'<text x="{(left + width) / 2}" y="{foot}" text-anchor="middle">step of the search</text>')
    name = f"words chosen over {write_count(len(chosen), 'step')}"
    return Markup(
        f'<svg class="plot strip" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{"".join(marks)}</svg>'
    )


def name_ends(ends: Sequence[tuple[str, str, tuple[float, float]]]) -> list[str]:
    """Names lines at their ends (x, y), beside a sample of each line's style, given as SVG attributes."""
    heights = PLOT.spread_labels([y - 5 for _, _, (_, y) in ends])
    return [
        f'<g {style}><polyline points="{x - 24:.1f},{y - 4:.1f} {x - 4:.1f},{y - 4:.1f}"/>'
        f'<text x="{x - 28:.1f}" y="{y:.1f}" text-anchor="end">{escape(name)}</text></g>'
        for (name, style, (x, _)), y in zip(ends, heights, strict=True)
    ]


def _find_runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """The ranges [begin, end) in which a flag is set without a gap."""
    out: list[tuple[int, int]] = []
    for i, flag in enumerate(flags):
        if flag and out and out[-1][1] == i:
            out[-1] = (out[-1][0], i + 1)
        elif flag:
            out.append((i, i + 1))
    return out


def _describe(p: Point) -> str:
    return f"{p.label}: erased {p.x[0]:.1%}, kept {p.y[0]:.1%}"


def _mark(p: Point) -> str:
    (x, x_low, x_high), (y, y_low, y_high) = p.x, p.y
    return (
        f'<g class="{escape(p.kind)}"><title>{escape(_describe(p))}</title>'
        f'<line x1="{PLOT.place_x(x_low)}" y1="{PLOT.place_y(y)}" x2="{PLOT.place_x(x_high)}" y2="{PLOT.place_y(y)}"/>'
        f'<line x1="{PLOT.place_x(x)}" y1="{PLOT.place_y(y_low)}" x2="{PLOT.place_x(x)}" y2="{PLOT.place_y(y_high)}"/>'
        f'<circle cx="{PLOT.place_x(x)}" cy="{PLOT.place_y(y)}" r="{DOT:g}"/></g>'
    )


def _draw_line(line: Series, places: Sequence[float], top: float) -> str:
    """Draws a line of values, a band of their bounds, and dots that show numbers. `places` are positions in [0, 1]."""
    pairs = zip(places, line.points, strict=True)
    taken = [(PLOT.place_x(x), t, e, e.value) for x, (t, e) in pairs if e.value is not None]
    if not taken:
        return ""
    name = escape(line.label)
    path = " ".join(f"{x},{PLOT.place_y(value / top)}" for x, _, _, value in taken)
    high = [f"{x},{PLOT.place_y(e.high / top)}" for x, _, e, _ in taken]
    low = [f"{x},{PLOT.place_y(max(e.low, 0.0) / top)}" for x, _, e, _ in reversed(taken)]
    dots = "".join(
        f'<circle cx="{x}" cy="{PLOT.place_y(value / top)}" r="3.5">'
        f"<title>{name} at {t:g}: {value:.3g} ({e.low:.3g} to {e.high:.3g}), n = {e.n}</title></circle>"
        for x, t, e, value in taken
    )
    return (
        f'<g class="{escape(line.kind)}"><polygon points="{" ".join([*high, *low])}"/><polyline points="{path}"/>{dots}'
        "</g>"
    )


def _name_lines(lines: Sequence[Series], first: float, reach: float, top: float) -> list[str]:
    """The lines' names, each beside a middle point of its line; thresholds go from `first` over `reach`."""
    dots = [
        [
            (PLOT.place_x((t - first) / reach), PLOT.place_y(e.value / top))
            for t, e in line.points
            if e.value is not None
        ]
        for line in lines
    ]
    named = [(line.label, taken[len(taken) // 2]) for line, taken in zip(lines, dots, strict=True) if taken]
    short = [(name if len(name) <= NAME else f"{name[: NAME - 1]}…", mark) for name, mark in named]
    placed = place_labels(short, PLOT.area, [d for taken in dots for d in taken], 4.5)
    return [label.draw(name) for label, (name, _) in zip(placed, named, strict=True)]
