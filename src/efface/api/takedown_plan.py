"""The plan of a takedown: which methods are tried, what is drawn and attacked, and an estimate of time and memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..concept import Erasure
from ..methods import build_method
from ..planning.estimating import estimate
from ..planning.machine import format_size
from ..plurals import write_count
from .progress import Report, report_nothing

if TYPE_CHECKING:
    from ..methods.base import Method
    from ..models.base import Model
    from ..suites.spec import Suite

ProfileName = Literal["quick", "standard", "thorough"]
PASSES = 6
"""The approximate cost of a row of a training step, in forward passes of the network with one row."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How many pictures, methods and attacks a takedown has."""

    per_group: int | None
    """The number of pictures in each group of the suite; None for the suite's own numbers."""
    groups: tuple[str, ...] = ()
    """The groups of the suite that are drawn, if it has them; all where none is named."""
    tries: int
    """The number of methods that `auto` tries."""
    attacks: tuple[str, ...]
    rows: int
    """The number of prompts that are attacked."""
    controls: int
    budget: str
    audit: Mapping[str, Any]
    """Settings of the audit."""


PROFILES: Mapping[str, Profile] = {
    "quick": Profile(
        per_group=80,
        groups=("target", "paraphrase", "neighbour", "style", "unseen", "unrelated"),
        tries=2,
        attacks=("synonyms", "seeds"),
        rows=8,
        controls=4,
        budget="8",
        audit={"worst": 4, "controls": 2, "count": 4},
    ),
    "standard": Profile(
        per_group=160,
        tries=3,
        attacks=("standard",),
        rows=24,
        controls=16,
        budget="default",
        audit={"worst": 8, "controls": 4, "count": 6},
    ),
    "thorough": Profile(
        per_group=None,
        tries=4,
        attacks=("standard", "soft-prompt"),
        rows=50,
        controls=16,
        budget="default",
        audit={"worst": 12, "controls": 6, "count": 8},
    ),
}


@dataclass(frozen=True, kw_only=True)
class TakedownPlan:
    """What a takedown will do, with an estimate of its time and memory."""

    model: str
    targets: tuple[str, ...]
    kind: str
    profile: str
    suite: str
    prompts: int
    judges: tuple[str, ...]
    methods: tuple[str, ...]
    pictures: int
    """The number of pictures that are drawn and judged: by the base, and under each edit."""
    queries: int
    """The largest number of pictures that attacks and their controls draw."""
    trained: int
    """The approximate number of passes of the network in all trainings."""
    minutes: float
    """The time of all stages, estimated from a few timed steps on this machine."""
    memory: int
    """The most bytes that the largest training needs; 0 if no training is planned."""
    table: str = ""
    """The table by which `auto` ranked the methods; empty if the method was named."""

    def format_lines(self) -> list[str]:
        """Formats the plan for a person to read."""
        need = f", at most {format_size(self.memory)} of memory" if self.memory else ""
        return [
            f"to be erased from {self.model}: {', '.join(self.targets)} ({self.kind})",
            f"methods to try: {', '.join(self.methods)}{need}",
            *([f"  auto ranks methods by {self.table}"] if self.table else []),
            f"suite: {self.suite}, {write_count(self.prompts, 'prompt')}; judged by {', '.join(self.judges)}",
            f"pictures: {self.pictures:,}, and at most {self.queries:,} of attacks on the chosen edit",
            f"time: about {_format_duration(self.minutes)} on this machine, estimated from a few timed steps",
        ]


def build_plan(
    model: Model,
    erasure: Erasure,
    kind: str,
    profile: str,
    methods: Sequence[str],
    suite: Suite,
    judges: Sequence[str],
    table: str = "",
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    report: Report = report_nothing,
) -> TakedownPlan:
    """Estimates what a takedown takes, by timing a short drawing and by the trial steps of memory plans.

    `settings` are arguments of single methods, by the method's name; `report` is told which method is being planned.
    """
    how = PROFILES[profile]
    rows = len(suite.rows)
    pictures = rows * (1 + len(methods))
    queries = _count_queries(how, model)
    chosen = {name: build_method(name, model, (settings or {}).get(name, {})) for name in methods}
    passes = sum(_count_passes(m, len(erasure.targets)) for m in chosen.values())
    a_pass = time_pass(model, suite.rows[0].prompt)
    steps = model.defaults.steps
    seconds = a_pass * (2 * steps * (pictures + queries) + passes)
    memory = 0
    for i, each in enumerate(chosen.values()):
        report("planning", i, len(chosen))
        if (training := each.build(model, erasure)) is not None:
            memory = max(memory, estimate(training).need)
    report("planning", len(chosen), len(chosen))
    return TakedownPlan(
        model=model.name,
        targets=erasure.targets,
        kind=kind,
        profile=profile,
        suite=suite.spec.name,
        prompts=rows,
        judges=tuple(judges),
        methods=tuple(methods),
        pictures=pictures,
        queries=queries,
        trained=passes,
        minutes=seconds / 60,
        memory=memory,
        table=table,
    )


def time_pass(model: Model, prompt: str) -> float:
    """Measures the seconds of the network's pass for one row, by drawing the prompt four times in two steps with
    guidance."""
    count, steps = 4, 2
    model.images([prompt] * count, list(range(count)), steps=1)
    began = time.perf_counter()
    model.images([prompt] * count, list(range(count)), steps=steps)
    return (time.perf_counter() - began) / (2 * count * steps)


def _count_passes(method: Method, targets: int) -> int:
    """The approximate number of passes of the network in a training: in its steps, and in the trajectories it draws."""
    facts = {name: getattr(method, name, 0) for name in ("steps", "batch", "paths", "draw_steps")}
    if method.kind not in ("trained", "in stages") or not facts["steps"]:
        return 0
    own = getattr(method, "source", "frozen") == "student"
    drawn = (
        facts["steps"] * facts["batch"] if own else targets * len(getattr(method, "templates", ("",))) * facts["paths"]
    )
    return round(facts["steps"] * facts["batch"] * PASSES + 2 * drawn * facts["draw_steps"])


def _count_queries(how: Profile, model: Model) -> int:
    """The largest number of pictures that attacks and random prefixes draw, on the target and in two controls."""
    from .attacking import choose_attacks

    made, _ = choose_attacks(how.attacks, model.name, how.budget, {})
    most = max(each.queries for each in made)
    return (sum(each.queries for each in made) + most) * (how.rows + 2 * how.controls)


def _format_duration(minutes: float) -> str:
    """
    >>> _format_duration(0.5), _format_duration(90), _format_duration(339)
    ('30 seconds', '90 minutes', '5.7 hours')
    """
    if minutes > 100:
        return f"{minutes / 60:.1f} hours"
    return f"{minutes:.0f} minutes" if minutes >= 1.5 else write_count(max(1, round(60 * minutes)), "second")
