"""Sizes, lines and the tracker: what a plan is counted with."""

from __future__ import annotations

import mmap
from pathlib import Path

import pytest
import torch

import efface
from efface.planning.machine import _read_resident, format_size, read_free_bytes, read_memory_limit, read_size
from efface.planning.plan import Plan
from efface.planning.probe_steps import LinearFit, PeakFit
from efface.planning.tracker import AllocationTracker, count_bytes
from tiny import tiny_pipeline


def test_a_model_is_told_how_many_are_drawn_at_once():
    assert efface.load(tiny_pipeline(), draw_batch=3).drawn_together == 3
    assert efface.load(tiny_pipeline()).drawn_together == 32
    with pytest.raises(ValueError, match="draw_batch has to be 0 or a number of pictures, got -1"):
        efface.load(tiny_pipeline(), draw_batch=-1)


def test_lines_and_sizes():
    line = LinearFit.through(30, 50, rows=2)
    assert (line(0), line(2), line(4), line(10)) == (10, 30, 50, 110)
    assert [read_size(text) for text in ("8GB", "800 MB", "0.5gb", "1000")] == [8 * 10**9, 8 * 10**8, 5 * 10**8, 1000]
    for wrong in ("", "lots", "-3GB", "GB"):
        with pytest.raises(ValueError, match="write it as 8GB"):
            read_size(wrong)
    assert [read_memory_limit(given) for given in (None, "", 1000, "1KB")] == [None, None, 1000, 1000]
    for nothing in (0, -1, True):
        with pytest.raises(ValueError, match=f"a positive number of bytes or a size such as 8GB, got {nothing}"):
            read_memory_limit(nothing)
    assert (format_size(2.5e9), format_size(3.21e6)) == ("2.50 GB", "3.2 MB")
    assert (read_free_bytes(torch.device("cpu")) or 1) > 0


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="Linux alone says which pages are of files")
def test_pages_of_files_are_not_counted_as_memory_beside_what_is_available(tmp_path: Path) -> None:
    """Weights that are mapped from a file lie in the page cache, which the system counts as available."""
    (tmp_path / "weights").write_bytes(bytes(10**8))
    with (tmp_path / "weights").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        before = _read_resident()
        assert sum(mapped[:: mmap.PAGESIZE]) == 0
        assert _read_resident() - before < 2 * 10**7
    before = _read_resident()
    held = bytearray(b"x") * 10**8
    assert _read_resident() - before > 8 * 10**7 and len(held) == 10**8


def test_a_peak_moves_from_one_moment_to_another_as_rows_grow():
    """Gradients take most with few rows and activations with many; one row needs one operation fewer."""
    one, two = [("forward", 20.0), ("sum", 110.0)], [("forward", 40.0), ("copy", 45.0), ("sum", 112.0)]
    fit = PeakFit.through(one, two)
    assert [fit(rows) for rows in (1, 2, 4, 10)] == [110, 112, 116, 250]
    assert fit.steepest == 25
    assert PeakFit.through(one, one) == PeakFit((LinearFit(110, 0),))
    assert PeakFit.through([], [])(3) == 0
    assert PeakFit.from_size(7)(100) == 7


def test_tally_counts_storages_once_and_forgets_the_freed():
    known = torch.zeros(1000)
    with AllocationTracker([known]) as tally:
        a = torch.zeros(250)
        views = [a[:10], a.view(5, 50), known[3:], known.view(10, 100)]
        assert tally.live == 1000
        b = a + 1
        assert (tally.live, tally.peak) == (2000, 2000)
        del a, views
        assert tally.live == 1000
        del b
    assert (tally.live, tally.peak) == (0, 2000)
    assert count_bytes([known, known[5:]]) == 4000


def test_the_table_leaves_out_what_is_nothing():
    plan = Plan(
        100,
        0,
        50,
        0,
        PeakFit((LinearFit(10, 5),)),
        PeakFit.from_size(0),
        rows=4,
        micro=2,
        waiting=1.5,
        apart=7,
        pictures=0,
        trace_bytes=0,
        recorded=0,
    )
    assert plan.need == 180
    assert "drawing" not in plan.format_table()
    assert "a step, 2 of 4 rows at once" in plan.format_table()
