"""Kills a sweep's driver and its workers at random moments: `python -m benchmarks.sweep_kills [--kills 10] [--seed 0]`.

Each round starts `efface sweep` on a small grid and kills either all of its processes or one worker after a random
time, until as many kills of each are done; then the sweep runs to its end. Held to: the table is that of an
uninterrupted run to the byte, and no finished cell is written twice.
"""

import argparse
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil

GRID = """
model = "glyphs-ddpm"
methods = ["negative"]
concepts = ["cat", "dog", "rose", "car", "apple", "bus", "tiger", "pizza"]
strengths = [1.0, 0.5]
[sizes]
target = 1
[drawing]
steps = 2
"""


def start(grid: Path, out: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "efface", "sweep", str(grid), "--out", str(out)]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(out: Path) -> dict[str, int]:
    return {file.name: file.stat().st_mtime_ns for file in (out / "cells").glob("*.json")}


def kill(driver: subprocess.Popen, worker: bool) -> bool:
    """Kill the driver with all its processes, or one worker; False where there was none to kill."""
    try:
        children = psutil.Process(driver.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return False
    for victim in children[:1] if worker else [psutil.Process(driver.pid), *children]:
        victim.kill()
    return bool(children) or not worker


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=10, help="of the driver, and as many of workers")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with tempfile.TemporaryDirectory() as folder:
        grid, whole, out = Path(folder) / "grid.toml", Path(folder) / "whole", Path(folder) / "out"
        grid.write_text(GRID)
        assert start(grid, whole).wait() == 0
        left, twice, seen = {True: args.kills, False: args.kills}, 0, {}
        while any(left.values()):
            worker = rng.choice([kind for kind, n in left.items() if n])
            driver = start(grid, out)
            time.sleep(rng.uniform(0.5, 12))
            left[worker] -= kill(driver, worker)
            now = finished(out)
            twice += sum(now[name] != stamp for name, stamp in seen.items())
            seen = now
            if driver.poll() is None:
                psutil.Process(driver.pid).kill()
            driver.wait()
            if len(seen) == len(finished(whole)):  # all is done: begin anew
                seen = {}
                out = out.with_name(out.name + "x")
        assert start(grid, out).wait() == 0
        same = (out / "table.csv").read_bytes() == (whole / "table.csv").read_bytes()
        print(
            f"{2 * args.kills} kills: table {'the same' if same else 'DIFFERS'}, {twice} finished cells written again"
        )
        return 0 if same and not twice else 1


if __name__ == "__main__":
    sys.exit(main())
