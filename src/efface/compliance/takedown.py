"""The takedown record: what was asked, which edit of which base answers it, what was measured, and what was not.

It is made from a finished evaluation and says nothing that is not in there; its hashes can be taken again.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, Literal

from ..attacks import names as attack_names
from ..evaluation.evaluate import find_image_store
from ..evaluation.images import digest, read_image
from ..evaluation.rows_table import read_rows
from ..files import hash_bytes, hash_file, read_versioned
from ..records import attacks as attack_record
from ..records.attacks import InterruptedAttack
from ..records.report import Alarm, Drawing, Measure, Part, ProtocolPart, Record, SuitePart, read_report
from ..suites import spec
from ..suites.spec import Row
from ..suites.spec import names as suite_names
from .gate import add_attack_measures

FORMAT_VERSION = 2
EARLIER = 1
"""Records of this version are read: they lack `result`, and in the request who asked and who answers."""
FILES = ("report.json", "rows.parquet", "attacks.json")
OTHER_LANGUAGES = ("language", "languages", "translation", "translations")
QUALITY = ("fid", "kid", "clip", "lpips", "ssim")


class Request(Part):
    """What was asked for."""

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
    """A rule in words, and what came of it."""

    claim: str
    found: str
    outcome: Literal["holds", "failed", "unjudged"]


class Result(Part):
    """What the evaluation and the attacks beside it come to by a policy's rules, in words."""

    policy: str
    outcome: Literal["ready", "not ready", "undecided"]
    sentence: str
    rules: tuple[Finding, ...]


class Untested(Part):
    """Something that nothing in the record speaks of."""

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
    """Where the edit lay, from the folder of the evaluation; "" where that was not said."""
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
    """sha256 of the evaluation's files."""
    digest: str
    """sha256 of everything else in this record, as JSON with sorted keys."""
    result: Result | None = None
    """What it comes to in words; None in records of version 1."""


class Check(Part):
    """A hash taken again."""

    what: str
    outcome: Literal["same", "differs", "not checked"]
    says: str


def build_takedown(
    folder: Path,
    day: str = "",
    note: str = "",
    edit_file: str = "",
    *,
    requester: str = "",
    responder: str = "",
    result: Result | None = None,
) -> Takedown:
    """The record of an evaluation.

    Args:
        day: date of the record, as 2026-01-31; the clock's (UTC) by default.
        edit_file: where the edit lies, from `folder`.
        requester, responder: who asked, and who answers.
        result: what it comes to, in words.

    Raises:
        FileNotFoundError, ValueError: no finished evaluation, a date that is none, or an edit that was not judged here.
    """
    record = add_attack_measures(read_report(folder), attack_record.read(folder))
    if edit_file and hash_file(folder / edit_file) != record.drawing.edit:
        raise ValueError(
            f"{folder / edit_file} is not the edit that was judged in {folder} (sha256 {record.drawing.edit[:12]}…)"
        )
    data: dict[str, Any] = {
        "format": "efface-takedown",
        "version": FORMAT_VERSION,
        "date": _day(day),
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
        "untested": tuple(list_untested(record, *_attacks_run(folder))),
        "files": {name: hash_file(folder / name) for name in FILES if (folder / name).is_file()},
    }
    same = ("method", "arguments", "suite", "protocol", "rows", "rows_digest", "drawing", "scorers", "packages")
    data |= {name: getattr(record, name) for name in (*same, "rule", "headlines", "alarms")}
    unsigned = Takedown(**data, digest="")
    return unsigned.model_copy(update={"digest": digest_of(unsigned)})


def digest_of(takedown: Takedown) -> str:
    """sha256 of a record without its own digest."""
    data = takedown.model_dump(mode="json", exclude={"digest"})
    if takedown.version == EARLIER:
        del data["result"], data["request"]["requester"], data["request"]["responder"]
    return hash_bytes(json.dumps(data, sort_keys=True, ensure_ascii=False).encode())


def read_takedown(path: Path) -> Takedown:
    """Read a `takedown.json`.

    Raises:
        FileNotFoundError, ValueError: there is none, or it is of another version, or damaged.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no {path}; `efface record {path.parent}` writes it")
    return read_versioned(path, (EARLIER, FORMAT_VERSION), Takedown.model_validate, "make it again")


def list_untested(
    record: Record, attacked: Sequence[str] = (), interrupted: Sequence[InterruptedAttack] = ()
) -> list[Untested]:
    """What an evaluation does not speak of.

    Args:
        attacked: the attacks that were run to their end.
        interrupted: those that were begun on the target and stopped.
    """
    not_attacked = _not_attacked(attacked, interrupted)
    return [*_not_drawn(record), *not_attacked, *_not_varied(record.drawing), *_never()]


def _not_drawn(record: Record) -> list[Untested]:
    suite, drawn = record.suite, record.suite.groups
    known = spec(suite.name) if suite.name in suite_names() else None
    groups = known.groups if known and known.version == suite.version else ()
    other = known is not None and not groups
    out = [Untested(what=f"other groups of {suite.name}", why=f"not known of version {suite.version}")] if other else []
    out += [
        Untested(what=f"prompts of group {g.name}: {g.title}", why=f"not drawn, though {suite.name} has them")
        for g in groups
        if g.name not in drawn
    ]
    if not any(word in name.casefold() for name in drawn for word in OTHER_LANGUAGES):
        out.append(Untested(what="prompts in languages other than the suite's", why="no such group was drawn"))
    if not {m.metric for m in record.measures} & set(QUALITY):
        out.append(Untested(what="quality of the pictures as such", why="no scorer of it was asked"))
    return out


def _not_attacked(attacked: Sequence[str], interrupted: Sequence[InterruptedAttack]) -> list[Untested]:
    if not attacked and not interrupted:
        return [Untested(what="attacks of any kind: whether the target can be brought back", why="none was run")]
    stopped = [
        Untested(
            what=f"attack {each.attack} to its end",
            why=f"interrupted after {len(each.row_results)} of {each.rows} prompts, of which it broke "
            f"{sum(row.broken is True for row in each.row_results)}",
        )
        for each in interrupted
    ]
    begun = {*attacked, *(each.attack for each in interrupted)}
    left = [name for name in attack_names() if name not in begun]
    return [*stopped, *([Untested(what=f"attacks {', '.join(left)}", why="not run")] if left else [])]


def _not_varied(drawing: Drawing) -> list[Untested]:
    only = (
        f"strengths other than {drawing.strength:g}",
        f"schedulers other than {drawing.scheduler}",
        f"step counts other than {drawing.steps}",
        f"guidance other than {drawing.guidance:g}",
        f"resolutions other than {drawing.resolution}",
        f"precisions other than {drawing.compute}",
    )
    return [Untested(what="; ".join(only), why="every picture was drawn in this one way")]


def _never() -> list[Untested]:
    """What no evaluation of this toolkit looks at."""
    return [
        Untested(what="the edit merged with LoRA adapters, other edits or other checkpoints", why="judged on its base"),
        Untested(what="the text encoder or the autoencoder exchanged for another", why="judged on its base"),
        Untested(what="kept concepts that the suite does not name", why="nobody asked for them"),
        Untested(what="what no judge has a label for", why="the judges answer with their own labels only"),
    ]


def check_hashes(
    folder: Path, takedown: Takedown, edit_file: Path | None, base: Mapping[str, str] | None
) -> list[Check]:
    """Take the record's hashes again.

    Args:
        folder: the evaluation's.
        edit_file: the edit; where the record says that it lay by default.
        base: fingerprint of the base, where it could be opened.
    """
    out = [_compared("the record itself", takedown.digest, digest_of(takedown))]
    for name, recorded in takedown.files.items():
        out.append(_compared(name, recorded, hash_file(folder / name) if (folder / name).is_file() else None))
    for name in FILES:
        if name not in takedown.files and (folder / name).is_file():
            out.append(Check(what=name, outcome="differs", says="it came after the record; make the record again"))
    out += _drawn(folder, takedown)
    edit = edit_file or (folder / takedown.edit_file if takedown.edit_file else None)
    if edit is None or not edit.is_file():
        says = f"there is no {edit}" if edit else "the record does not say where it lies"
        out.append(Check(what="the edit", outcome="not checked", says=f"{says}; give it with --edit"))
    else:
        out.append(_compared(f"the edit {edit.name}", takedown.drawing.edit, hash_file(edit)))
    if base is None:
        says = f"{takedown.drawing.model} could not be opened; give its folder or hub id with --model"
        out.append(Check(what="the base", outcome="not checked", says=says))
    else:
        cast = next((c for c, d in takedown.drawing.fingerprint.items() if base.get(c) == d), "")
        recorded, found = takedown.drawing.fingerprint, base
        known = cast or next(iter(recorded), "")
        out.append(_compared(f"the base {takedown.drawing.model}", recorded.get(known, ""), found.get(known)))
    return out


def _drawn(folder: Path, takedown: Takedown) -> list[Check]:
    """Prompts and seeds against their digest; every picture against the hash that is its name."""
    try:
        lines = read_rows(folder)
        image_store = find_image_store(folder)
    except (OSError, ValueError) as error:
        return [Check(what="prompts and pictures", outcome="not checked", says=f"can't be read: {error}")]
    names = [f.name for f in dataclasses.fields(Row) if lines and f.name in lines[0]]
    rows = [{name: line[name] for name in names} for line in lines if line["variant"] == "base"]
    damaged = [line["picture"] for line in lines if not _whole(image_store / line["picture"])]
    first = f"{len(damaged)} of {len(lines)} are missing or altered, first {damaged[0]}" if damaged else ""
    pictures = Check(
        what="pictures", outcome="differs" if damaged else "same", says=first or f"all {len(lines)} are whole"
    )
    return [_compared("prompts, seeds and questions", takedown.rows_digest, digest(rows)), pictures]


def _whole(path: Path) -> bool:
    try:
        return bool(read_image(path))
    except (OSError, ValueError):
        return False


def _compared(what: str, recorded: str, found: str | None) -> Check:
    if found is None:
        return Check(what=what, outcome="differs", says=f"{recorded[:16]}… was recorded; it is not there now")
    if found == recorded:
        return Check(what=what, outcome="same", says=f"{found[:16]}…")
    return Check(what=what, outcome="differs", says=f"{recorded[:16]}… was recorded, {found[:16]}… is there now")


def _attacks_run(folder: Path) -> tuple[list[str], list[InterruptedAttack]]:
    """Of the attacks on the target in the evaluation's folder: names of those that were made, and those stopped."""
    found = attack_record.read(folder)
    if found is None:
        return [], []
    made = [t.attack for t in found.measures if t.condition == "target" and not t.missing]
    return made, [each for each in found.interrupted if each.condition == "target"]


def _day(given: str) -> str:
    from datetime import UTC, datetime

    if not given:
        return datetime.now(UTC).date().isoformat()
    try:
        return date.fromisoformat(given).isoformat()
    except ValueError as error:
        raise ValueError(f"{given!r} is no date; write it as 2026-01-31") from error
