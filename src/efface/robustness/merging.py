"""A folder's attacks add up: what earlier runs found there stays, and the worst case is over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..functional.rates import Verdict
from ..records.attack_files import add_interrupted
from ..records.attacks import (
    FILE,
    AttackMeasure,
    AttackRecord,
    AttackSuccess,
    PlannedAttack,
    estimate_robust,
)
from ..records.report import Alarm
from ..records.sealed import write_sealed


@dataclass(frozen=True)
class Log:
    """Writes the record as soon as an attack is finished, so that whatever stops a run hides nothing of it."""

    out: Path
    store: Path
    earlier: AttackRecord | None
    """What was finished in this folder before."""
    planned: Sequence[PlannedAttack]
    build: Callable[[], AttackRecord]

    def write(self) -> AttackRecord:
        """The record of what is finished by now, in this run and in earlier ones."""
        store = os.path.relpath(self.store, self.out)
        built = self.build()
        successes = tuple(_move(success, os.path.dirname(store)) for success in built.successes)
        changed = {"planned": tuple(self.planned), "store": store, "successes": successes}
        record = built.model_copy(update=changed)
        if self.earlier:
            record = merge(self.earlier, record)
        return add_interrupted(write_sealed(self.out / FILE, record), self.store)


def merge(earlier: AttackRecord, now: AttackRecord) -> AttackRecord:
    """The record of two runs: every measure of both, and of each row the worst that any attack did.

    An attack that was made again as it was replaces its measure, unless that speaks of more rows. Of one that was made
    with other settings both measures stay, and the earlier one's name says how it differs.

    Raises:
        ValueError: the two attacked different rows of the suite.
    """
    if earlier.worst and not (earlier.worst.keys() <= now.worst.keys() or now.worst.keys() <= earlier.worst.keys()):
        raise ValueError("this folder holds attacks on other rows of the suite; give another folder")
    kept = [m for m in earlier.measures if not any(_same(m, other) and other.size >= m.size for other in now.measures)]
    new = [m for m in now.measures if not any(_same(m, other) for other in kept)]
    names = _label(kept, new)
    renamed = [m.model_copy(update={"attack": names.get((m.attack, m.inputs), m.attack)}) for m in kept]
    old = {(m.attack, m.condition): names.get((m.attack, m.inputs), m.attack) for m in kept}
    successes = [
        s.model_copy(update={"attack": old[s.attack, s.condition]})
        for s in earlier.successes
        if (s.attack, s.condition) in old
    ]
    made = {(m.attack, m.condition) for m in new}
    successes = [*(s for s in now.successes if (s.attack, s.condition) in made), *successes]
    largest = {c.condition: c for c in sorted((*earlier.conditions, *now.conditions), key=lambda c: c.rows)}
    order = dict.fromkeys(c.condition for c in (*now.conditions, *earlier.conditions))
    worst = _worst(_known(earlier), now.worst)
    begun = {(p.attack, p.condition, p.inputs): p for p in (*earlier.planned, *now.planned)}
    return now.model_copy(
        update={
            "measures": (*new, *renamed),
            "successes": tuple(successes),
            "conditions": tuple(largest[condition] for condition in order),
            "worst": worst,
            "robust": estimate_robust(worst),
            "planned": tuple(begun.values()),
            "alarms": _join(now.alarms, earlier.alarms),
        }
    )


def _move(success: AttackSuccess, folder: str) -> AttackSuccess:
    """The success with its files, which are relative to a folder, relative to the record's."""
    files = {key: getattr(success, key) for key in ("picture", "tensors", "before")}
    return success.model_copy(update={key: os.path.join(folder, file) if file else "" for key, file in files.items()})


def _same(one: AttackMeasure, other: AttackMeasure) -> bool:
    """Whether both are the same attack, made in the same way; files of version 1 do not name their inputs."""
    if one.condition != other.condition:
        return False
    if one.inputs and other.inputs:
        return one.inputs == other.inputs
    facts = ("attack", "version", "settings", "seed")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)


def _label(kept: Sequence[AttackMeasure], new: Sequence[AttackMeasure]) -> dict[tuple[str, tuple[str, ...]], str]:
    """New names of those kept that have the name of another attack with other settings, by name and inputs."""
    found: dict[tuple[str, tuple[str, ...]], str] = {}
    for measure in kept:
        other = next((m for m in new if m.attack == measure.attack), None)
        if other is not None:
            differs = [f"{k} {v}" for k, v in measure.settings.items() if other.settings.get(k) != v]
            differs += [f"version {measure.version}"] if measure.version != other.version else []
            differs += [f"seed {measure.seed}"] if measure.seed != other.seed else []
            name = f"{measure.attack} ({', '.join(differs) or f'{measure.size} rows'})"
            taken = {m.attack for m in (*kept, *new)}
            found[measure.attack, measure.inputs] = name if name not in taken else f"{name} again"
    return found


def _known(record: AttackRecord) -> dict[str, Verdict]:
    """The worst of each row; files of version 1 tell only which rows an attack broke."""
    broken = {s.row: True for s in record.successes if s.condition == "target"}
    return dict(record.worst) or dict(broken)


def _worst(one: Mapping[str, Verdict], other: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Of each row of either, True where any broke it, else None where any leaves that open, else False."""
    found: dict[str, Verdict] = {}
    for row in dict.fromkeys((*other, *one)):
        seen = [verdicts[row] for verdicts in (one, other) if row in verdicts]
        found[row] = True if True in seen else None if None in seen else False
    return found


def _join(now: Sequence[Alarm], before: Sequence[Alarm]) -> tuple[Alarm, ...]:
    told = {(alarm.name, alarm.raised_when): alarm for alarm in (*now, *before)}
    return tuple(told.values())
