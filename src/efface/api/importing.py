"""`efface.import_edit`: imports another tool's erasure as an edit."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..concept import Erasure, fold_name
from ..files import find_shared_digest
from ..plurals import write_count
from .case import Words, to_tuple
from .memory import with_memory_advice
from .resources import open_later

if TYPE_CHECKING:
    from ..edits.edit import Edit
    from ..models.base import Model


@with_memory_advice
def import_edit(
    model: Model | str | Path,
    source: str | Path,
    targets: Words = (),
    *,
    anchor: str = "",
    keep: Words = (),
    method: str = "imported",
    unpickle: bool = False,
) -> Edit:
    """Imports another tool's erasure as an edit, which can be judged, attacked, exported and recorded like any other.

    Args:
        model: the base that it was made from.
        source: weights by diffusers' or the original names (ESD, UCE), a LoRA of kohya, LECO, PEFT or ComfyUI, a
            diffusers folder or a single file of the whole fine-tuned model.
        targets: the erased concepts; a file that efface exported contains them.
        anchor, keep: what they became and the concepts to keep, if known.
        method: the name of the method, for the record.
        unpickle: whether a .pt, .pth, .bin or .ckpt may be opened, with `weights_only`, which runs no code in the file.

    Returns:
        The edit, which `save` writes to a file.

    Raises:
        FileNotFoundError, ValueError: there is no such file, there is no target, or the file fits no part of the model;
            efface exported the file from an edit with other targets or by another method, or for another base, and it
            holds whole weights.
    """
    from ..edits.edit import Edit
    from ..edits.provenance import describe_run
    from ..interchange.foreign import fit_source, open_source

    held = open_source(source, unpickle)
    record = held.record or {}
    asked = dict(record.get("request") or {})
    named = to_tuple(targets) or tuple(asked.get("targets", ()))
    if not named:
        raise ValueError(f"{source} does not say what it erases; name it with --target")
    _check_request(source, record, named, method)
    erasure = Erasure(named, anchor or asked.get("anchor", ""), to_tuple(keep) or tuple(asked.get("keep", ())))
    opened = open_later(model, exact=True).open()
    found = fit_source(opened, held)
    if record.get("base"):
        _check_origin(source, record, opened, whole=found.layout != "LoRA")
    if found.aside:
        warnings.warn(
            f"{write_count(len(found.aside), f'part of {source} is', f'parts of {source} are')} no weights of the "
            "denoiser or a text encoder, first "
            f"{found.aside[0]!r}; an edit can't hold them, and they were left aside",
            stacklevel=2,
        )
    made_by = record.get("method", method) if method == "imported" else method
    arguments = {"imported_from": Path(source).name, "read_as": found.layout, "sha256": found.digest}
    return Edit(found.values, describe_run(opened, erasure, made_by, arguments))


def _check_request(source: str | Path, record: Mapping[str, Any], named: Sequence[str], method: str) -> None:
    """Raises ValueError where targets or a method are given that the record of an exported file contradicts."""
    recorded = [str(target) for target in dict(record.get("request") or {}).get("targets", ())]
    if recorded and {fold_name(name) for name in named} != {fold_name(name) for name in recorded}:
        raise ValueError(
            f"{source} was exported from an edit that erases {', '.join(recorded)}, not {', '.join(named)}; leave out "
            "--target"
        )
    made_by = record.get("method", method)
    if fold_name(method) not in ("imported", fold_name(made_by)):
        raise ValueError(f"{source} was exported from an edit by {made_by}, not {method}; leave out --method")


def _check_origin(source: str | Path, record: Mapping[str, Any], base: Model, whole: bool) -> None:
    """Compares the base in an exported file's record with the base that it is imported to.

    Whole weights of another base would also contain the difference of the two bases, which is refused; a LoRA can be
    added to another base, with a warning.
    """
    if find_shared_digest(record["base"], base.fingerprint()):
        return
    says = f"{source} was exported for the base {record.get('model', 'of another name')!r}, and {base.name!r} has other"
    if whole:
        raise ValueError(f"{says} weights: the edit would contain the difference of the two; open that base")
    warnings.warn(f"{says} weights: what the edit does there was not measured", stacklevel=3)
