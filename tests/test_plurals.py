"""Numbers in messages agree with their nouns."""

from __future__ import annotations

from pathlib import Path

import pytest

from efface.cli.console import tell_suite
from efface.concept import Erasure
from efface.plurals import write_apart, write_count, write_percent
from efface.suites.listed import read_list
from efface.sweeps.made import Made


@pytest.mark.parametrize(
    ("n", "things", "says"),
    [
        (1, ("prompt",), "1 prompt"),
        (0, ("prompt",), "0 prompts"),
        (2440, ("prompt",), "2,440 prompts"),
        (2, ("query", "queries"), "2 queries"),
        (1, ("picture has", "pictures have"), "1 picture has"),
    ],
)
def test_a_number_and_its_noun(n: int, things: tuple[str, ...], says: str) -> None:
    assert write_count(n, *things) == says


@pytest.mark.parametrize("number", [0, 4.9, 4.96, 4.996, 5, 5.04, 5.004, 50.4, 94.96, 95.04, 99.6, 99.96, 99.996, 100])
@pytest.mark.parametrize("digits", [0, 1])
def test_a_rounded_number_is_on_its_own_side_of_every_bar(number: float, digits: int) -> None:
    bars = (0, 5, 95, 100)
    text = write_apart(number, *bars, digits=digits)
    for bar in bars:
        assert (float(text) > bar, float(text) < bar) == (number > bar, number < bar)
    assert abs(float(text) - number) <= 0.5 * 10**-digits and len(text.partition(".")[2]) >= digits
    assert write_apart(number, digits=digits) == f"{number:.{digits}f}", "without bars it is rounded as ever"


def test_a_percentage_is_none_or_all_only_where_it_is() -> None:
    shares = (0, 1 / 4703, 0.004, 0.5, 0.996, 4702 / 4703, 1, 0.4996)
    assert [write_percent(x, 0.5) for x in shares] == [
        *("0%", "0.02%", "0.4%", "50%", "99.6%", "99.98%", "100%", "49.96%"),
    ]
    assert write_percent(0.1 + 0.2, 0.3) == "30%", "a difference in the last bit is none"
    assert write_apart(-0.04) == "0"


def test_a_list_of_one_prompt_is_one_prompt(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "one.csv"
    file.write_text("prompt,class\na cat,cat\n")
    tell_suite(read_list(file, Erasure(("cat",))))
    told = capsys.readouterr().err
    assert "one.csv has 1 row; what each asks for" in told
    assert "1 prompt will be drawn without and with the edit: 2 pictures to judge" in told


def test_a_sweep_of_one_cell_is_one_cell() -> None:
    assert Made(cells=1).format_lines()[0].startswith("**None of 1 cell is done so far.**")
    assert Made(cells=1, done=1).format_lines()[0].startswith("The only cell is done, in ")
    assert Made(cells=2, done=1).format_lines()[0].startswith("**Only 1 of 2 cells are done so far**")
