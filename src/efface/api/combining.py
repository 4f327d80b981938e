"""`efface.merge`, `revert` and `diff`: adds, subtracts and compares edits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..edits.strength import check_strength, spread_strengths
from ..files import check_file, check_room
from .case import to_tuple
from .memory import with_memory_advice
from .resources import open_later

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..interchange.difference import Difference
    from ..models.base import Model


@with_memory_advice
def merge(
    model: Model | str | Path,
    edits: Edit | str | Path | Sequence[Edit | str | Path],
    *,
    strengths: Sequence[float] | None = None,
) -> Edit:
    """Merges edits to one with the effect of all together: base + sum of strength times change.

    Args:
        model: the base of all edits.
        edits: at least two edits, or their files.
        strengths: a strength for each edit; 1 by default.

    Returns:
        The merged edit. Its record names the parts and their strengths.

    Raises:
        ValueError: there are fewer than two edits or another number of strengths, a strength is 0 or no number from -10
            to 10, an edit is given twice, is a guide or of another base, or together they change nothing.
    """
    from ..edits.edit import Edit
    from ..interchange import arithmetic

    edits = to_tuple(edits)
    if len(edits) < 2:
        raise ValueError(f"a merge takes two edits or more, got {len(edits)}")
    each = spread_strengths(1.0 if strengths is None else strengths, len(edits))
    if 0 in each:
        raise ValueError("an edit at strength 0 changes nothing; merge the others without it")
    found = [edit if isinstance(edit, Edit) else Edit.load(edit) for edit in edits]
    arithmetic.refuse_guides(found)
    _refuse_repeated(edits, found, each)
    opened = open_later(model, exact=True).open()
    values = arithmetic.merge(opened, found, each)
    if not arithmetic.changes_anything(opened, values):
        raise ValueError(
            "the edits cancel each other: together they change no weight; other strengths would have worked"
        )
    return Edit(values, _merge_records(found, each))


def _refuse_repeated(given: Sequence[Edit | str | Path], found: Sequence[Edit], strengths: Sequence[float]) -> None:
    """Raises ValueError where two of the edits are the same one, with strengths of the same sign: its change would be
    added twice, which hardly anybody means.
    """
    seen: dict[str, int] = {}
    for i, edit in enumerate(found):
        first = seen.setdefault(edit.digest, i)
        if first != i and strengths[first] * strengths[i] > 0:
            names = [str(each) if isinstance(each, str | Path) else repr(each) for each in (given[first], given[i])]
            same = f"{names[0]} is given twice" if names[0] == names[1] else f"{names[0]} and {names[1]} are one edit"
            raise ValueError(
                f"{same}, so its change would be added twice; give it once, with the strength "
                f"{strengths[first] + strengths[i]:g} if that is what you want"
            )


@with_memory_advice
def revert(
    model: Model | str | Path,
    edited: Model | Edit | str | Path,
    edit: Edit | str | Path,
    out: str | Path,
    *,
    strength: float = 1.0,
) -> dict[str, Any]:
    """Removes an edit again: from a model that contains it, or from a merged edit.

    Args:
        model: the base that the edit was made for.
        edited: a folder (or anything that `efface.load` opens) with the edit in its weights; or an edit that contains
            it.
        edit: the edit to remove.
        out: a folder, or for an edit a file that ends in .safetensors; it must not exist yet.
        strength: the strength at which the edit was applied.

    Returns:
        In JSON's types: `out`, the number of restored weights, and `exact`, whether the result is the base bit for bit.

    Raises:
        FileExistsError: `out` exists.
        ValueError: the edit is no part of the other, or all of it; it is a guide, or of another base.
    """
    from ..edits.edit import Edit
    from ..interchange import arithmetic
    from ..models.loading import load

    place = Path(out)
    check_strength(strength)
    if place.exists():
        raise FileExistsError(f"{place} exists already; name one that does not")
    check_file(place)
    taken = edit if isinstance(edit, Edit) else Edit.load(edit)
    arithmetic.refuse_guides([taken])
    whole = _load_edit(edited)
    if (whole is not None) != (place.suffix == ".safetensors"):
        wants = "a folder" if whole is None else "a file that ends in .safetensors"
        raise ValueError(f"--out {place} does not suit what is reverted; name {wants}")
    base = open_later(model, exact=True).open()
    if whole is not None:
        values = arithmetic.subtract(base, whole, taken, strength)
        if not values:
            raise ValueError("nothing is left: every weight would be the base's own again, which needs no edit")
        Edit(values, _record_revert(whole, taken, strength)).save(place)
        return {"out": str(place), "weights": len(taken.names), "exact": False}
    opened = load(str(edited), "cpu") if isinstance(edited, str | Path) else open_later(edited).open()  # type: ignore[arg-type]
    check_room(place, sum(weight.nbytes for weight in opened.weights.values()))
    values = arithmetic.revert(base, opened, taken, strength)
    with opened.swap_in(values):
        opened.save_pretrained(place)
        from ..models.fingerprint import compute_digests

        own, theirs = base.fingerprint(), compute_digests(opened.weights)
    exact = any(own[cast] == theirs[cast] for cast in own)
    return {"out": str(place), "weights": len(values), "exact": exact}


@with_memory_advice
def diff(
    model: Model | str | Path,
    edit: Edit | Model | str | Path,
    other: Edit | Model | str | Path | None = None,
    *,
    strength: float = 1.0,
) -> Difference:
    """Compares tensors: which ones an edit or a fine-tuned model changes, by how much, and which text paths it leaves.

    Args:
        model: the base.
        edit: an edit, its file, or a model of the same architecture.
        other: the edit or model to compare with; the base by default.
        strength: the strength of the edit.

    Returns:
        The difference: `tensors` has the weights that differ, the largest relative change first, `relative` the change
        of all weights together, ‖Δ‖ / ‖W‖, and `paths` the ways from the prompt into the network, and which of them
        the change reaches.

    Raises:
        ValueError: an edit is a guide or of another base, or a model has another architecture.
    """
    from ..edits.edit import Edit
    from ..interchange import arithmetic, difference

    check_strength(strength)
    one, two = _load_edit(edit) or edit, None if other is None else _load_edit(other) or other
    arithmetic.refuse_guides([each for each in (one, two) if isinstance(each, Edit)])
    if strength != 1 and not isinstance(one, Edit):
        raise ValueError(f"--strength {strength:g} is for an edit; leave it out, for a model is compared as it is")
    base = open_later(model, exact=True).open()
    return difference.compare(
        base, _compute_values(base, one, strength), None if two is None else _compute_values(base, two, 1.0)
    )


def _compute_values(base: Model, what: Edit | Model | str | Path, strength: float) -> dict[str, Any]:
    from ..edits.edit import Edit
    from ..interchange.arithmetic import check_changes
    from ..interchange.difference import compute_values
    from ..interchange.foreign import compare_models
    from ..models.loading import load

    if isinstance(what, Edit):
        check_changes(base, [what])
        return compute_values(base, what, strength)
    opened = load(str(what), "cpu") if isinstance(what, str | Path) else open_later(what).open()  # type: ignore[arg-type]
    return compare_models(base, opened)


def _load_edit(what: Any) -> Edit | None:
    """Opens the edit in a file; None for a model, or the name of one."""
    from ..edits.edit import Edit

    if isinstance(what, Edit):
        return what
    is_file = isinstance(what, str | Path) and (Path(what).is_file() or Path(what).suffix == ".safetensors")
    return Edit.load(what) if is_file else None


def _merge_records(edits: Sequence[Edit], strengths: Sequence[float]) -> dict[str, Any]:
    """The record of a merge: all targets, the anchor if all have the same, and the words of all searches."""
    asked = [dict(edit.meta.get("request") or {}) for edit in edits]
    targets = dict.fromkeys(t for each in asked for t in each.get("targets", ()))
    anchors = {each.get("anchor", "") for each in asked}
    keep = dict.fromkeys(k for each in asked for k in each.get("keep", ()) if k not in targets)
    parts = [
        {
            "method": edit.meta.get("method", ""),
            "request": each,
            "arguments": edit.meta.get("arguments", {}),
            "strength": s,
        }
        for edit, each, s in zip(edits, asked, strengths, strict=True)
    ]
    request = {"targets": list(targets), "anchor": anchors.pop() if len(anchors) == 1 else "", "keep": list(keep)}
    record = {"method": "merge", "arguments": {"edits": parts}, "request": request}
    candidates: dict[str, Any] = {}
    for edit in edits:
        candidates |= (edit.meta.get("notes") or {}).get("candidates") or {}
    record |= {"notes": {"candidates": candidates}} if candidates else {}
    record |= {key: edits[0].meta[key] for key in ("model", "base", "compute") if key in edits[0].meta}
    return json.loads(json.dumps(record))


def _record_revert(whole: Edit, taken: Edit, strength: float) -> dict[str, Any]:
    asked, gone = dict(whole.meta.get("request") or {}), (taken.meta.get("request") or {}).get("targets", ())
    left = [target for target in asked.get("targets", ()) if target not in gone]
    arguments = {
        **whole.meta.get("arguments", {}),
        "taken_off": {"request": taken.meta.get("request"), "strength": strength},
    }
    return json.loads(json.dumps({**whole.meta, "request": {**asked, "targets": left}, "arguments": arguments}))
