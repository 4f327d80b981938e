"""Methods that answer a request with a guide: they act while pictures are drawn and leave every weight alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ..concept import Erasure
from ..edits.edit import GUIDE, Edit
from ..edits.provenance import versions
from ..guidance.registry import kept
from ..models.base import Model
from ..models.guider import Guide
from ..training.trainer import Game
from .base import Kind, Method


@dataclass(frozen=True, kw_only=True)
class Guided(Method):
    """A method that needs no training: it says which guide answers the request."""

    kind: ClassVar[Kind] = "inference time"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "ddpm")

    @abstractmethod
    def guide(self, erasure: Erasure) -> Guide:
        """The guide, at strength 1."""

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Game | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Writes the guide down; there is nothing to train, to tell of, or to resume."""
        guide = kept(self.guide(erasure))
        return Edit({}, {**self.record(model, erasure), "versions": versions(), "notes": {}, "guide": guide})

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """As every method does; and the guide itself must fit the model."""
        Method.check(self, erasure, model)
        if model is not None:
            self.guide(erasure).check(model)


def gated(edit: Edit, concepts: Sequence[str]) -> Edit:
    """A low-rank edit, whose changes become the gate's adapters: from now on a guide, no change of weights."""
    changes = edit.changes()
    if wrong := [name for name, parts in changes.items() if set(parts) != {"down", "up"}]:
        raise ValueError(f"a gate takes low-rank changes alone, and {wrong[0]!r} is changed otherwise")
    ranks = {len(parts["down"]) for parts in changes.values()}
    if len(ranks) != 1:
        raise ValueError(
            f"a gate takes adapters of one rank; got {', '.join(map(str, sorted(ranks))) or 'no adapters'}"
        )
    arguments = {"concepts": list(concepts), "layers": list(changes), "rank": ranks.pop()}
    values = {
        f"{GUIDE}{kind}": torch.cat([parts[kind].flatten() for parts in changes.values()]) for kind in ("down", "up")
    }
    return Edit(values, {**edit.meta, "guide": {"name": "gate", "arguments": arguments}})
