"""Merges the attacks in a folder: results of earlier runs stay, and the worst case is over all of them."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ..attacks import BASELINE
from ..files import find_relative
from ..functional.rates import Verdict, either
from ..plurals import write_count
from ..records.attack_files import add_interrupted, read_file
from ..records.attacks import (
    FILE,
    AttackedRows,
    AttackMeasure,
    AttackRecord,
    AttackSuccess,
    PlannedAttack,
    estimate_robust,
)
from ..records.basis import require_same_basis
from ..records.report import Alarm
from ..records.sealed import write_sealed

BASIS = ("targets", "suite", "scorers", "drawing")
"""What attacks in one folder have in common."""
UNEVEN = "attacks were made on different rows"
"""The name of the alarm for attacks in one folder that were made on fewer rows than others."""


@dataclass
class Log:
    """Writes the record as soon as an attack is finished, so that a run that is stopped loses nothing.

    What another process writes into the same folder meanwhile stays in the record.
    """

    out: Path
    store: Path
    earlier: AttackRecord | None
    """The record of earlier runs in this folder."""
    planned: Sequence[PlannedAttack]
    build: Callable[[], AttackRecord]
    _written: str = field(default="", init=False)
    """The digest of the record that this run wrote last."""

    def write(self) -> AttackRecord:
        """Writes and returns the record of all attacks that are finished, in this run and in others.

        Raises:
            ValueError: another process wrote attacks on another basis, or on other rows, into the folder meanwhile.
        """
        store = find_relative(self.store, self.out)
        built = self.build()
        successes = tuple(_move(success, os.path.dirname(store)) for success in built.successes)
        changed = {"planned": tuple(self.planned), "store": store, "successes": successes}
        record = built.model_copy(update=changed)
        if (there := read_file(self.out)) is not None and there.digest != self._written:
            require_same_basis(there, {name: getattr(record, name) for name in BASIS})
            self.earlier = there
        if self.earlier:
            record = merge(self.earlier, record)
        written = write_sealed(self.out / FILE, record)
        self._written = written.digest
        return add_interrupted(written, self.store)


def merge(earlier: AttackRecord, now: AttackRecord) -> AttackRecord:
    """Merges the records of two runs: every measure of both, and for each row the worst result of any attack.

    A repeated attack with the same settings replaces its measure, unless that has more rows. Of an attack with other
    settings both measures stay, and the earlier one's name says how it differs.

    Raises:
        ValueError: the two runs attacked different rows of the suite.
    """
    if earlier.worst.keys() - now.worst.keys() and now.worst.keys() - earlier.worst.keys():
        raise ValueError("this folder holds attacks on other rows of the suite; give another folder")
    kept = [
        m for m in earlier.measures if not any(_is_same(m, other) and other.size >= m.size for other in now.measures)
    ]
    new = [m for m in now.measures if not any(_is_same(m, other) for other in kept)]
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
    worst = _combine_worst(_read_known(earlier), now.worst)
    attacked = _join_attacked(earlier, now)
    begun = {(p.attack, p.condition, p.inputs): p for p in (*earlier.planned, *now.planned)}
    return now.model_copy(
        update={
            "measures": (*new, *renamed),
            "successes": tuple(successes),
            "conditions": tuple(largest[condition] for condition in order),
            "worst": worst,
            "attacked": attacked,
            "robust": estimate_robust(worst, attacked),
            "planned": tuple(begun.values()),
            "alarms": (*_join(now.alarms, earlier.alarms), *_warn_uneven(worst, attacked)),
        }
    )


def _move(success: AttackSuccess, folder: str) -> AttackSuccess:
    """Makes the paths of a success' files, which are relative to `folder`, relative to the record's folder."""
    files = {key: getattr(success, key) for key in ("picture", "tensors", "before")}
    return success.model_copy(update={key: os.path.join(folder, file) if file else "" for key, file in files.items()})


def _is_same(one: AttackMeasure, other: AttackMeasure) -> bool:
    """Whether both are the same attack with the same inputs, which files of version 1 do not have."""
    if one.condition != other.condition:
        return False
    if one.inputs and other.inputs:
        return one.inputs == other.inputs
    facts = ("attack", "version", "settings", "seed")
    return all(getattr(one, fact) == getattr(other, fact) for fact in facts)


def _label(kept: Sequence[AttackMeasure], new: Sequence[AttackMeasure]) -> dict[tuple[str, tuple[str, ...]], str]:
    """New names, by name and inputs, for kept attacks whose name a new one with other settings has."""
    found: dict[tuple[str, tuple[str, ...]], str] = {}
    for measure in kept:
        other = next((m for m in new if m.attack == measure.attack), None)
        if other is not None:
            differs = [f"{k} {v}" for k, v in measure.settings.items() if other.settings.get(k) != v]
            differs += [f"version {measure.version}"] if measure.version != other.version else []
            differs += [f"seed {measure.seed}"] if measure.seed != other.seed else []
            name = f"{measure.attack} ({', '.join(differs) or write_count(measure.size, 'row')})"
            taken = {m.attack for m in (*kept, *new)}
            found[measure.attack, measure.inputs] = name if name not in taken else f"{name} again"
    return found


def _read_known(record: AttackRecord) -> dict[str, Verdict]:
    """The worst result of each row; files of version 1 only say which rows an attack broke."""
    broken: dict[str, Verdict] = {s.row: True for s in record.successes if s.condition == "target"}
    return dict(record.worst) or broken


def _combine_worst(one: Mapping[str, Verdict], other: Mapping[str, Verdict]) -> dict[str, Verdict]:
    """Combines the results of rows: True where either broke it, else None where one is not known, else False."""
    rows = dict.fromkeys((*other, *one))
    return {row: either(verdicts[row] for verdicts in (one, other) if row in verdicts) for row in rows}


def list_attacked(measures: Sequence[AttackMeasure], rows: tuple[str, ...]) -> tuple[AttackedRows, ...]:
    """The rows, which are those of all of these attacks, of each that has a value on the target, but the baseline."""
    made = [m for m in measures if m.made_on_target and m.attack != BASELINE]
    return tuple(
        AttackedRows(attack=m.attack, version=m.version, settings=m.settings, seed=m.seed, rows=rows) for m in made
    )


def _join_attacked(earlier: AttackRecord, now: AttackRecord) -> tuple[AttackedRows, ...]:
    """The rows of each attack in both runs; files of earlier versions have one list of rows for all their attacks."""
    rows = tuple(earlier.worst)
    older = list_attacked(earlier.measures, rows) if rows else ()
    found: dict[str, AttackedRows] = {}
    for each in (*(earlier.attacked or older), *now.attacked):
        key = each.model_dump_json(exclude={"rows"})
        before = found[key].rows if key in found else ()
        found[key] = each.model_copy(update={"rows": tuple(dict.fromkeys((*before, *each.rows)))})
    return tuple(found.values())


def _warn_uneven(worst: Mapping[str, Verdict], attacked: Sequence[AttackedRows]) -> tuple[Alarm, ...]:
    few = [f"{each.attack} on {len(each.rows)}" for each in attacked if worst.keys() - set(each.rows)]
    if not few:
        return ()
    return (
        Alarm(
            name=UNEVEN,
            raised_when=f"of {write_count(len(worst), 'row')} in this folder: {', '.join(few)}",
            means="Whether these attacks would break the other rows is not known; such a row counts as unknown unless "
            "something else broke it.",
            do="Make them again with the largest --rows of this folder, or in another folder.",
        ),
    )


def _join(now: Sequence[Alarm], before: Sequence[Alarm]) -> tuple[Alarm, ...]:
    told = {(alarm.name, alarm.raised_when): alarm for alarm in (*now, *before) if alarm.name != UNEVEN}
    return tuple(told.values())
