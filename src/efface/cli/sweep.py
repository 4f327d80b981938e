"""`efface sweep`: many erasures at once, from a grid file."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

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
    """The folder of the sweep; one that was begun is gone on with."""
    dry_run: bool = False
    """Print the cost of the sweep, and do nothing else."""
    fraction: float | None = None
    """Draw this share of each group's pictures, such as 0.02; intervals say what that is worth."""
    set: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """A key in the place of the grid's own, KEY=VALUE, such as settings.esd.steps=100; repeat for several."""
    concept: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Run only this concept of the grid; repeat for several. The page is of all that is finished."""
    method: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Run only this method or variant; repeat for several."""
    seed: tyro.conf.UseAppendAction[tuple[int, ...]] = ()
    """Run only this training seed; repeat for several."""
    page: Path | None = None
    """Also write the page to this file."""
    model: str = ""
    """Another model than the one in the grid."""
    workers: int = 1
    """Number of processes on this machine, each of which opens the model."""
    threads: int = 1
    """Threads of each worker. The last bits of results may depend on it."""
    device: str | None = None
    """Where each worker computes; a GPU where there is one."""
    ray: str = ""
    """Run on Ray: "auto" for the cluster of this machine, HOST:PORT, or "local"."""
    gpus: float = 0.0
    """On Ray: what each job takes of a GPU; 0.5 lets two jobs share one."""
    cpus: float = 1.0
    """On Ray: cores that each job takes."""
    retries: int = 3
    """On Ray: how often a job is tried again whose machine is lost."""
    seconds_picture: float | None = None
    """For --dry-run: seconds that one picture takes on your device; else the grid's, a bundled model's, or one."""
    seconds_update: float | None = None
    """For --dry-run: seconds that one update of the weights takes; by default as for a picture."""
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
            gpus=self.gpus, cpus=self.cpus, retries=self.retries, on_answer=tell, command=self._say_again(),
        )  # fmt: skip
        made = f"{summary.done} of {summary.cells} cells are done, {summary.new} of them now"
        text = f"{made}\n{summary.table}\n{summary.page}"
        data = {**asdict(summary), "table": str(summary.table), "page": str(summary.page)}
        print_result(data, self.json, text)
        for name, why in summary.failed:
            say(f"failed: {name}: {why}")
        return 1 if summary.failed else 0

    def _foresee(self, grid: Grid) -> int:
        """Say what the sweep, or the part that is asked for, will take."""
        from ..sweeps.forecast import forecast
        from ..sweeps.jobs import expand
        from ..sweeps.memory import describe_memory
        from ..sweeps.sweeping import choose_part

        part = choose_part(expand(grid), self.concept, self.method, self.seed)
        found = forecast(grid, part, self.seconds_picture, self.seconds_update)
        memory = describe_memory(part, self.device)
        data = {**asdict(found), "hours": found.hours, "memory": memory}
        print_result(data, self.json, "\n".join([*found.lines(), *memory]))
        return 0

    def _say_again(self) -> str:
        """The command that makes the page anew."""
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
    """A line for each job that was answered."""
    what = answer.get("error") or f"{len(answer['done'])} cells"
    say(f"{done} of {total}  {job.name}: {what}")
