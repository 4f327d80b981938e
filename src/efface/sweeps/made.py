"""The facts about a sweep that stand at the head of its page: models, cells, times and alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..files import hash_json
from ..plurals import write_count
from .cells import Store

if TYPE_CHECKING:
    from .jobs import Job
    from .work import JobCells


@dataclass(frozen=True)
class Made:
    """The facts about a sweep: models, cells, times and alarms."""

    cells: int = 0
    done: int = 0
    fingerprints: tuple[str, ...] = ()
    """Each model's name with the beginning of the digest of its weights."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of the processor for finished cells, by kind; by the clock where an earlier version measured only that."""
    interrupted: int = 0
    """The number of finished cells that were begun more than once, of which `seconds` has the last attempt alone."""
    alarms: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Each alarm's name, and the edits that raised it."""
    refused: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Each reason why an attack could not be made, and the edits concerned."""
    failed: tuple[tuple[str, tuple[str, ...]], ...] = ()
    """Each error that ended a job in its last run, and the edits concerned."""

    def format_lines(self) -> list[str]:
        """The lines for the head of a page."""
        if not self.cells:
            return []
        if not self.done:
            return [f"**None of {write_count(self.cells, 'cell')} is done so far.** What follows was fixed beforehand."]
        took = ", ".join(f"{kind} {seconds / 3600:.2f}" for kind, seconds in self.seconds.items())
        total = sum(self.seconds.values()) / 3600
        done = "The only cell is done" if self.cells == 1 else f"All {self.cells} cells are done"
        if self.done < self.cells:
            done = f"**Only {self.done} of {write_count(self.cells, 'cell is', 'cells are')} done so far**"
        cut = f", without the first attempts at {write_count(self.interrupted, 'cell')}" if self.interrupted else ""
        return [f"{done}, in {total:.2f} core-hours ({took}){cut}. {'; '.join(self.fingerprints)}."]


def describe(planned: Sequence[tuple[Job, JobCells]], store: Store) -> Made:
    """Collects these facts from the cells of a sweep's folder."""
    seconds: dict[str, float] = {}
    alarms: dict[str, dict[str, None]] = {}
    refused: dict[str, dict[str, None]] = {}
    models: dict[str, str] = {}
    finished: dict[str, bool] = {}
    interrupted = 0
    failed: dict[str, dict[str, None]] = {}
    for job, cells in planned:
        for cell in cells:
            if cell.id in finished:
                continue
            finished[cell.id] = store.is_done(cell)
            if not finished[cell.id]:
                continue
            cost = store.read_cost(cell)
            seconds[cell.kind] = seconds.get(cell.kind, 0.0) + cost.get("processor", cost.get("seconds", 0.0))
            interrupted += cost.get("attempts", 1) > 1
            result = store.read_result(cell)
            for name in result.get("alarms", ()):
                alarms.setdefault(name, {})[job.name] = None
            if "refused" in result:
                refused.setdefault(result["refused"], {})[job.name] = None
            if cell.kind == "erase" and job.model not in models:
                models[job.model] = hash_json(store.read_decided_by(cell)["base"])[:8]
        if not all(finished[cell.id] for cell in cells) and (error := store.read_error(job.compute_key())):
            failed.setdefault(error, {})[job.name] = None
    raised, barred, broken = (
        tuple((what, tuple(jobs)) for what, jobs in sorted(found.items())) for found in (alarms, refused, failed)
    )
    named = tuple(f"Model {name}, {digest}" for name, digest in models.items())
    return Made(len(finished), sum(finished.values()), named, seconds, interrupted, raised, barred, broken)
