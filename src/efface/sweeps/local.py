"""Runs a sweep on this machine: worker processes, each with its own model, get one job at a time."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import queue
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from ..files.structured import parse_json
from .grid import Grid
from .jobs import Job

Answer = dict[str, Any]
"""{"done": kinds of the cells that were done now}, {"error": reason}, or from a worker {"busy": True}."""
OnAnswer = Callable[[Job, Answer], None]
WORKER = "efface.sweeps.worker"
"""The module that a worker process runs."""
ATTEMPTS = 3
"""How often a job is tried whose worker dies, for example because memory runs out, before the job has failed."""
PAUSE = 0.5
"""Seconds before the next job, after a job on whose edit another process works."""


def run_local(
    grid: Grid, jobs: Sequence[Job], folder: Path, workers: int, threads: int, device: str | None, tell: OnAnswer
) -> None:
    """Does all jobs with `workers` processes of `threads` threads each.

    A worker that dies is started again, and its job is tried again, `ATTEMPTS` times in all. Jobs are in one queue in
    the grid's order, so that a worker seldom opens another model. A job on whose edit another process works, of this
    command or of another one, goes to the end of the queue. An exception, such as a keyboard interrupt, kills the
    workers.
    """
    waiting: queue.SimpleQueue[Job] = queue.SimpleQueue()
    for job in jobs:
        waiting.put(job)
    stopping = threading.Event()
    started = [WorkerProcess(grid, folder, threads, device) for _ in range(min(workers, len(jobs)))]

    def serve(worker: WorkerProcess) -> None:
        while not stopping.is_set():
            try:
                job = waiting.get_nowait()
            except queue.Empty:
                break
            answer = worker.ask(job)
            if stopping.is_set():
                return
            if "busy" in answer:
                waiting.put(job)
                stopping.wait(PAUSE)
            else:
                tell(job, answer)
        worker.stop()

    with ThreadPoolExecutor(workers) as pool:
        try:
            for each in as_completed([pool.submit(serve, worker) for worker in started]):
                each.result()
        except BaseException:
            stopping.set()
            for worker in started:
                worker.kill()
            raise


class WorkerProcess:
    """A process that does jobs; it is started for its first job, and again after it died."""

    def __init__(self, grid: Grid, folder: Path, threads: int, device: str | None) -> None:
        self.command = [sys.executable, "-m", WORKER, str(folder), device or "", str(threads)]
        self.grid = grid.model_dump_json()
        """It is written to the process, because an argument of a command has at most 128 KiB."""
        self.told: subprocess.Popen[str] | None = None
        """The process that has the grid."""
        self.log = folder / "workers.log"
        self.process: subprocess.Popen[str] | None = None
        self.killed = False
        self.starting = threading.Lock()

    def ask(self, job: Job) -> Answer:
        """Does a job and returns its answer, which is an error where the process died each time or was killed."""
        code = 0
        for _ in range(ATTEMPTS):
            process = self._start_process()
            if process is None:
                return {"error": "the sweep was stopped"}
            assert process.stdin and process.stdout
            try:
                if self.told is not process:
                    process.stdin.write(self.grid + "\n")
                    self.told = process
                process.stdin.write(json.dumps(dataclasses.asdict(job)) + "\n")
                process.stdin.flush()
                if line := process.stdout.readline():
                    return parse_json(line)
            except OSError:  # it died before it read the job
                pass
            code = _bury(process)
            self.process = None
        return {"error": f"the worker process ended with {code} on each of {ATTEMPTS} attempts; see {self.log}"}

    def stop(self) -> None:
        """Ends the process, which has no job."""
        if self.process:
            self.process.communicate()

    def kill(self) -> None:
        """Ends the process whatever it does; it is not started again."""
        with self.starting:
            self.killed = True
            if self.process:
                self.process.kill()

    def _start_process(self) -> subprocess.Popen[str] | None:
        """The running process, or None after `kill`."""
        with self.starting:
            if self.killed:
                return None
            if self.process is None:
                with open(self.log, "a", encoding="utf-8") as log:
                    self.process = subprocess.Popen(
                        self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
                    )
            return self.process


def _bury(process: subprocess.Popen[str]) -> int:
    """Closes the pipes of a process that died, and returns its exit code."""
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(OSError):  # unread input can't be flushed any more
                pipe.close()
    return process.wait()
