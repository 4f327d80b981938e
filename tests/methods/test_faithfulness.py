"""Every method against a second writing of its formula, and the page that says how far they are apart."""

from __future__ import annotations

import re

import pytest

from benchmarks.faithfulness import ATTACKS, BOUND, HEAD, PAGE, ROWS, SECOND, Row, format_table
from efface import attacks, methods
from tiny import tiny_model

FORMULAS = {name: row for name, row in (ROWS | ATTACKS).items() if row.measure is not None}


@pytest.mark.parametrize("name", FORMULAS)
def test_it_is_what_its_paper_says(name: str) -> None:
    measure = FORMULAS[name].measure
    assert measure is not None and measure(tiny_model()).largest() < BOUND


def test_the_page_names_every_method_and_attack_with_figures_that_hold() -> None:
    assert set(ROWS) == set(methods.list_names()) and set(ATTACKS) == set(attacks.list_names())
    page = PAGE.read_text(encoding="utf-8")
    assert page.startswith(HEAD)
    first, _, second = page.removeprefix(HEAD).partition(SECOND)
    check_table(first, ROWS)
    check_table(second, ATTACKS)


def check_table(text: str, known: dict[str, Row]) -> None:
    """A table has the names, what each was compared with, what differs, and figures where there is a formula."""
    empty = format_table({}, known).splitlines()
    for line, (name, row), blank in zip(text.splitlines(), known.items(), empty, strict=True):
        cells, own = line.split(" | "), blank.split(" | ")
        assert cells[0] == f"| {name}" and [cells[1], cells[-1]] == [own[1], own[-1]]
        figures = [cell for cell in cells[2:-1] if cell != "–"]
        assert bool(figures) == (row.measure is not None)
        assert all(re.fullmatch(r"\de-\d+|0", figure) and float(figure) <= BOUND for figure in figures)
