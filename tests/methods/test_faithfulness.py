"""Every method against a second writing of its formula, and the page that says how far they are apart."""

from __future__ import annotations

import re

import pytest

from benchmarks.faithfulness import BOUND, HEAD, PAGE, ROWS, table
from benchmarks.published.bench import Difference
from efface import methods
from tiny import tiny_model


@pytest.mark.parametrize("name", methods.names())
def test_it_is_what_its_paper_says(name: str) -> None:
    found = ROWS[name].measure(tiny_model())
    assert found.largest() < BOUND


def test_the_page_names_every_method_with_figures_that_hold() -> None:
    assert set(ROWS) == set(methods.names())
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(HEAD)
    rows = page.removeprefix(HEAD).splitlines()
    empty = table(dict.fromkeys(ROWS, Difference())).splitlines()
    for row, name, blank in zip(rows, ROWS, empty, strict=True):
        cells, own = row.split(" | "), blank.split(" | ")
        assert cells[0] == f"| {name}" and [cells[1], cells[-1]] == [own[1], own[-1]]
        figures = [cell for cell in cells[2:-1] if cell != "–"]
        assert figures and all(re.fullmatch(r"\de-\d+|0", figure) and float(figure) <= BOUND for figure in figures)
