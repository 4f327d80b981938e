"""Checks a takedown record: computes every hash again, and names the file that changed."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from ..evaluation.images import digest, read_image
from ..evaluation.places import read_places
from ..evaluation.rows_table import read_rows
from ..files import find_shared_digest, hash_file
from ..records.attack_files import read_file
from ..records.report import Part
from ..suites.spec import Row
from .takedown import FILES, PAGE, Takedown, digest_takedown


class Check(Part):
    """The result of computing a hash again, or of verifying a signature."""

    what: str
    outcome: Literal["same", "differs", "not checked", "unsigned"]
    says: str


def check_hashes(
    folder: Path, takedown: Takedown, edit_file: Path | None, base: Mapping[str, str] | None
) -> list[Check]:
    """Computes the record's hashes again.

    Args:
        folder: the evaluation's folder.
        takedown: the record.
        edit_file: the file of the edit; by default the path in the record.
        base: the fingerprint of the base, if it could be opened.
    """
    out = [_compare("the record itself", takedown.digest, digest_takedown(takedown))]
    if takedown.page:
        page = folder / PAGE
        out.append(_compare(PAGE, takedown.page, hash_file(page) if page.is_file() else None))
    for name, recorded in takedown.files.items():
        out.append(_compare(name, recorded, hash_file(folder / name) if (folder / name).is_file() else None))
    for name in FILES:
        if name not in takedown.files and (folder / name).is_file():
            out.append(Check(what=name, outcome="differs", says="it came after the record; make the record again"))
    out += [*_check_drawn(folder, takedown), *_check_attacked(folder, takedown)]
    edit = edit_file or (folder / takedown.edit_file if takedown.edit_file else None)
    if edit is None or not edit.is_file():
        says = f"there is no {edit}" if edit else "the record does not name its file"
        out.append(Check(what="the edit", outcome="not checked", says=f"{says}; give it with --edit"))
    else:
        out.append(_compare(f"the edit {edit.name}", takedown.drawing.edit, hash_file(edit)))
    if base is None:
        says = f"{takedown.drawing.model} could not be opened; give its folder or hub id with --model"
        out.append(Check(what="the base", outcome="not checked", says=says))
    else:
        recorded, found = takedown.drawing.fingerprint, base
        known = find_shared_digest(recorded, found) or next(iter(recorded), "")
        out.append(_compare(f"the base {takedown.drawing.model}", recorded.get(known, ""), found.get(known)))
    return out


def _check_drawn(folder: Path, takedown: Takedown) -> list[Check]:
    """Compares prompts and seeds with their digest, and every picture with the hash in its name."""
    try:
        lines = read_rows(folder)
        image_store = read_places(folder).images
    except (OSError, ValueError) as error:
        return [Check(what="prompts and pictures", outcome="not checked", says=f"can't be read: {error}")]
    names = [f.name for f in dataclasses.fields(Row)]
    rows = [{name: line[name] for name in names if name in line} for line in lines if line["variant"] == "base"]
    damaged = [line["picture"] for line in lines if not _is_whole(image_store / line["picture"])]
    first = f"{len(damaged)} of {len(lines)} are missing or altered, first {damaged[0]}" if damaged else ""
    pictures = Check(what="pictures", outcome="differs" if damaged else "same", says=first or _say_whole(len(lines)))
    return [_compare("prompts, seeds and questions", takedown.rows_digest, digest(rows)), pictures]


def _check_attacked(folder: Path, takedown: Takedown) -> list[Check]:
    """Compares the pictures of attacks' successes with the hashes in their names."""
    if "attacks.json" not in takedown.files:
        return []
    try:
        record = read_file(folder)
    except ValueError as error:
        return [Check(what="pictures of attacks", outcome="not checked", says=f"can't be read: {error}")]
    files = {s.picture for s in record.successes if s.picture} if record else set()
    damaged = sorted(file for file in files if not _is_whole(folder / file))
    says = f"{len(damaged)} of {len(files)} are missing or altered, first {damaged[0]}" if damaged else ""
    outcome = "differs" if damaged else "same"
    return [Check(what="pictures of attacks", outcome=outcome, says=says or _say_whole(len(files)))]


def _is_whole(path: Path) -> bool:
    try:
        return bool(read_image(path))
    except (OSError, ValueError):
        return False


def _compare(what: str, recorded: str, found: str | None) -> Check:
    if found is None:
        return Check(what=what, outcome="differs", says=f"{recorded[:16]}… was recorded; it is not there now")
    if found == recorded:
        return Check(what=what, outcome="same", says=f"{found[:16]}…")
    return Check(what=what, outcome="differs", says=f"{recorded[:16]}… was recorded, {found[:16]}… is there now")


def _say_whole(n: int) -> str:
    return "the only one is whole" if n == 1 else f"all {n} are whole"
