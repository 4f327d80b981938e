"""Numbers in messages agree with their nouns."""

from __future__ import annotations

from pathlib import Path

import pytest

from efface.cli.console import tell_suite
from efface.concept import Erasure
from efface.plurals import write_count
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
