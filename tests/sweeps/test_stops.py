"""Sweeps that are killed, interrupted, run by two commands, or miss files."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from filelock import FileLock

import efface
from efface.plurals import write_count
from efface.sweeps.cells import Store
from efface.sweeps.grid import Drawing, Grid, read_grid
from efface.sweeps.jobs import Job, expand
from efface.sweeps.local import Answer, WorkerProcess
from efface.sweeps.sweeping import plan


def test_a_worker_that_is_killed_is_started_again_and_nothing_is_lost(
    whole: tuple[Path, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, table = whole
    started: list[int] = []
    real = WorkerProcess._start_process

    def start(self: WorkerProcess) -> subprocess.Popen[str]:
        process = real(self)
        assert process
        if process.pid not in started:
            started.append(process.pid)
            if len(started) < 3:  # the first two die while they open the model, or while they work
                time.sleep(1.0 if len(started) == 1 else 0.0)
                process.send_signal(signal.SIGKILL)
        return process

    monkeypatch.setattr(WorkerProcess, "_start_process", start)
    summary = efface.sweep(grid, tmp_path / "out")
    assert len(started) == 3 and (summary.new, summary.failed) == (6, ())
    assert summary.table.read_bytes() == table


def test_a_sweep_that_is_killed_goes_on_where_it_was(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    grid, table = whole
    command = [sys.executable, "-m", "efface", "sweep", str(grid), "--out", str(tmp_path / "out")]
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True)
    cells = tmp_path / "out/cells"
    while len(list(cells.glob("*.json")) if cells.is_dir() else []) < 2:
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    before = {file: file.stat().st_mtime_ns for file in cells.glob("*.json")}
    summary = efface.sweep(grid, tmp_path / "out")
    assert summary.new == 6 - len(before) and summary.table.read_bytes() == table
    assert {file: file.stat().st_mtime_ns for file in before} == before
    attempts = [json.loads(file.read_text())["attempts"] for file in (tmp_path / "out/costs").glob("*.json")]
    assert len(attempts) == 6 and max(attempts) == 2, "the cell that was killed counts both"
    assert f"without the first attempts at {write_count(attempts.count(2), 'cell')}" in summary.page.read_text()


def test_a_job_that_another_process_works_on_waits_until_the_others_are_done(
    whole: tuple[Path, bytes], tmp_path: Path
) -> None:
    grid, table = whole
    (_, first), *_ = plan(read_grid(grid), None)
    lock = FileLock(Store(tmp_path / "out").locate_lock(first.erase.id), thread_local=False)
    Path(lock.lock_file).parent.mkdir(parents=True)
    lock.acquire()
    late = threading.Timer(300, lock.release)  # else a failure of this test would wait for ever
    late.start()
    told: list[str] = []

    def tell(job: Job, answer: Answer, done: int, total: int) -> None:
        told.append(job.concept)
        if len(told) == 2:
            lock.release()

    summary = efface.sweep(grid, tmp_path / "out", on_answer=tell)
    late.cancel()
    assert told == ["dog", "rose", "cat"]
    assert (summary.new, summary.failed) == (6, ()) and summary.table.read_bytes() == table


def test_a_grid_may_be_longer_than_an_argument_of_a_command(tmp_path: Path) -> None:
    concepts = ("cat", *(f"thing {i} of a long list of things that nobody erases here" for i in range(3000)))
    grid = Grid(
        models=("glyphs-ddpm",), methods=("negative",), concepts={"all": concepts}, sizes={"target": 1},
        drawing=Drawing(steps=2),
    )  # fmt: skip
    assert len(grid.model_dump_json()) > 2**17, "the most that Linux takes"
    worker = WorkerProcess(grid, tmp_path, 1, None)
    job = expand(grid)[0]
    assert worker.ask(job) == {"done": ["erase", "evaluate"]} and worker.ask(job) == {"done": []}
    worker.stop()


def test_a_sweep_that_is_interrupted_ends_at_once_and_goes_on_later(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    grid, table = whole
    command = [sys.executable, "-m", "efface", "sweep", str(grid), "--out", str(tmp_path / "out")]
    obey = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # shells let background processes ignore it
    driver = subprocess.Popen(command, stderr=subprocess.PIPE, start_new_session=True, text=True, preexec_fn=obey)
    cells = tmp_path / "out/cells"
    while not any(cells.glob("*.json")) if cells.is_dir() else True:
        assert driver.poll() is None, driver.stderr and driver.stderr.read()
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGINT)  # as a terminal does for Ctrl-C, to the workers too
    _, said = driver.communicate()
    before = len(list(cells.glob("*.json")))
    assert driver.returncode == 130 and "finished cells are kept" in said and before < 6
    summary = efface.sweep(grid, tmp_path / "out")
    assert summary.new == 6 - before and summary.table.read_bytes() == table


def test_an_edit_that_is_gone_is_fitted_again_where_a_cell_needs_it(whole: tuple[Path, bytes], tmp_path: Path) -> None:
    grid, table = whole
    for part in ("cells", "costs"):  # as archives of results have it
        shutil.copytree(grid.parent / "out" / part, tmp_path / "out" / part)
    assert efface.sweep(grid, tmp_path / "out").new == 0, "nothing needs an edit"
    (_, cells), *_ = plan(read_grid(grid), None)
    ((_, evaluation, _),) = cells.measured
    (tmp_path / "out/cells" / f"{evaluation.id}.json").unlink()
    summary = efface.sweep(grid, tmp_path / "out")
    assert (summary.new, summary.failed) == (2, ()) and summary.table.read_bytes() == table
    file = Store(tmp_path / "out").locate_edit(cells.erase.id)
    stamp = file.stat().st_mtime_ns
    (tmp_path / "out/cells" / f"{cells.erase.id}.json").unlink()
    assert efface.sweep(grid, tmp_path / "out").new == 1 and file.stat().st_mtime_ns == stamp, "it was there"
