"""The takedown record: the request, the edit and base that answer it, what was measured, and what was not.

It is made from a finished evaluation and adds no claims to it; `checking` computes its hashes again.
"""

from __future__ import annotations

import os
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from ..evaluation.places import read_places
from ..files import hash_file, read_versioned
from ..records.attack_files import list_interrupted_batches
from ..records.attacks import AttackRecord
from ..records.basis import ROWS, read_evaluation, require_edit
from ..records.report import Alarm, Drawing, Measure, Part, ProtocolPart, SuitePart
from ..records.sealed import digest_of
from .gate import add_attack_measures
from .untested import Untested, list_undigested, list_untested

FORMAT_VERSION = 2
EARLIER = 1
"""An earlier version that is still read: it lacks `result`, and the request's `requester` and `responder`."""
PAGE = "takedown.html"
FILES = ("report.json", "rows.parquet", "attacks.json")


class Request(Part):
    """The request."""

    targets: tuple[str, ...]
    anchor: str
    keep: tuple[str, ...]
    note: str
    """Free text, such as the reference of a letter."""
    requester: str = ""
    """Who asked."""
    responder: str = ""
    """Who answers."""


class Finding(Part):
    """A rule and its result, in words."""

    claim: str
    found: str
    outcome: Literal["holds", "failed", "unjudged"]


class Result(Part):
    """The result of the evaluation and its attacks by a policy's rules, in words."""

    policy: str
    outcome: Literal["ready", "not ready", "undecided"]
    sentence: str
    rules: tuple[Finding, ...]


class Takedown(Part):
    """`takedown.json`."""

    format: Literal["efface-takedown"]
    version: int
    date: str
    request: Request
    method: str
    arguments: dict[str, Any]
    edit_file: str
    """The path of the edit, relative to the evaluation's folder; "" where it is not known."""
    suite: SuitePart
    protocol: ProtocolPart | None
    rows: int
    rows_digest: str
    drawing: Drawing
    """Base and edit by their hashes, and how the pictures were drawn."""
    scorers: dict[str, dict[str, str]]
    packages: dict[str, str]
    rule: str
    rates: tuple[Measure, ...]
    headlines: tuple[str, ...]
    alarms: tuple[Alarm, ...]
    untested: tuple[Untested, ...]
    files: dict[str, str]
    """The sha256 of the evaluation's files, of all other files beside them, and of interrupted attacks' batches."""
    signer: str = ""
    """The SSH key that signs the record, as `ssh-keygen -l` names it; "" where none does."""
    digest: str
    """The sha256 of everything else in this record but `page`, as JSON with sorted keys."""
    page: str = ""
    """The sha256 of takedown.html, which shows the digest; "" in files of earlier versions."""
    result: Result | None = None
    """The result in words; None in records of version 1."""


def build_takedown(
    folder: Path,
    day: str = "",
    note: str = "",
    edit_file: str = "",
    *,
    requester: str = "",
    responder: str = "",
    result: Result | None = None,
    signer: str = "",
) -> Takedown:
    """Makes the record of an evaluation, and of the attacks beside it.

    Args:
        folder: the evaluation's folder.
        day: the date of the record, as 2026-01-31; by default today's (UTC).
        note: free text, such as the reference of a letter.
        edit_file: the path of the edit, relative to `folder`; by default the path at its evaluation.
        requester, responder: who asked, and who answers.
        result: the result in words.
        signer: the key that will sign the record.

    Raises:
        FileNotFoundError, ValueError: there is no finished evaluation, files are damaged or do not belong to it, the
            date is invalid, or the edit was not judged here.
    """
    evaluation, attacks = read_evaluation(folder)
    edit_file = edit_file or _find_edit(folder)
    if edit_file:
        require_edit(evaluation, folder / edit_file)
    if evaluation.rows_file and not (folder / ROWS).is_file():
        raise FileNotFoundError(f"{folder} holds no {ROWS}, which report.json needs; run the evaluation again")
    record = add_attack_measures(evaluation, attacks)
    batches = list_interrupted_batches(folder, attacks) if attacks else []
    names = [*list_files(folder), *(os.path.relpath(b, folder) for b in batches)]
    data: dict[str, Any] = {
        "format": "efface-takedown",
        "version": FORMAT_VERSION,
        "date": _read_day(day),
        "request": Request(
            targets=record.targets,
            anchor=record.anchor,
            keep=record.keep,
            note=note,
            requester=requester,
            responder=responder,
        ),
        "result": result,
        "edit_file": edit_file,
        "rates": tuple(m for m in record.measures if m.unit == "number" or record.comes_first(m)),
        "untested": (*list_untested(record, attacks), *list_undigested(folder, evaluation)),
        "alarms": tuple({(a.name, a.raised_when): a for a in (*record.alarms, *_list_alarms(attacks))}.values()),
        "files": {name: hash_file(folder / name) for name in names},
        "signer": signer,
    }
    same = ("method", "arguments", "suite", "protocol", "rows", "rows_digest", "drawing", "scorers", "packages")
    data |= {name: getattr(record, name) for name in (*same, "rule", "headlines")}
    unsigned = Takedown(**data, digest="")
    return unsigned.model_copy(update={"digest": digest_takedown(unsigned)})


def digest_takedown(takedown: Takedown) -> str:
    """Computes the digest of a record from its contents."""
    return digest_of(takedown, takedown.version == EARLIER, ("page",))


def list_files(folder: Path) -> list[str]:
    """The files in an evaluation's folder except the record's own: first those on which its numbers depend."""
    held = sorted(f.name for f in folder.iterdir() if f.is_file() and not f.name.startswith((".", "takedown.")))
    return [*(name for name in FILES if name in held), *(name for name in held if name not in FILES)]


def read_takedown(path: Path) -> Takedown:
    """Reads a `takedown.json`.

    Raises:
        FileNotFoundError, ValueError: it is missing, has another version, or is damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; `efface record {path.parent}` writes it")
    return read_versioned(path, (EARLIER, FORMAT_VERSION), Takedown.model_validate, "make it again")


def _list_alarms(found: AttackRecord | None) -> tuple[Alarm, ...]:
    return found.alarms if found else ()


def _find_edit(folder: Path) -> str:
    """The path of the edit at its evaluation, relative to `folder`; "" where it is unknown or no longer there."""
    try:
        file = read_places(folder).edit
    except FileNotFoundError:
        return ""
    return os.path.relpath(file, folder) if file and file.is_file() else ""


def _read_day(given: str) -> str:
    if not given:
        return datetime.now(UTC).date().isoformat()
    try:
        return date.fromisoformat(given).isoformat()
    except ValueError as error:
        raise ValueError(f"{given!r} is no date; write it as 2026-01-31") from error
