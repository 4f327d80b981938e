"""The grids of our claims: what they may cost, on what they may speak, and one of them from end to end."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

import evidence_grids
from efface.sweeps.grid import Grid, read_grid
from efface.sweeps.jobs import expand
from efface.sweeps.sweeping import Summary
from recipes.evidence import __main__ as evidence

DEVELOPMENT = {"cat", "guitar", "pizza", "rocket", "rose", "car"}
"""Concepts on which settings are chosen, which therefore no claim is made on (CONTRIBUTING.md)."""
MOST_HOURS = 30


def test_one_command_foresees_all_claims_which_take_at_most_thirty_hours_of_a_core(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert sorted(evidence.NAMES) == evidence_grids.NAMES
    assert evidence.main(["--dry-run"]) == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in said] == [*evidence.NAMES, "together"]
    assert 1 < float(said[-1].rpartition(" ")[2]) <= MOST_HOURS, said
    with pytest.raises(SystemExit):
        evidence.main(["eap", "eab"])
    assert "there is no claim 'eab'; there are eap, abo" in capsys.readouterr().err


@pytest.mark.parametrize("name", evidence_grids.NAMES)
def test_the_larger_design_of_a_claim_is_a_grid_that_its_page_says_how_to_run(name: str) -> None:
    small, _ = evidence.read_claim(name, large=False)
    large, flags = evidence.read_claim(name, large=True)
    assert large.fraction == 1 and large.seeds == (0, 1, 2)
    assert len(expand(large)) > len(expand(small)) and all(large.sizes[group] > n for group, n in small.sizes.items())
    changes = [value for flag, value in itertools.pairwise(flags) if flag == "--set"]
    assert read_grid(evidence_grids.EVIDENCE / f"{name}.toml", 1.0, changes) == large


@pytest.mark.parametrize("name", evidence_grids.NAMES)
def test_no_claim_is_made_on_a_concept_that_settings_were_chosen_on(name: str) -> None:
    grid = read_grid(evidence_grids.EVIDENCE / f"{name}.toml")
    named = {part for some in grid.concepts.values() for concept in some for part in concept.split(" + ")}
    assert not named & DEVELOPMENT
    assert any(column.startswith("agreement") for column in grid.columns), "the second judge's agreement is shown"


def test_one_command_runs_the_first_training_seed_of_every_claim_before_any_second(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    called: list[tuple[str, tuple[int, ...]]] = []

    def sweep(grid: Grid, out: Path, *, seeds: tuple[int, ...], page: Path, command: str, **how: object) -> Summary:
        assert page == tmp_path / "pages" / f"{out.name}.md" and how["workers"] == 2
        assert command.startswith(f"efface sweep recipes/evidence/{out.name}.toml --out {out} --page {page}")
        called.append((out.name, seeds))
        failed = (("esd of dog", "no room"),) if out.name == "abo" else ()
        return Summary(1, 1, 1, 1, failed, page, page)

    monkeypatch.setattr(evidence, "sweep", sweep)
    places = ["--out", str(tmp_path / "out"), "--pages", str(tmp_path / "pages")]
    assert evidence.main(["eap", "beat", "--workers", "2", *places]) == 0
    assert called == [("eap", (0,)), ("beat", (0,)), ("eap", (1,))]
    assert evidence.main(["abo", "--workers", "2", *places]) == 1, "a job failed"


def test_the_grid_of_a_claim_runs_from_end_to_end(tmp_path: Path) -> None:
    page = evidence_grids.run("abo", tmp_path)
    assert "drift/unconditional" in page and "ssim/target" in page and "agreement/target" in page
