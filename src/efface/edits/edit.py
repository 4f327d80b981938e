"""The Edit: the changes of some weights, or a guide, with the record of how they were made."""

from __future__ import annotations

import json
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ..files import find_shared_digest, read_tensors, write_tensors
from ..guidance.registry import from_json
from ..models.base import Model
from ..models.guider import Guider
from ..models.quantised import refuse_export
from ..plurals import write_count
from .deltas import LOW_RANK, group_parts, merge_changes
from .integrity import GUIDE, WHOLE, add_digests, check_meta, check_values, take_digests
from .strength import check_strength


class WrongBase(ValueError):
    """An edit is applied to a model that it was not made for."""


@final
@dataclass(frozen=True, eq=False)
class Edit:
    """An erasure, ready to be applied to its base, saved to a file, or exported.

        with edit.apply(model, strength=0.5):
            pictures = model.images(["a cat"])
        edit.save("cat.safetensors")
        edit = Edit.load("cat.safetensors")

    An edit fits the model from which it was made, by that model's fingerprint, and is refused on any other.
    """

    values: Mapping[str, Tensor]
    """By checkpoint name: new values, masks or low-rank factors, as in `edits.deltas`; a guide's tensors."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Method, arguments, request, versions, the base's fingerprint, the guide if there is one; in JSON's types."""

    @staticmethod
    def load(path: str | Path) -> Edit:
        """Loads an edit from a file, and warns if the file has no digest by which damage would be noticed.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is no edit, is damaged, holds NaN or infinite numbers, a dtype that no weight has, or
                metadata of the wrong type; the message names the file.
        """
        values, found = read_tensors(path)
        meta: Mapping[str, Any] = found if isinstance(found, dict) else {}
        if meta.get("kind") != "edit":
            raise ValueError(
                f"{path} holds a {meta.get('kind', 'model or a file of unknown kind')}, not an edit; `efface import` "
                "makes an edit of it, and a model in one file opens as FILE.safetensors@FOLDER"
            )
        try:
            meta, digested = take_digests(values, meta)
            check_meta(meta)
            check_values(values, "guide" in meta)
        except ValueError as error:
            raise ValueError(f"{path} {error}") from error
        if not digested:
            warnings.warn(
                f"{path} has no digest, because an earlier version wrote it: damage to it would not be noticed; "
                "erase again for a file with a digest",
                stacklevel=2,
            )
        return Edit(values, meta)

    def save(self, path: str | Path) -> Path:
        """Writes the edit to one safetensors file with digests of its tensors and metadata, whole or not at all.

        Raises:
            ValueError: the file could not be loaded again: the edit holds NaN or infinite numbers, or changes nothing.
        """
        meta = self._digest()
        try:
            check_meta(meta)
            check_values(self.values, "guide" in meta)
        except ValueError as error:
            raise ValueError(f"the edit is not saved to {path}, because it {error}") from error
        return write_tensors(path, self.values, meta)

    @property
    def digest(self) -> str:
        """The BLAKE2b digest of all tensors and of the record, as in the edit's file: 32 hexadecimal digits."""
        return self._digest()[WHOLE]

    def _digest(self) -> dict[str, Any]:
        return add_digests(self.values, {**self.meta, "kind": "edit"})

    def __repr__(self) -> str:
        asked, method = self.meta.get("request") or {}, self.meta.get("method", "an unknown method")
        what = (
            f"a guide, {self.meta['guide']['name']}"
            if self.meta.get("guide")
            else write_count(len(self.names), "weight")
        )
        targets, anchor = ", ".join(asked.get("targets", ())) or "nothing named", asked.get("anchor")
        turned = f"{targets} into {anchor}" if anchor else targets
        return f"<Edit: {turned} erased by {method} from {self.meta.get('model', 'an unknown model')}; {what}>"

    def same_as(self, other: Edit) -> bool:
        """Whether another edit holds the same values, bit for bit, and the same record."""
        mine, its = (json.dumps({**edit.meta, "kind": "edit"}, sort_keys=True) for edit in (self, other))
        whole = self.values.keys() == other.values.keys() and mine == its
        return whole and all(torch.equal(value.cpu(), other.values[key].cpu()) for key, value in self.values.items())

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the weights that it changes; raises ValueError where a key is no change of a weight."""
        return tuple(self.group_changes())

    def group_changes(self) -> dict[str, dict[str, Tensor]]:
        """The parts of each weight's change by suffix, as `deltas.group_parts` returns them."""
        return group_parts({key: value for key, value in self.values.items() if not key.startswith(GUIDE)})

    def build_guider(self, strength: float = 1.0) -> Guider | None:
        """The edit's guide at this strength, or None; raises ValueError where this version has no such guide."""
        tensors = {k.removeprefix(GUIDE): value for k, value in self.values.items() if k.startswith(GUIDE)}
        kept = self.meta.get("guide")
        if kept is None and tensors:
            raise ValueError(f"the edit holds tensors of a guide ({', '.join(tensors)}) and does not say of which")
        return from_json(kept["name"], {**kept["arguments"], **tensors}, strength) if kept else None

    def apply(self, model: Model, strength: float = 1.0) -> AbstractContextManager[None]:
        """Edits the model inside the `with` block; afterwards it is bit for bit as before. Strengths 0 and 1 are exact.

            with edit.apply(model):
                pictures = model.images(["a cat"])

        Without `with` nothing happens, and a warning says so. Raises ValueError for a strength outside -10 to 10.
        """
        return apply(model, [self], [strength])

    def export(self, model: Model, folder: str | Path, strength: float = 1.0) -> None:
        """Writes the edited model as a folder that other tools open; raises ValueError where the Edit is a guide."""
        self.check_exportable()
        refuse_export(model.name, model.quantised)
        with self.apply(model, strength):
            model.save_pretrained(folder)

    def check_exportable(self) -> None:
        """Raises ValueError where the Edit is a guide, which other tools would not apply."""
        if guide := self.meta.get("guide"):
            raise ValueError(
                f"the edit is a guide ({guide['name']}): it acts while efface draws, and no other tool would apply it; "
                "to export, erase with a method that changes weights, such as esd or eap"
            )

    def check(self, model: Model) -> None:
        """Raises WrongBase, which shows both fingerprints, unless the edit was made for this model at some dtype."""
        mine, its = dict(self.meta.get("base", {})), model.fingerprint()
        if not find_shared_digest(mine, its):
            raise WrongBase(
                f"the edit was made for {self.meta.get('model', 'another model')!r} with fingerprint {_shorten(mine)}, "
                f"but {model.name!r} has {_shorten(its)}; open the base that it was made for"
            )


def apply(
    model: Model, edits: Sequence[Edit], strengths: Sequence[float] | None = None
) -> AbstractContextManager[None]:
    """Adds the sum of strength times each edit's change to the base inside the `with` block; then restores it exactly.

    A warning reports weights that several edits change, because their changes add up. At most one edit may be a guide.

    Raises:
        ValueError: an edit is of another base (WrongBase), a part fits no weight, there are two guides, or a strength
            is no number from -10 to 10; the model is then unchanged.
    """
    return Applied(_apply_all(model, edits, strengths))


class Applied(AbstractContextManager[None]):
    """The context manager of edits; if it is dropped without a `with` block, it warns that nothing was done."""

    def __init__(self, swap: AbstractContextManager[None]) -> None:
        self._swap = swap
        self._entered = False

    def __enter__(self) -> None:
        self._entered = True
        self._swap.__enter__()

    def __exit__(self, *error: Any) -> bool | None:
        return self._swap.__exit__(*error)

    def __del__(self) -> None:
        if not self._entered:
            warnings.warn(
                "edit.apply(model) changes the model within a `with` block only, and this one had none: "
                "write `with edit.apply(model): ...`",
                stacklevel=2,
            )


@contextmanager
def _apply_all(model: Model, edits: Sequence[Edit], strengths: Sequence[float] | None) -> Iterator[None]:
    strengths = [1.0] * len(edits) if strengths is None else list(strengths)
    if len(strengths) != len(edits):
        raise ValueError(f"{write_count(len(strengths), 'strength')} for {write_count(len(edits), 'edit')}")
    for edit, strength in zip(edits, strengths, strict=True):
        check_strength(strength)
        edit.check(model)
    active = [(edit, strength) for edit, strength in zip(edits, strengths, strict=True) if strength != 0]
    guides = [guide for edit, strength in active if (guide := edit.build_guider(strength))]
    if len(guides) > 1:
        raise ValueError(
            f"{len(guides)} guides ({', '.join(type(g).__name__ for g in guides)}); only one can be in place at a time"
        )
    with model.guided_by(guides[0]) if guides else nullcontext(), model.swap_in(_compute_weights(model, active)):
        yield


def _compute_weights(model: Model, active: Sequence[tuple[Edit, float]]) -> dict[str, Tensor]:
    """The new values of the weights that the edits change, with all edits applied."""
    changes = [(edit.group_changes(), strength) for edit, strength in active]
    count = Counter(name for parts, _ in changes for name in parts)
    base = model.weights
    if unknown := sorted(set(count) - set(base)):
        raise ValueError(
            f"the edit changes {unknown[0]!r}, which {model.name!r} lacks ({write_count(len(unknown), 'such name')})"
        )
    if shared := sorted(name for name, n in count.items() if n > 1):
        warnings.warn(
            f"{write_count(len(shared), 'weight is', 'weights are')} changed by several edits, first {shared[0]}",
            stacklevel=5,
        )
    if model.quantised and (dense := sorted(n for parts, _ in changes for n, p in parts.items() if set(p) != LOW_RANK)):
        raise ValueError(
            f"the edit holds a new value of {dense[0]}, and {model.name} is held in {model.quantised} bits, to which "
            "only edits of low rank can be added; open it without --quantise"
        )
    return {
        name: merge_changes(
            name,
            model.get_plain_weight(name),
            [(parts[name], strength) for parts, strength in changes if name in parts],
        )
        for name in count
    }


def _shorten(fingerprint: Mapping[str, str]) -> str:
    return ", ".join(f"{cast} {digest[:12]}" for cast, digest in sorted(fingerprint.items())) or "none"
