"""Plots: marks stand where the numbers say, labels are text, and only what is comparable shares a plot."""

from __future__ import annotations

import itertools
import re

from efface.reporting.compared import build_comparisons
from efface.reporting.history import build_histories
from efface.reporting.svg import Point, Series, draw_climbs, draw_curve, draw_scatter, draw_strip
from report_fixtures import record, share


def test_the_scatter_escapes_its_labels_and_keeps_points_inside() -> None:
    svg = str(draw_scatter([Point(3, "<b>", "edit", (1, 0.9, 1), (0, 0, 0.1))], "x", "y"))
    assert "<b>" not in svg and "&lt;b&gt;" in svg and ">3</text>" in svg
    assert 'cx="438"' in svg and 'cy="276"' in svg


def test_a_curve_goes_through_its_values_and_leaves_out_what_was_not_judged() -> None:
    points = [(0.0, share(0, 4)), (0.5, share(0, 0)), (1.0, share(4, 4))]
    svg = str(draw_curve([Series("one", "edit", points)], "rate"))
    assert '<polyline points="52.0,276.0 438.0,14.0"' in svg
    assert svg.count("<circle") == 2 and "n = 4" in svg
    low = str(draw_curve([Series("one", "edit", [(0.3, share(0, 500)), (0.8, share(50, 500))])], "rate"))
    assert 'points="52.0,276.0 438.0,171.2"' in low and ">25.0%<" in low
    numbers = str(draw_curve([Series("one", "edit", [(0.0, share(2, 4)), (1.0, share(4, 4))])], "count", share=False))
    assert ">1</text>" in numbers and "100%" not in numbers


def test_success_rates_climb_from_left_to_right() -> None:
    svg = str(draw_climbs({"a<b": [0.0, 0.5, 1.0], "short": [0.25, 0.25]}, "rate"))
    first = re.findall(r'polyline points="([^"]*)"', svg)
    assert first[0].split()[0] == "52.0,276.0" and first[0].split()[-1] == "438.0,14.0"
    assert "a&lt;b" in svg and "a<b" not in svg


def test_labels_of_lines_that_end_together_stand_apart() -> None:
    svg = str(draw_climbs({"one": [0.0, 0.5], "two": [0.1, 0.5], "three": [0.2, 0.5]}, "rate"))
    heights = sorted(float(y) for y in re.findall(r'y="([\d.]+)" text-anchor="end">[a-z]', svg))
    assert len(heights) == 3 and min(b - a for a, b in itertools.pairwise(heights)) >= 12


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
