"""Reads `attacks.json` and the files of batches beside it, including those of interrupted attacks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..files import read_json
from ..plurals import write_count
from .attacks import (
    FILE,
    FOLDER,
    FORMAT_VERSION,
    OTHER_WORK,
    AttackRecord,
    Batch,
    InterruptedAttack,
    PlannedAttack,
    estimate_robust,
)
from .attacks_v1 import upgrade
from .report import Alarm
from .sealed import parse_sealed, read_sealed

INTERRUPTED = "an attack was interrupted"
"""The name of the alarm for an attack that was interrupted."""


def read_attacks(folder: Path) -> AttackRecord | None:
    """Reads a folder's `attacks.json`, with the finished parts of interrupted attacks; None where there is none.

    Raises:
        ValueError: it was written by an unknown version, or is damaged; or there are batches of attacks without a
            record of them.
    """
    record = read_file(folder)
    if record is not None:
        _require_known(folder, record)
        return add_interrupted(record, folder / record.store)
    if _list_attacked(folder):
        raise ValueError(
            f"{folder} holds finished batches of attacks, but no {FILE}: what they broke is not known; run the attacks "
            "again, which goes on from these"
        )
    return None


def _list_attacked(folder: Path) -> set[str]:
    """The names of the attacks of which a folder holds finished batches."""
    return {file.parent.name for file in (folder / FOLDER).glob("*/*.json")} - {*OTHER_WORK}


def _require_known(folder: Path, record: AttackRecord) -> None:
    """Raises ValueError where a folder holds batches of attacks that its record does not name.

    So what an attack broke is not lost with a record that was removed before other attacks wrote a new one.
    """
    known = {*(each.attack for each in record.planned), *(m.attack.partition(" (")[0] for m in record.measures)}
    if strange := sorted(_list_attacked(folder) - known):
        raise ValueError(
            f"{folder} holds finished batches of attacks that its {FILE} does not name ({', '.join(strange)}): what "
            "they broke is not known; run these attacks again in this folder, which goes on from these"
        )


def read_file(folder: Path) -> AttackRecord | None:
    """Reads the `attacks.json` of a folder as it was written; None where there is none.

    Raises:
        ValueError: it was written by an unknown version, or is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    return read_sealed(path, tuple(range(1, FORMAT_VERSION + 1)), parse_attacks, "run the attacks again")


def add_interrupted(record: AttackRecord, store: Path) -> AttackRecord:
    """Adds the attacks that were begun and not finished to the record; their finished rows count in the worst case."""
    found = []
    for planned in record.planned:
        if not any(planned.inputs == m.inputs and planned.condition == m.condition for m in record.measures):
            held = [read_batch(file) for file in _list_files(store, planned)]
            batches = [batch for batch in held if batch]
            results = [row for batch in batches if batch.inputs in planned.inputs for row in batch.row_results]
            facts = planned.model_dump(exclude={"inputs"})
            found.append(InterruptedAttack(**facts, row_results=tuple(results), damaged=held.count(None)))
    if not found:
        return record
    broken = {r.row: True for each in found if each.condition == "target" for r in each.row_results if r.broken}
    worst = {**record.worst, **broken}
    told = (*record.alarms, *(_build_alarm(each) for each in found))
    changed = {
        "interrupted": tuple(found),
        "worst": worst,
        "robust": estimate_robust(worst, record.attacked),
        "alarms": told,
    }
    changed |= {"digest": ""}  # the digest of the file does not cover this addition
    return record.model_copy(update=changed)


def read_batch(file: Path) -> Batch | None:
    """Reads a finished batch of this version or an older one; None where the file is missing or damaged."""
    try:
        data = read_json(file)
        return Batch.model_validate({{"outcomes": "row_results"}.get(key, key): data[key] for key in data})
    except (OSError, ValueError, TypeError):
        return None


def list_interrupted_batches(folder: Path, record: AttackRecord) -> list[Path]:
    """The files of finished batches of interrupted attacks."""
    begun = {(each.attack, each.condition) for each in record.interrupted}
    found = [
        f for p in record.planned if (p.attack, p.condition) in begun for f in _list_files(folder / record.store, p)
    ]
    return list(dict.fromkeys(found))


def _list_files(store: Path, planned: PlannedAttack) -> list[Path]:
    return sorted((store / planned.attack).glob(f"{planned.condition}-*.json"))


def _build_alarm(stopped: InterruptedAttack) -> Alarm:
    done, broken = len(stopped.row_results), sum(row.broken is True for row in stopped.row_results)
    lost = (
        f"; {write_count(stopped.damaged, 'file of what else it did is', 'files of what else it did are')} damaged"
        if stopped.damaged
        else ""
    )
    return Alarm(
        name=INTERRUPTED,
        raised_when=f"{stopped.attack} ({stopped.condition}) was stopped after {done} of "
        f"{write_count(stopped.rows, 'row')}, "
        f"{broken} of which it broke{lost}",
        means="What it would have broken is not known; the rows that it broke count as broken.",
        do="Run the same attacks again in this folder: they go on where they were stopped.",
    )


def parse_attacks(data: Any) -> AttackRecord:
    """Makes the record from a file's contents, of this version or of version 1.

    Raises:
        ValueError: the contents were changed since they were written, or are damaged.
    """
    old = {**upgrade(data), "version": FORMAT_VERSION} if data["version"] == 1 else data
    return parse_sealed(AttackRecord, old)
