"""What a sweep will take, before anything is opened or drawn: pictures, hours, and what has to be fetched."""

from __future__ import annotations

import dataclasses
import functools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog import METHODS
from ..concept import Erasure
from ..methods.configure import suggested_for
from ..suites.make import is_file, make, needs_world
from ..suites.spec import spec
from .grid import Grid
from .jobs import Job, expand, list_attacks

FLOORS = 2
"""Of an attack: the attack itself, and random prefixes with as many pictures."""
CONTROLS = 2
"""An attack is also made on the untouched base and on a kept concept."""


@dataclass(frozen=True)
class Forecast:
    """The size of a sweep. Pictures of attacks are an upper bound: a prompt is left alone once it is broken."""

    jobs: int
    evaluations: int
    attacks: int
    updates: int
    """Updates of weights by trained methods."""
    pictures: int
    """Drawn to be judged in evaluations; the base's are drawn once for each concept and model."""
    attack_pictures: int
    fetched: tuple[str, ...]
    """What has to come from the network."""
    unknown: tuple[str, ...]
    """What could not be counted, and why."""

    def hours(self, seconds_picture: float, seconds_update: float) -> float:
        """Hours of one device at these rates."""
        pictures = self.pictures + self.attack_pictures
        return (pictures * seconds_picture + self.updates * seconds_update) / 3600

    def lines(self, seconds_picture: float, seconds_update: float) -> list[str]:
        """For a person."""
        hours = self.hours(seconds_picture, seconds_update)
        told = [
            f"{self.jobs} edits, {self.evaluations} evaluations, {self.attacks} attacks",
            f"{self.updates:,} updates of weights, {self.pictures:,} pictures to judge, "
            f"and at most {self.attack_pictures:,} in attacks",
            f"about {hours:.1f} hours of one device, at {seconds_picture:g} s a picture "
            f"and {seconds_update:g} s an update",
        ]
        told += [f"to be fetched: {each}" for each in self.fetched]
        return told + [f"not counted: {each}" for each in self.unknown]


def forecast(grid: Grid, part: Sequence[Job] | None = None) -> Forecast:
    """The size of a sweep, or of some of its jobs, from the grid and the suites alone."""
    jobs = expand(grid) if part is None else part
    rows: dict[tuple[str, str], int] = {}
    unknown: list[str] = []
    for job in jobs:
        if (job.model, job.concept) not in rows:
            rows[job.model, job.concept] = _count_rows(grid, job, unknown)
    edited = sum(len(job.strengths) * rows[job.model, job.concept] for job in jobs)
    made = [name for job in jobs for _ in job.strengths for name in list_attacks(job.attacks)]
    queries = {name: _queries(name, grid) for name in set(made)}
    each = FLOORS * (grid.attacking.rows + CONTROLS * grid.attacking.controls)
    words = 2 * (grid.audit.worst + grid.audit.controls) * grid.audit.count if grid.audit else 0
    audits = sum(any(job.strengths) for job in jobs) * words
    return Forecast(
        jobs=len(jobs),
        evaluations=sum(len(job.strengths) for job in jobs),
        attacks=len(made),
        updates=sum(_count_updates(job) for job in jobs),
        pictures=edited + sum(rows.values()) + audits,
        attack_pictures=each * sum(queries[name] for name in made),
        fetched=tuple(_list_fetched(grid)),
        unknown=tuple(dict.fromkeys(unknown)),
    )


def _count_rows(grid: Grid, job: Job, unknown: list[str]) -> int:
    from ..api.resources import suite_for, world_of

    known, erasure = world_of(job.model), Erasure(job.targets, job.anchor, job.keep)
    name = grid.suite or (suite_for(erasure, known) if known else "")
    if name and _is_elsewhere(name):
        if grid.expected_rows is None:
            unknown.append(f"rows of {name}: it has to be fetched; expected_rows in the grid can give their number")
        return max(1, round(grid.fraction * (grid.expected_rows or 0)))
    if not name or (needs_world(name) and not known):
        unknown.append(f"rows for {job.model}: the grid names no suite for it" if not name else f"rows of {name}")
        return 0
    there = () if is_file(name) else [group.name for group in spec(name).groups]
    if not there:
        there = {row.group for row in make(name, erasure, known, asks=grid.asks, per_group=1).rows}
    sizes = {group: n for group, n in grid.sizes.items() if group in there}
    suite = make(name, erasure, known, asks=grid.asks, only=list(sizes), sizes=sizes)
    groups = Counter(row.group for row in suite.rows)
    return sum(max(1, round(grid.fraction * n)) for n in groups.values())


def _is_elsewhere(suite: str) -> bool:
    """Whether a suite's rows have to be fetched before they can be counted."""
    return not Path(suite).exists() if is_file(suite) else "hub" in spec(suite).brings


def _count_updates(job: Job) -> int:
    kind = METHODS.get(job.method)
    if kind.kind != "trained":
        return 0
    default = {field.name: field.default for field in dataclasses.fields(kind)}.get("steps", 0)
    if "steps" in job.settings:
        return int(job.settings["steps"])
    steps = {"steps": default, **_suggest(job.method, job.model)}["steps"]
    return steps if isinstance(steps, int) else 0


_suggest = functools.cache(suggested_for)


def _queries(name: str, grid: Grid) -> int:
    from ..attacks import configured

    own = grid.attacking.settings.get(name)
    return configured(name, grid.models[0], grid.attacking.budget, own).queries


def _list_fetched(grid: Grid) -> list[str]:
    from ..api.resources import bundle_of

    found = [f"the model {name}" for name in grid.models if bundle_of(name) is None and not Path(name).exists()]
    if is_file(grid.suite) and not Path(grid.suite).exists():
        found.append(f"the list {grid.suite}; give its path by --set suite=FILE")
    elif grid.suite and _is_elsewhere(grid.suite):
        found.append(f"the suite {grid.suite}, of {spec(grid.suite).brings['hub']['repository']}")
    for scorer in grid.scorers:
        kind, _, where = scorer.partition(":")
        place = where.partition(",")[0]
        if place and not Path(place).exists():
            found.append(f"the scorer {kind} of {place}")
    return found
