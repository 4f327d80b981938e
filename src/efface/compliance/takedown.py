"""The takedown record: the request, the edit and base that answer it, what was measured, and what was not.

It is made from a finished evaluation and adds no claims to it; `checking` computes its hashes again.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, Literal

from ..attacks import list_names as attack_names
from ..evaluation.places import read_places
from ..files import hash_file, read_versioned
from ..plurals import write_count
from ..records.attack_files import list_interrupted_batches, read_file
from ..records.attacks import AttackRecord, InterruptedAttack
from ..records.basis import ROWS, read_evaluation, require_edit
from ..records.report import Alarm, Drawing, Measure, Part, ProtocolPart, Record, SuitePart
from ..records.sealed import digest_of
from ..suites import read_spec
from ..suites.spec import list_names as suite_names
from .gate import add_attack_measures

FORMAT_VERSION = 2
EARLIER = 1
"""An earlier version that is still read: it lacks `result`, and the request's `requester` and `responder`."""
PAGE = "takedown.html"
FILES = ("report.json", "rows.parquet", "attacks.json")
OTHER_LANGUAGES = ("language", "languages", "translation", "translations")
QUALITY = ("fid", "kid", "clip", "lpips", "ssim")


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


class Untested(Part):
    """Something that was not tested."""

    what: str
    why: str


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
        "rates": tuple(m for m in record.measures if m.judge == "all" or m.unit == "number"),
        "untested": (*list_untested(record, *_list_attacks(attacks)), *_list_undigested(folder, evaluation)),
        "files": {name: hash_file(folder / name) for name in names},
        "signer": signer,
    }
    same = ("method", "arguments", "suite", "protocol", "rows", "rows_digest", "drawing", "scorers", "packages")
    data |= {name: getattr(record, name) for name in (*same, "rule", "headlines", "alarms")}
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


def list_untested(
    record: Record, attacked: Sequence[str] = (), interrupted: Sequence[InterruptedAttack] = ()
) -> list[Untested]:
    """Lists what an evaluation did not test.

    Args:
        record: the evaluation's record.
        attacked: the attacks that were finished.
        interrupted: the attacks on the target that were begun and interrupted.
    """
    not_attacked = _list_not_attacked(attacked, interrupted)
    return [*_list_not_drawn(record), *not_attacked, *_list_not_varied(record.drawing), *_list_never_tested()]


def _list_not_drawn(record: Record) -> list[Untested]:
    suite, drawn = record.suite, record.suite.groups
    known = read_spec(suite.name) if suite.name in suite_names() else None
    groups = known.groups if known and known.version == suite.version else ()
    other = known is not None and not groups
    out = [Untested(what=f"other groups of {suite.name}", why=f"not known of version {suite.version}")] if other else []
    out += [
        Untested(what=f"prompts of group {g.name}: {g.title}", why=f"not drawn; {suite.name} has this group")
        for g in groups
        if g.name not in drawn
    ]
    if not any(word in name.casefold() for name in drawn for word in OTHER_LANGUAGES):
        out.append(Untested(what="prompts in languages other than the suite's", why="no such group was drawn"))
    if not {m.metric for m in record.measures} & set(QUALITY):
        out.append(Untested(what="quality of the pictures as such", why="no scorer of it was asked"))
    return out


def _list_not_attacked(attacked: Sequence[str], interrupted: Sequence[InterruptedAttack]) -> list[Untested]:
    if not attacked and not interrupted:
        return [Untested(what="attacks of any kind: whether the target can be brought back", why="none was run")]
    stopped = [
        Untested(
            what=f"attack {each.attack} to its end",
            why=f"interrupted after {len(each.row_results)} of {write_count(each.rows, 'prompt')}, of which it broke "
            f"{sum(row.broken is True for row in each.row_results)}",
        )
        for each in interrupted
    ]
    begun = {*attacked, *(each.attack for each in interrupted)}
    left = [name for name in attack_names() if name not in begun]
    return [*stopped, *([Untested(what=f"attacks {', '.join(left)}", why="not run")] if left else [])]


def _list_not_varied(drawing: Drawing) -> list[Untested]:
    rescaled = f", rescaled by {drawing.guidance_rescale:g}" if drawing.guidance_rescale else ""
    only = (
        f"strengths other than {drawing.strength:g}",
        f"schedulers other than {drawing.scheduler}",
        f"step counts other than {drawing.steps}",
        f"guidance other than {drawing.guidance:g}{rescaled}",
        f"resolutions other than {drawing.resolution}",
        f"precisions other than {drawing.compute}",
    )
    return [Untested(what="; ".join(only), why="every picture was drawn in this one way")]


def _list_never_tested() -> list[Untested]:
    """What no evaluation of this toolkit tests."""
    return [
        Untested(what="the edit merged with LoRA adapters, other edits or other checkpoints", why="judged on its base"),
        Untested(what="the text encoder or the autoencoder exchanged for another", why="judged on its base"),
        Untested(what="kept concepts that the suite does not name", why="nobody asked for them"),
        Untested(what="what no judge has a label for", why="the judges answer with their own labels only"),
    ]


def _list_undigested(folder: Path, evaluation: Record) -> list[Untested]:
    """Lists the files of earlier versions, which have no digest of their own."""
    attacks = read_file(folder)
    files = {FILES[0]: evaluation.digest, FILES[2]: attacks.digest if attacks else "none there"}
    why = "it has no digest, because an earlier version wrote it"
    names = [name for name, digest in files.items() if not digest]
    return [Untested(what=f"whether {name} was changed after it was written", why=why) for name in names]


def _list_attacks(found: AttackRecord | None) -> tuple[list[str], list[InterruptedAttack]]:
    """The names of the finished attacks on the target, and the interrupted ones."""
    if found is None:
        return [], []
    made = [t.attack for t in found.measures if t.condition == "target" and not t.missing]
    return made, [each for each in found.interrupted if each.condition == "target"]


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
