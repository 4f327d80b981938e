"""What fitting left: new values of some weights, and the record of how they came about."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ..models.base import Model
from ..store import read_tensors, write_tensors


class WrongBase(ValueError):
    """An edit was given a model that it was not made for."""


@final
@dataclass(frozen=True, eq=False)
class Edit:
    """An erasure, ready to be applied, saved, or shipped."""

    values: Mapping[str, Tensor]
    """New values by checkpoint name."""
    meta: Mapping[str, Any] = field(default_factory=dict)
    """Method, arguments, request, versions, the base's fingerprint; JSON's types only."""

    @staticmethod
    def load(path: str | Path) -> Edit:
        """The edit in a file; ValueError where it is truncated or something else."""
        values, meta = read_tensors(path)
        if meta.get("kind") != "edit":
            raise ValueError(f"{path} holds a {meta.get('kind', 'file of unknown kind')}, not an edit")
        return Edit(values, meta)

    def save(self, path: str | Path) -> Path:
        """Writes the edit to one safetensors file, whole or not at all."""
        return write_tensors(path, self.values, {**self.meta, "kind": "edit"})

    def apply(self, model: Model, strength: float = 1.0) -> AbstractContextManager[None]:
        """Within, the model is edited; after, it is bit for bit the one before. Strength 0 and 1 are exact."""
        return apply(model, [self], [strength])

    def export(self, model: Model, folder: str | Path) -> None:
        """Writes the edited model as a folder that other tools open."""
        with self.apply(model):
            model.save_pretrained(folder)

    def check(self, model: Model) -> None:
        """Raises WrongBase, with both fingerprints, unless the edit was made for this model at some dtype."""
        mine, its = dict(self.meta.get("base", {})), model.fingerprint()
        if not any(mine.get(cast) == digest for cast, digest in its.items()):
            raise WrongBase(
                f"the edit was made for {self.meta.get('model', 'another model')!r} with fingerprint {_short(mine)}, "
                f"but {model.name!r} has {_short(its)}; open the base that it was made for"
            )


@contextmanager
def apply(model: Model, edits: Sequence[Edit], strengths: Sequence[float] | None = None) -> Iterator[None]:
    """Within, the model is base + the sum of strength times each edit's change; after, bit for bit as before.

    Weights that several edits change are reported by a warning, for their changes add up.
    """
    strengths = [1.0] * len(edits) if strengths is None else list(strengths)
    if len(strengths) != len(edits):
        raise ValueError(f"{len(strengths)} strengths for {len(edits)} edits")
    for edit in edits:
        edit.check(model)
    active = [(edit, strength) for edit, strength in zip(edits, strengths, strict=True) if strength != 0]
    count = Counter(name for edit, _ in active for name in edit.values)
    if shared := sorted(name for name, n in count.items() if n > 1):
        warnings.warn(f"{len(shared)} weights are changed by several edits, first {shared[0]}", stacklevel=3)
    base = model.weights
    with model.bound({name: _merged(base[name], name, active) for name in count}):
        yield


@torch.no_grad()
def _merged(base: Tensor, name: str, active: Sequence[tuple[Edit, float]]) -> Tensor:
    """One weight under all the edits that change it."""
    changes = [(edit.values[name].to(base.device), strength) for edit, strength in active if name in edit.values]
    if len(changes) == 1 and changes[0][1] == 1:
        return changes[0][0].to(base.dtype)
    total = base.float()
    for value, strength in changes:
        total = total + strength * (value.float() - base.float())
    return total.to(base.dtype)


def _short(fingerprint: Mapping[str, str]) -> str:
    return ", ".join(f"{cast} {digest[:12]}" for cast, digest in sorted(fingerprint.items())) or "none"
