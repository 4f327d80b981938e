"""Plots: marks stand where the numbers say, labels are text, and only what is comparable shares a plot."""

from __future__ import annotations

import itertools
import math
import re
from pathlib import Path
from typing import Any

import pytest
from markupsafe import Markup

from efface.catalog import ATTACKS
from efface.reporting import page
from efface.reporting.compared import build_comparisons
from efface.reporting.history import build_histories
from efface.reporting.labels import Box, place_labels, spread_labels
from efface.reporting.losses import LossSeries, draw_losses
from efface.reporting.svg import Point, Series, draw_climbs, draw_curve, draw_scatter, draw_strip
from report_fixtures import build_share, record


def test_the_scatter_escapes_its_labels_and_keeps_points_inside() -> None:
    svg = str(draw_scatter([Point(3, "<b>", "edit", (1, 0.9, 1), (0, 0, 0.1))], "x", "y"))
    assert "<b>" not in svg and "&lt;b&gt;" in svg and ">3</text>" in svg
    assert 'cx="438"' in svg and 'cy="276"' in svg


def test_a_curve_goes_through_its_values_and_leaves_out_what_was_not_judged() -> None:
    points = [(0.0, build_share(0, 4)), (0.5, build_share(0, 0)), (1.0, build_share(4, 4))]
    svg = str(draw_curve([Series("one", "edit", points)], "rate"))
    assert '<polyline points="66.0,276.0 438.0,14.0"' in svg
    assert svg.count("<circle") == 2 and "n = 4" in svg
    low = str(draw_curve([Series("one", "edit", [(0.3, build_share(0, 500)), (0.8, build_share(50, 500))])], "rate"))
    assert 'points="66.0,276.0 438.0,171.2"' in low and ">25%<" in low
    numbers = str(
        draw_curve([Series("one", "edit", [(0.0, build_share(2, 4)), (1.0, build_share(4, 4))])], "count", share=False)
    )
    assert ">1</text>" in numbers and "100%" not in numbers


def test_success_rates_climb_from_left_to_right() -> None:
    svg = str(draw_climbs({"a<b": [0.0, 0.5, 1.0], "short": [0.25, 0.25]}, "rate"))
    first = re.findall(r'polyline points="([^"]*)"', svg)
    assert first[0].split()[0] == "66.0,276.0" and first[0].split()[-1] == "438.0,14.0"
    assert "a&lt;b" in svg and "a<b" not in svg


def test_labels_of_lines_that_end_together_stand_apart() -> None:
    svg = str(draw_climbs({"one": [0.0, 0.5], "two": [0.1, 0.5], "three": [0.2, 0.5]}, "rate"))
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="end">[a-z]', svg))
    assert len(heights) == 3 and min(b - a for a, b in itertools.pairwise(heights)) >= 12


BOXES = """() => [...document.querySelectorAll("svg")].map((svg) => {
  const frame = svg.getBoundingClientRect();
  const boxes = (what) => [...svg.querySelectorAll(what)].map((each) => each.getBoundingClientRect());
  const overlap = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
  const within = (low, a, b, high) => low <= a && b <= high;
  const inside = (a) =>
    within(frame.left, a.left, a.right, frame.right) && within(frame.top, a.top, a.bottom, frame.bottom);
  const texts = boxes("text"), marks = boxes("circle");
  return [
    texts.length,
    texts.flatMap((a, i) => texts.slice(i + 1).filter((b) => overlap(a, b))).length,
    texts.filter((a) => marks.some((b) => overlap(a, b))).length,
    texts.filter((a) => !inside(a)).length,
  ];
})"""
"""For each plot: its texts; pairs of texts that overlap; texts over a mark; texts outside of the plot."""


def build_crowded() -> list[Markup]:
    """Plots whose marks lie on, beside and far from each other, and at the frame."""
    low_high = [(0.98, 0.99), (0.98, 0.99), (0.98, 0.985), (0.97, 0.99), (1.0, 1.0), (0.5, 0.5), (0.0, 0.0), (1.0, 0.0)]
    many = low_high + [(0.9 + 0.01 * (i % 5), 0.9 + 0.02 * (i // 5)) for i in range(20)]

    def scatter(places: list[tuple[float, float]]) -> Markup:
        edits = [
            Point(i, f"edit {i}", "edit", (x, x / 2, x), (y, y / 2, y)) for i, (x, y) in enumerate(places, start=1)
        ]
        return draw_scatter([Point(1, "base", "base", (0, 0, 0.1), (1, 0.9, 1)), *edits], "erased", "kept")

    def curve(names: list[str]) -> Markup:
        line = [(i / 4, build_share(i, 4)) for i in range(5)]
        return draw_curve([Series(name, "edit", line) for name in names], "rate")

    names = sorted(ATTACKS.list_names())
    flat = draw_climbs({name: [0.0, 1.0] for name in names}, "rate")
    spread = draw_climbs({name: [0.0, 0.02 * (i % 3)] for i, name in enumerate(names[:6])}, "rate")
    losses = draw_losses(LossSeries([0, 1], {role: [1.0, 1.0] for role in ("erasure", "preservation", "whole")}))
    long = "an evaluation in a folder whose name is much longer than its plot is wide"
    return [scatter(low_high), scatter(many), curve(["base", "edited"]), curve([long, "b"]), flat, spread, losses]


@pytest.mark.browser
def test_no_label_covers_another_or_a_mark(chromium: Any, tmp_path: Path) -> None:
    css = Path(page.__file__).with_name("page.css").read_text()
    plots = "".join(f"<div>{plot}</div>" for plot in build_crowded())
    (tmp_path / "plots.html").write_text(f"<!doctype html><meta charset=utf-8><style>{css}</style>{plots}")
    tab = chromium.new_page(viewport={"width": 700, "height": 900})
    tab.goto((tmp_path / "plots.html").as_uri())
    found = tab.evaluate(BOXES)
    tab.close()
    assert [counts[0] for counts in found] == [20, 40, 14, 14, 9 + len(ATTACKS.list_names()), 15, 12]
    assert [counts[1:] for counts in found] == [[0, 0, 0]] * len(found)


def test_labels_stand_at_their_marks_where_there_is_room() -> None:
    svg = str(build_crowded()[0])
    labels = re.findall(r'<g class="label">.*?</g>', svg)
    assert [re.findall(r">(\d+)</text>", label) for label in labels] == [[str(i)] for i in range(1, 9)]
    assert "edit 6: erased 50.0%, kept 50.0%" in labels[5] and "leader" not in labels[5]
    same = re.findall(r'<text x="([\d.]+)" y="([\d.]+)"', labels[0] + labels[1])
    assert len(set(same)) == 2


def test_numbers_of_two_near_points_do_not_stand_at_each_other() -> None:
    marks = [(418.0, 29.0), (438.0, 23.8)]
    placed = place_labels(list(zip("12", marks, strict=True)), Box(60, 10, 438, 338), marks, 6.0)
    for label, own, other in zip(placed, marks, marks[::-1], strict=True):
        centre = ((label.box.left + label.box.right) / 2, (label.box.top + label.box.bottom) / 2)
        assert math.dist(centre, own) < math.dist(centre, other)
    assert placed[0].box.right < placed[1].box.left, "the numbers stand in the order of their marks"


def test_spread_labels_keep_their_order_and_stay_between_the_ends() -> None:
    assert spread_labels([50.0, 80.0], 10, 100, 12) == [50.0, 80.0]
    assert spread_labels([50.0, 50.0, 45.0], 10, 100, 12) == [38.0, 50.0, 26.0]
    assert spread_labels([10.0, 10.0, 12.0], 10, 100, 12) == [10.0, 22.0, 34.0]
    assert spread_labels([-5.0, 300.0], 10, 100, 12) == [10.0, 100.0]
    assert spread_labels([50.0] * 4, 10, 40, 12) == [10.0, 20.0, 30.0, 40.0]


def test_the_strip_marks_every_step_once() -> None:
    chosen = ["a", "a", "b", "a", "c"]
    svg = str(draw_strip(chosen, ["a", "b"]))
    wide = [float(w) for w in re.findall(r'width="([\d.]+)" height', svg)]
    each = (640 - 120 - 10) / len(chosen)
    assert [round(w / each) for w in wide] == [2, 1, 1]
    assert "a: 1 to 2" in svg and "a: 4<" in svg


def test_notes_are_read_by_their_shape() -> None:
    found = build_histories(
        {
            "most_damaged": {"cat": ["dog", "rose", "dog"]},
            "preserved": ["dog", "rose"],
            "reach": {"cat": 0.123456},
            "pruned": 0.5,
            "nothing": [],
        }
    )
    told = {h.title: h.text for h in found}
    assert told == {
        "most damaged: cat": "",
        "preserved": "dog, rose",
        "reach": "cat: 0.1235",
        "pruned": "0.5",
        "nothing": "none",
    }
    (words,) = (h.words for h in found if h.strip)
    assert [(w.word, w.count, w.first, w.last) for w in words] == [("dog", 2, 1, 3), ("rose", 1, 2, 2)]


def test_only_evaluations_made_in_one_way_are_compared() -> None:
    one, stronger = record(), record(drawing=record().drawing.model_copy(update={"strength": 0.5}))
    other = record(drawing=record().drawing.model_copy(update={"steps": 50}))
    found = build_comparisons([("one", one), ("half", stronger), ("other", other)])
    assert [[p.number for p in s.points] for s in found] == [[1, 2], [3]]
    assert not found[0].differs and "steps: 12 before, 50 now" in found[1].differs
    assert str(found[0].plot).count('class="edit"') == 2 and str(found[0].plot).count('class="base"') == 1
    elsewhere = record(suite=record().suite.model_copy(update={"name": "another"}))
    assert "ask for different things" in build_comparisons([("one", one), ("two", elsewhere)])[1].differs
