"""What tests of the gate and of the record share: an evaluation with attacks."""

from __future__ import annotations

from pathlib import Path

import pytest

from report_fixtures import write_attacks, write_evaluation


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = write_evaluation(tmp_path / "e")
    write_attacks(made)
    return made
