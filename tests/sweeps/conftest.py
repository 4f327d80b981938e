"""What tests of sweeps share."""

from __future__ import annotations

from pathlib import Path

import pytest

import efface
from small_sweep import write


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """A grid, and the table of its run without interruption."""
    folder = tmp_path_factory.mktemp("whole")
    grid = write(folder)
    summary = efface.sweep(grid, folder / "out")
    assert (summary.jobs, summary.cells, summary.done, summary.new, summary.failed) == (3, 6, 6, 6, ())
    return grid, summary.table.read_bytes()
