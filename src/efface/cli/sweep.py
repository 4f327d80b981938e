"""`efface sweep`: many erasures at once, from a grid file."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from ..plurals import write_count
from .console import print_result, say

if TYPE_CHECKING:
    from ..sweeps.grid import Grid
    from ..sweeps.jobs import Job
    from ..sweeps.local import Answer


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Run a grid of methods, concepts, seeds, strengths and attacks, and gather one table.

    A finished cell is not computed again, so the same command continues after a stop or a failure.
    """

    kept: ClassVar[str] = "finished cells are kept in --out; the same command continues from there"
    example: ClassVar[str] = "efface sweep grid.toml --out out/grid --workers 2"
    grid: Annotated[Path, tyro.conf.Positional]
    """The grid, a TOML file (docs/scale.md says what it holds)."""
    out: Path
    """Folder of the sweep; a sweep that was stopped there is continued."""
    dry_run: bool = False
    """Print the cost of the sweep, and do nothing else."""
    fraction: float | None = None
    """Draw only this share of each group's pictures, such as 0.02, and attack fewer prompts; intervals become wider."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A value that replaces the grid's, as KEY=VALUE, such as settings.esd.steps=100; repeat the flag for several."""
    concept: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Run only this concept of the grid; repeat the flag for several. The page shows all finished cells of the grid."""
    method: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Run only this method or variant; repeat the flag for several."""
    seed: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Run only this training seed; repeat the flag for several."""
    page: Path | None = None
    """Also write the page to this file."""
    model: str = ""
    """A model to use instead of the grid's."""
    workers: int = 1
    """Number of processes on this machine, each of which opens the model."""
    threads: int = 1
    """Threads of each worker. The last bits of results may depend on it."""
    device: str | None = None
    """The device of each worker; by default a GPU where there is one."""
    ray: str = ""
    """Run on Ray: "auto" for the cluster of this machine, HOST:PORT, or "local"."""
    gpus: float = 0.0
    """On Ray: number of GPUs of each job; with 0.5 two jobs share one."""
    cpus: float = 1.0
    """On Ray: number of cores of each job."""
    retries: int = 3
    """On Ray: how often a job is started again if its machine is lost."""
    seconds_picture: float | None = None
    """For --dry-run: seconds that one picture takes on your device. By default the grid's number, or the one
    measured for a bundled model, or 1."""
    seconds_update: float | None = None
    """For --dry-run: seconds that one update of the weights takes. By default as for --seconds-picture."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> int:
        from ..sweeps.grid import read_grid

        grid = read_grid(self.grid, self.fraction, self.set)
        if self.model:
            grid = grid.model_copy(update={"models": (self.model,)})
        if self.dry_run:
            return self._foresee(grid)
        from ..sweeps.sweeping import sweep

        summary = sweep(
            grid, self.out, concepts=self.concept, methods=self.method, seeds=self.seed, page=self.page or "",
            workers=self.workers, threads=self.threads, device=self.device, ray=self.ray,
            gpus=self.gpus, cpus=self.cpus, retries=self.retries, on_answer=tell, command=self._format_command(),
        )  # fmt: skip
        made = f"{summary.done} of {write_count(summary.cells, 'cell is', 'cells are')} done, {summary.new} of them now"
        text = f"{made}\n{summary.table}\n{summary.page}"
        data = {**asdict(summary), "table": str(summary.table), "page": str(summary.page)}
        print_result(data, self.json, text)
        for name, why in summary.failed:
            say(f"failed: {name}: {why}")
        return 1 if summary.failed else 0

    def _foresee(self, grid: Grid) -> int:
        """Prints what the sweep, or the part of it that the flags choose, will cost; returns the exit code."""
        from ..sweeps.forecast import forecast
        from ..sweeps.jobs import expand
        from ..sweeps.memory import describe_memory
        from ..sweeps.sweeping import choose_part

        part = choose_part(expand(grid), self.concept, self.method, self.seed)
        found = forecast(grid, part, self.seconds_picture, self.seconds_update)
        memory = describe_memory(part, self.device)
        finished = sum(1 for _ in (self.out / "cells").glob("*.json"))
        data = {**asdict(found), "hours": found.hours, "memory": memory, "finished": finished}
        there = [f"finished in {self.out}: {finished:,}, which this count does not leave out"]
        print_result(data, self.json, "\n".join([*found.format_lines(), *memory, *(there if finished else [])]))
        return 0

    def _format_command(self) -> str:
        """Writes the command that makes the page again."""
        flags = {"--model": [self.model] if self.model else [], "--concept": self.concept, "--method": self.method}
        flags |= {
            "--set": self.set,
            "--seed": self.seed,
            "--fraction": [] if self.fraction is None else [self.fraction],
        }
        flags |= {"--out": [self.out], "--page": [self.page] if self.page else []}
        said = [part for flag, values in flags.items() for value in values for part in (flag, str(value))]
        return shlex.join(["efface", "sweep", str(self.grid), *said])


def tell(job: Job, answer: Answer, done: int, total: int) -> None:
    """Prints a line for a finished or failed job."""
    what = answer.get("error") or write_count(len(answer["done"]), "cell")
    say(f"{done} of {total}  {job.name}: {what}")
