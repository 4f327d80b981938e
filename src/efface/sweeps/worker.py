"""A worker process of this machine: `python -m efface.sweeps.worker FOLDER`, started by local.py.

It reads the grid from the first line of standard input, then one job a line, and answers each job with one line:
{"done": [kinds]}, {"error": text}, or {"busy": true} where another process works on the same edit. It ends when its
standard input ends, which also happens when the process that started it is killed.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

from ..files.structured import parse_json
from .cells import Store
from .grid import Grid
from .jobs import Job


def run(grid: Grid, job: Job, store: Store, device: str | None) -> dict[str, Any]:
    """Does a job while it holds its edit's lock; an error becomes the job's log and part of the answer."""
    try:
        done = _do(grid, job, store, device)
    except Exception as error:  # a failure of any kind must not stop the other jobs
        store.write_log(job.compute_key(), job.name, traceback.format_exc())
        return {"error": f"{type(error).__name__}: {error}"}
    return {"busy": True} if done is None else {"done": done}


def _do(grid: Grid, job: Job, store: Store, device: str | None) -> list[str] | None:
    """Does a job and returns the kinds of the cells that were done; None where another process has the edit's lock.

    The log of an earlier run is removed first, because it would not say why this run failed if it is killed.
    """
    store.locate_log(job.compute_key()).unlink(missing_ok=True)
    from filelock import FileLock, Timeout

    from .work import do_job, list_cells, open_model

    file = store.locate_lock(list_cells(grid, job, open_model(job.model, device)).erase.id)
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return None
    try:
        return do_job(grid, job, store, device)
    finally:
        lock.release()


def read_job(line: str) -> Job:
    """Reads a job from its JSON."""
    found = parse_json(line)
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in found.items()}
    return Job(**fields)


def main(argv: list[str]) -> None:
    """Answers jobs until standard input ends."""
    folder, device, threads = argv
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to the log, not among the answers
    import torch

    torch.set_num_threads(int(threads))
    store, known = Store(Path(folder)), Grid.model_validate_json(sys.stdin.readline())
    for line in sys.stdin:
        print(json.dumps(run(known, read_job(line), store, device or None)), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
