"""Kills a sweep's driver and its workers at random moments: `python -m benchmarks.sweep_kills [--kills 10] [--ray]`.

`efface sweep` runs a small grid with two workers. As many times as asked for, at a random moment of its run, the driver
is killed with SIGKILL and started again, and as many times one of its workers is, which the driver must replace. A
worker whose driver was killed is left alone: it ends its job while the next driver is already at work. If a sweep
ends before the chosen moment, it is checked, and another one is begun.

For every sweep that was begun, the benchmark requires that its table equals that of an uninterrupted run byte for byte,
that every cell is there, that no finished cell is written again, and that no job fails. With `--ray` the driver runs on
Ray, and a worker is one of Ray's.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

GRID = """
model = "glyphs-ddpm"
methods = ["negative"]
concepts = ["cat", "dog", "rose", "car", "apple", "bus", "guitar", "pizza"]
strengths = [1.0, 0.5]
[sizes]
target = 1
[drawing]
steps = 2
"""
POLL = 0.05
WORKERS = ("efface.sweeps.worker", "ray::")
"""What the command line of a worker process holds."""


@dataclass
class Watched:
    """A sweep's folder, and when each of its cells was first seen."""

    out: Path
    seen: dict[str, int] = field(default_factory=dict)
    again: set[str] = field(default_factory=set)
    """Cells that were written although they were there."""

    def look(self) -> None:
        for file in (self.out / "cells").glob("*.json"):
            stamp = file.stat().st_mtime_ns
            if self.seen.setdefault(file.name, stamp) != stamp:
                self.again.add(file.name)


@dataclass(frozen=True)
class Bench:
    """The grid, and how its driver is started."""

    grid: Path
    ray: bool

    def start(self, out: Path) -> subprocess.Popen:
        command = [sys.executable, "-m", "efface", "sweep", str(self.grid), "--out", str(out), "--workers", "2"]
        log = open(out.with_suffix(".log"), "a")  # noqa: SIM115  # it lives as long as the driver
        return subprocess.Popen(command + ["--ray", "local"] * self.ray, stdout=log, stderr=log)

    def run_until(self, watched: Watched, driver: subprocess.Popen, moment: float) -> bool:
        """Waits until the moment, in seconds from now; False if the driver ended before it."""
        end = time.monotonic() + moment
        while time.monotonic() < end:
            watched.look()
            if driver.poll() is not None:
                return False
            time.sleep(POLL)
        return True


def kill_worker(driver: subprocess.Popen, rng: random.Random) -> bool:
    """Kills one worker; False if there is none."""
    found = [p for p in psutil.Process(driver.pid).children(recursive=True) if _is_worker(p)]
    if found:
        rng.choice(found).kill()
    return bool(found)


def _is_worker(process: psutil.Process) -> bool:
    try:
        return any(mark in " ".join(process.cmdline()) for mark in WORKERS)
    except psutil.Error:
        return False


def check(watched: Watched, whole: Watched) -> list[str]:
    """Lists what is wrong with a sweep that has ended."""
    same = (watched.out / "table.csv").read_bytes() == (whole.out / "table.csv").read_bytes()
    wrong = [] if same else ["another table"]
    wrong += ["other cells"] if set(watched.seen) != set(whole.seen) else []
    wrong += [f"{len(watched.again)} cells written again"] if watched.again else []
    return [f"{watched.out.name}: {each}" for each in wrong]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of the driver, and as many of workers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=1e6, help="kill nothing more after so long, and say how many were"
    )
    parser.add_argument("--ray", action="store_true", help="on Ray instead of by processes of this machine")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bench, whole = Bench(folder / "grid.toml", args.ray), Watched(folder / "whole")
        bench.grid.write_text(GRID)
        began = time.monotonic()
        if Bench(bench.grid, ray=False).start(whole.out).wait():
            raise SystemExit(whole.out.with_suffix(".log").read_text())
        whole.look()
        whole_seconds = time.monotonic() - began
        left, wrong, sweeps = {"worker": args.kills, "driver": args.kills}, [], 0
        last = began + 60 * args.minutes
        while any(left.values()) and time.monotonic() < last:
            sweeps += 1
            wrong += _harass(bench, Watched(folder / f"sweep{sweeps}"), whole, left, whole_seconds, rng, last)
        done = {kind: args.kills - n for kind, n in left.items()}
        killed = f"{done['driver']} kills of the driver and {done['worker']} of workers"
        print(f"{killed} in {sweeps} sweeps of {len(whole.seen)} cells: {'; '.join(wrong) or 'all held'}")
        return 1 if wrong else 0


def _harass(
    bench: Bench,
    watched: Watched,
    whole: Watched,
    left: dict[str, int],
    seconds: float,
    rng: random.Random,
    last: float,
) -> list[str]:
    """Runs one sweep from beginning to end, with kills at random moments until none are left or time is up."""
    driver = bench.start(watched.out)
    while any(left.values()) and time.monotonic() < last:
        if not bench.run_until(watched, driver, rng.uniform(0, seconds)):
            break
        victim = rng.choice([kind for kind, n in left.items() if n])
        print(f"{watched.out.name}: {len(watched.seen)} cells are done, and the {victim} is killed", flush=True)
        if victim == "worker":
            left["worker"] -= kill_worker(driver, rng)
            continue
        driver.kill()
        driver.wait()
        left["driver"] -= 1
        driver = bench.start(watched.out)
    while driver.poll() is None:
        watched.look()
        time.sleep(POLL)
    watched.look()
    if driver.returncode:
        log = watched.out.with_suffix(".log").read_text()
        return [f"{watched.out.name}: ended with {driver.returncode}: {log[-500:]}"]
    return check(watched, whole)


if __name__ == "__main__":
    sys.exit(main())
