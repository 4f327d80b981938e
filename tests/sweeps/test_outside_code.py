"""Cells are named by the source of other packages too, so that a change makes new ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from efface.sweeps import work
from efface.sweeps.grid import Grid
from efface.sweeps.jobs import expand
from efface.sweeps.sweeping import plan
from installed_package import ATTACK, METHOD, SCORER, SUITE, change
from installed_package import installed as installed

HELPER = '"""Numbers."""\n\nHALF = 0.5  # of all\n'


@pytest.fixture
def helped(installed: Path) -> Path:
    """The folder of the package, whose method imports a module of it by way of another."""
    place = installed / "outsiders"
    write(place, "numbers.py", HELPER)
    write(place, "shares.py", "from .numbers import HALF\n")
    write(place, "other.py", "X = 1\n")
    write(place, "fade.py", METHOD.replace("from typing", "from outsiders import shares\nfrom typing", 1))
    return place


def write(place: Path, name: str, text: str) -> None:
    """Writes a file of the package, whose code a new process would then run."""
    change(place, name, text)
    work._describe_attack.cache_clear()
    work._list_identities.cache_clear()


def list_names(**changes: object) -> dict[str, str]:
    """The name of each cell of a grid with one job, by kind."""
    own = {"methods": ("fade",), "attacks": ("shout",), "scorers": ("parity",), "suite": "four-animals"} | changes
    ((_, cells),) = plan(Grid(models=("glyphs-ddpm",), concepts={"all": ("cat",)}, **own), None)  # type: ignore[arg-type]
    return {cell.kind: cell.id for cell in cells}


EVERY = {"erase", "evaluate", "attack"}
CHANGES = {
    "method": ("fade.py", METHOD.replace("* self.share", "* self.share * 2"), EVERY),
    "module that a module of the method imports": ("numbers.py", HELPER.replace("0.5", "0.6"), EVERY),
    "table beside the method": ("settings.toml", "half = 0.4", EVERY),
    "attack": ("shout.py", ATTACK.replace(".upper()", ".lower()"), {"attack"}),
    "scorer": ("parity.py", SCORER.replace("% 2", "% 3"), {"evaluate", "attack"}),
    "comment": ("numbers.py", HELPER.replace("of all", "of none").replace("Numbers", "Halves"), set()),
    "module that nothing imports": ("other.py", "X = 2\n", set()),
}


@pytest.mark.parametrize(("file", "text", "renamed"), CHANGES.values(), ids=CHANGES)
def test_a_cell_is_named_by_the_source_that_it_uses_of_another_package(
    file: str, text: str, renamed: set[str], helped: Path
) -> None:
    before = list_names()
    write(helped, file, text)
    after = list_names()
    assert {kind for kind in before if before[kind] != after[kind]} == renamed


def test_a_cell_is_named_by_the_suite_of_another_package(helped: Path) -> None:
    own = {"methods": ("neggrad",), "attacks": ("seeds",), "scorers": ()}
    before = list_names(**own)
    write(helped, "four-animals.toml", SUITE.replace("a {}", "one {}"))
    after = list_names(**own)
    assert {kind for kind in before if before[kind] != after[kind]} == {"evaluate", "attack"}


def test_a_cell_of_built_in_code_names_no_other_code(installed: Path) -> None:
    grid = Grid(models=("glyphs-ddpm",), methods=("neggrad",), attacks=("seeds",), concepts={"all": ("cat",)})
    (job,) = expand(grid)
    for cell in work.list_cells(grid, job, work.open_model(job.model, None)):
        assert "code" not in json.dumps(cell.decided_by).replace("decoder", "")
