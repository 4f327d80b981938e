"""The grids of our claims: what they may cost, on what they may speak, and one of them from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

import evidence_grids
from efface.sweeps.forecast import forecast
from efface.sweeps.grid import read_grid

DEVELOPMENT = {"cat", "guitar", "pizza", "rocket", "rose", "car"}
"""Concepts on which settings are chosen, which therefore no claim is made on (CONTRIBUTING.md)."""
MOST_HOURS = 30


def test_all_claims_together_take_at_most_thirty_hours_of_a_core() -> None:
    hours = {}
    for name in evidence_grids.NAMES:
        grid = read_grid(evidence_grids.EVIDENCE / f"{name}.toml")
        hours[name] = forecast(grid).hours(grid.seconds_picture, grid.seconds_update)
    assert len(hours) == 6 and sum(hours.values()) <= MOST_HOURS, hours


@pytest.mark.parametrize("name", evidence_grids.NAMES)
def test_no_claim_is_made_on_a_concept_that_settings_were_chosen_on(name: str) -> None:
    grid = read_grid(evidence_grids.EVIDENCE / f"{name}.toml")
    named = {part for some in grid.concepts.values() for concept in some for part in concept.split(" + ")}
    assert not named & DEVELOPMENT
    assert any(column.startswith("agreement") for column in grid.columns), "the second judge's agreement is shown"


def test_the_grid_of_a_claim_runs_from_end_to_end(tmp_path: Path) -> None:
    page = evidence_grids.run("abo", tmp_path)
    assert "drift/unconditional" in page and "ssim/target" in page and "agreement/target" in page
