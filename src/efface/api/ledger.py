"""`efface.add_to_ledger`: applies erasures in turn to one base, and checks all of them again after every new one.

An erasure that works alone may be undone by the next one, which changes the same weights. The ledger is a JSON file:
its entries are the edits in their order; its checks say, after each entry, how often every target so far is still
drawn.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..edits.strength import check_strength
from ..files import check_file, hash_file
from ..suites.make import make_suite
from ..suites.rows import build, spread
from .memory import with_memory_advice
from .progress import Progress, show_progress
from .resources import build_judges, choose_suite, find_world, open_later

if TYPE_CHECKING:
    from ..models.base import Model
    from ..scorers import Judge
    from ..suites.spec import Row

ROWS = 24
"""The default number of pictures of each target."""


@with_memory_advice
def add_to_ledger(
    model: Model | str | Path,
    ledger: str | Path,
    edit: str | Path,
    *,
    strength: float = 1.0,
    suite: str = "",
    scorers: Sequence[str | Judge] = (),
    rows: int = ROWS,
    progress: Progress = None,
) -> dict[str, Any]:
    """Adds an edit as the next erasure, applies all together, and counts how often each target is still drawn.

    Args:
        model: the base of all edits of the ledger.
        ledger: the JSON file, which is created if it does not exist.
        edit: the new edit's file. The files of earlier edits must be unchanged and in their places.
        strength: the strength of the new edit.
        suite: prompts that ask for the targets; by default those of the model's own world.
        scorers: judges; by default those that come with the model.
        rows: the number of pictures of each target.
        progress: as in `efface.evaluate`.

    Returns:
        The ledger, in JSON's types; each rate has its 95 % interval and the untouched base's beside it.

    Raises:
        FileNotFoundError, ValueError: the ledger is not named FILE.json, there is no such edit, it is in the ledger
            already, an earlier one has changed, another process changed the ledger meanwhile, the base is another one,
            there are two guides, or a target has no prompts or judges.
    """
    check_strength(strength)
    if rows < 1:
        raise ValueError(f"--rows is a number of pictures, at least 1, got {rows}")
    from ..edits.edit import Edit, apply
    from ..evaluation.evaluate import Settings, measure_target_rate, read_request
    from ..records.ledger import FORMAT_VERSION, Ledger
    from ..records.sealed import write_sealed

    if Path(ledger).suffix != ".json":
        raise ValueError(f"a ledger is a JSON file: name it FILE.json, got {ledger}")
    place = check_file(Path(ledger))
    new = {"format": "efface-ledger", "version": FORMAT_VERSION, "entries": [], "checks": []}
    book = read_ledger(place) if place.is_file() else new
    entry = _enter(book, place, Path(edit), strength)
    entries = [*book["entries"], entry]
    edits = [Edit.load(_find_edit(place, each)) for each in entries]
    opening = open_later(model)
    known = find_world(opening.name)
    asked = [_pick_rows(read_request(each), known, suite, rows) for each in edits]
    judges = [build_judges(opening.name, None, scorers, known) if known or scorers else [] for _ in edits]
    judges = [[j for j in some if j.question == own[0].asks] for some, own in zip(judges, asked, strict=True)]
    if mute := [each for each, some in zip(entries, judges, strict=True) if not some]:
        raise ValueError(f"no judge of {', '.join(mute[0]['targets'])} is at hand; name one with --scorer")
    opened = opening.open()
    for each in edits:
        each.check(opened)
    strengths = [each["strength"] for each in entries]
    with show_progress(progress) as report, warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"[\d,]+ weights? (is|are) changed by several")
        entry["base"] = measure_target_rate(opened, asked[-1], judges[-1], Settings()).model_dump()
        rates = []
        with apply(opened, edits, strengths):
            for i, (own, some) in enumerate(zip(asked, judges, strict=True)):
                report("checking erasures", i, len(edits))
                rates.append(measure_target_rate(opened, own, some, Settings()).model_dump())
        report("checking erasures", len(edits), len(edits))
    checks = [*book["checks"], {"after": len(entries), "shown": rates}]
    if book != (read_ledger(place) if place.is_file() else new):
        raise ValueError(f"{place} was changed by another process meanwhile; enter {edit} again, after what it has now")
    whole = {**book, "model": opening.name, "fingerprint": opened.fingerprint(), "entries": entries, "checks": checks}
    return write_sealed(place, Ledger.model_validate(whole)).model_dump(mode="json")


def read_ledger(ledger: str | Path) -> dict[str, Any]:
    """Reads a ledger, in JSON's types; raises ValueError where it is damaged, changed or another file."""
    from ..records.ledger import read_ledger as read_record

    return read_record(ledger).model_dump(mode="json")


def _enter(book: dict[str, Any], place: Path, edit: Path, strength: float) -> dict[str, Any]:
    """Makes the new entry, after checking that the edits are as they were entered."""
    from ..edits.edit import Edit

    for each in book["entries"]:
        if hash_file(_find_edit(place, each)) != each["sha256"]:
            raise ValueError(f"{_find_edit(place, each)} is not as it was entered in {place}; put that file back")
    digest = hash_file(edit)
    if digest in {each["sha256"] for each in book["entries"]}:
        raise ValueError(f"{edit} is in {place} already")
    meta = Edit.load(edit).meta
    targets = (meta.get("request") or {}).get("targets", ())
    where = os.path.relpath(edit, place.parent)
    return {
        "edit": where,
        "sha256": digest,
        "targets": list(targets),
        "method": meta.get("method"),
        "strength": strength,
    }


def _find_edit(place: Path, entry: dict[str, Any]) -> Path:
    """The path of an entry's edit; it may be asked for before the ledger's folder exists."""
    return Path(os.path.normpath(place.parent / entry["edit"]))


def _pick_rows(request: Any, known: Any, suite: str, count: int) -> list[Row]:
    """Picks prompts that ask for the targets, evenly over the suite."""
    if not suite and known is None:
        raise ValueError("no suite comes with this model: name one with --suite, or a .csv file of prompts")
    made = (
        make_suite(suite, request, known)
        if suite
        else build(choose_suite(request, known), request, known, only=("target",))
    )
    found = [row for row in made.rows if row.role != "keep"]
    if not found:
        raise ValueError(f"no prompt of {suite or 'the suite'} asks for {', '.join(request.targets)}")
    return spread(found, count)
