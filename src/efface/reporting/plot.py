"""Small plots by hand, as SVG that needs nothing: preservation against erasure, rates over thresholds, choices."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from ..records.report import Estimate, Measure, Record

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 460, 320, 52, 14, 22, 44


@dataclass(frozen=True)
class Point:
    """A rate on each axis with its interval, all in [0, 1]."""

    number: int
    """What stands beside its mark."""
    label: str
    kind: str
    """"base" or "edit": decides its mark."""
    x: tuple[float, float, float]
    y: tuple[float, float, float]


@dataclass(frozen=True)
class Series:
    """A line: estimates by rising position."""

    label: str
    kind: str
    """"base" or "edit": decides its look."""
    points: Sequence[tuple[float, Estimate]]


@dataclass(frozen=True)
class Curve:
    """A plot of lines, with its title."""

    title: str
    svg: Markup


def scatter(points: Sequence[Point], x_title: str, y_title: str) -> Markup:
    """Numbered points with crosses for their intervals; each says its numbers on hover."""
    ticks = [_tick_x(v / 4, f"{v / 4:.0%}") + _tick_y(v / 4, f"{v / 4:.0%}") for v in range(5)]
    return _svg([*ticks, *(_mark(p) for p in points)], x_title, y_title)


def curves(record: Record) -> list[Curve]:
    """A plot for each number that was taken at several thresholds: base and edited."""
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
            made.append(Curve(f"{titled(metric)} of {group} by threshold{by}", curve(lines, metric, share)))
    return made


def titled(metric: str) -> str:
    return metric.upper() if len(metric) < 5 else metric.capitalize()


def curve(lines: Sequence[Series], y_title: str, share: bool = True) -> Markup:
    """Lines over the thresholds of a detector, with bands for their intervals."""
    highest = max([e.high for line in lines for _, e in line.points if e.value is not None], default=0.0)
    top = next((t for t in (0.1, 0.25, 0.5) if highest <= t), 1.0) if share else max(highest, 1e-12)
    ticks = [_tick_y(v / 4, f"{v / 4 * top:.3g}" if not share else f"{v / 4 * top:.1%}") for v in range(5)]
    places = sorted({t for line in lines for t, _ in line.points})
    reach = (places[-1] - places[0]) or 1.0
    ticks += [_tick_x((t - places[0]) / reach, f"{t:g}") for t in places]
    marks = [_line(line, [(t - places[0]) / reach for t, _ in line.points], top) for line in lines]
    return _svg([*ticks, *marks], "threshold from which a detection counts", y_title)


def climbs(rates: Mapping[str, Sequence[float]], y_title: str) -> Markup:
    """How rates rise with queries, a line each.  `rates`: after 0, 1, 2 … queries, in [0, 1]."""
    most = max((len(r) for r in rates.values()), default=1) - 1
    ticks = [_tick_y(v / 4, f"{v / 4:.0%}") for v in range(5)]
    ticks += [_tick_x(q / max(most, 1), f"{q}") for q in sorted({0, most // 4, most // 2, most})]
    marks = []
    heights = _apart([_y(rate[-1]) - 5 for rate in rates.values()])
    for number, (name, rate) in enumerate(rates.items()):
        path = " ".join(f"{_x(q / max(most, 1))},{_y(v)}" for q, v in enumerate(rate))
        dash = ("", ' stroke-dasharray="6 3"', ' stroke-dasharray="2 2"')[number // 4 % 3]
        end = f'x="{_x((len(rate) - 1) / max(most, 1)) - 4}" y="{heights[number]:.1f}"'
        marks.append(
            f'<g class="line{number % 4}"><title>{escape(name)}: {rate[-1]:.1%} after {len(rate) - 1}</title>'
            f'<polyline points="{path}"{dash}/><text {end} text-anchor="end">{escape(name)}</text></g>'
        )
    return _svg([*ticks, *marks], "queries of a row", y_title)


def strip(chosen: Sequence[str], words: Sequence[str]) -> Markup:
    """Which word was chosen at which step: a line a word, a mark a step.  `words`: those that have a line."""
    line, left, width = 18, 120, 640
    height = line * len(words) + 30
    each = (width - left - 10) / max(len(chosen), 1)
    marks = []
    for row, word in enumerate(words):
        y = row * line + 4
        marks.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(word)}</text>')
        for begin, end in _runs([c == word for c in chosen]):
            says = escape(f"{word}: {begin + 1} to {end}" if end > begin + 1 else f"{word}: {end}")
            x, w = left + begin * each, max((end - begin) * each, 0.75)
            marks.append(f'<rect x="{x:.2f}" y="{y}" width="{w:.2f}" height="{line - 4}"><title>{says}</title></rect>')
    foot = height - 10
    marks.append(f'<text x="{left}" y="{foot}">1</text>')
    marks.append(f'<text x="{width - 10}" y="{foot}" text-anchor="end">{len(chosen)}</text>')
    marks.append(f'<text x="{(left + width) / 2}" y="{foot}" text-anchor="middle">step of the search</text>')
    name = f"words chosen over {len(chosen)} steps"
    return Markup(
        f'<svg class="plot strip" viewBox="0 0 {width} {height}" role="img" aria-label="{name}">{"".join(marks)}</svg>'
    )


def _apart(heights: Sequence[float], gap: float = 12.0) -> list[float]:
    """Heights of labels, the upper ones moved up until none covers another."""
    out = list(heights)
    below = float("inf")
    for i in sorted(range(len(out)), key=lambda i: -out[i]):
        out[i] = min(out[i], below - gap)
        below = out[i]
    return out


def _runs(flags: Sequence[bool]) -> list[tuple[int, int]]:
    """Where a flag is set without a break: [begin, end)."""
    out: list[tuple[int, int]] = []
    for i, flag in enumerate(flags):
        if flag and out and out[-1][1] == i:
            out[-1] = (out[-1][0], i + 1)
        elif flag:
            out.append((i, i + 1))
    return out


def _svg(marks: Sequence[str], x_title: str, y_title: str) -> Markup:
    titles = (
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_title)}</text>'
        f'<text transform="translate(11 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(y_title)}</text>"
    )
    name = escape(f"{y_title} against {x_title}")
    return Markup(
        f'<svg class="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">'
        f"{titles}{''.join(marks)}</svg>"
    )


def _x(v: float) -> float:
    return round(LEFT + v * (WIDTH - LEFT - RIGHT), 1)


def _y(v: float) -> float:
    return round(HEIGHT - BOTTOM - v * (HEIGHT - TOP - BOTTOM), 1)


def _tick_x(v: float, text: str) -> str:
    x = _x(v)
    return (
        f'<line class="grid" x1="{x}" y1="{_y(0)}" x2="{x}" y2="{_y(1)}"/>'
        f'<text x="{x}" y="{_y(0) + 16}" text-anchor="middle">{text}</text>'
    )


def _tick_y(v: float, text: str) -> str:
    y = _y(v)
    return (
        f'<line class="grid" x1="{_x(0)}" y1="{y}" x2="{_x(1)}" y2="{y}"/>'
        f'<text x="{_x(0) - 6}" y="{y + 4}" text-anchor="end">{text}</text>'
    )


def _mark(p: Point) -> str:
    (x, x_low, x_high), (y, y_low, y_high) = p.x, p.y
    says = escape(f"{p.label}: erased {x:.1%}, kept {y:.1%}")
    beside = 'text-anchor="end" dx="-8"' if x > 0.9 else 'dx="8"'
    number = f'<text x="{_x(x)}" y="{_y(y)}" dy="-6" {beside}>{p.number}</text>' if p.kind == "edit" else ""
    return (
        f'<g class="{escape(p.kind)}"><title>{says}</title>'
        f'<line x1="{_x(x_low)}" y1="{_y(y)}" x2="{_x(x_high)}" y2="{_y(y)}"/>'
        f'<line x1="{_x(x)}" y1="{_y(y_low)}" x2="{_x(x)}" y2="{_y(y_high)}"/>'
        f'<circle cx="{_x(x)}" cy="{_y(y)}" r="5"/>{number}</g>'
    )


def _line(line: Series, places: Sequence[float], top: float) -> str:
    """A line through values, a band through their bounds, a dot with its numbers at each.  `places`: in [0, 1]."""
    pairs = zip(places, line.points, strict=True)
    taken = [(_x(x), t, e, e.value) for x, (t, e) in pairs if e.value is not None]
    if not taken:
        return ""
    name = escape(line.label)
    path = " ".join(f"{x},{_y(value / top)}" for x, _, _, value in taken)
    high = [f"{x},{_y(e.high / top)}" for x, _, e, _ in taken]
    low = [f"{x},{_y(max(e.low, 0.0) / top)}" for x, _, e, _ in reversed(taken)]
    dots = "".join(
        f'<circle cx="{x}" cy="{_y(value / top)}" r="3.5">'
        f"<title>{name} at {t:g}: {value:.3g} ({e.low:.3g} to {e.high:.3g}), n = {e.n}</title></circle>"
        for x, t, e, value in taken
    )
    x, _, _, value = taken[len(taken) // 2]
    return (
        f'<g class="{escape(line.kind)}"><polygon points="{" ".join([*high, *low])}"/><polyline points="{path}"/>{dots}'
        f'<text x="{x}" y="{_y(value / top) - 9}" text-anchor="middle">{name}</text></g>'
    )
