"""Methods that answer a request with a guide, which acts while pictures are drawn and leaves every weight alone."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import torch

from ..concept import Erasure
from ..edits.edit import GUIDE, Edit
from ..edits.provenance import read_versions
from ..guidance.registry import to_json
from ..models.base import Model
from ..models.guider import Guider
from ..training.trainer import Trainer
from .base import Kind, Method


@dataclass(frozen=True, kw_only=True)
class Guided(Method):
    """A method without training, whose subclass says which guide erases the targets."""

    kind: ClassVar[Kind] = "inference time"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "pixart", "ddpm", "flow")

    @abstractmethod
    def build_guider(self, erasure: Erasure) -> Guider:
        """The guide that erases the request's targets while pictures are drawn, at strength 1."""

    def leaves_weights(self) -> bool:
        """A guide leaves the weights as they are."""
        return True

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Trainer | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """An Edit that records the guide; `progress` and `checkpoint` are not used, as nothing is trained."""
        guide = to_json(self.build_guider(erasure))
        return Edit({}, {**self.build_record(model, erasure), "versions": read_versions(), "notes": {}, "guide": guide})

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Checks as every method does, and that the guide fits the model."""
        Method.check(self, erasure, model)
        if model is not None and self.needs_uncond and not model.classifier_free:
            raise ValueError(
                f"{type(self).__name__} changes what guidance pushes away from, and {model.name} reads its guidance as "
                "a number, with nothing to push away from; set model.true_guidance above 1, which guides by two "
                "predictions as the pipeline's true_cfg_scale does"
            )
        if model is not None:
            self.build_guider(erasure).check(model)


def add_gate(edit: Edit, concepts: Sequence[str], power: int = 1) -> Edit:
    """Makes an Edit whose guide is the gate, with the changes of a low-rank Edit as its adapters; it changes no weight.

    Args:
        concepts: what the adapters erase; prompts are compared with these.
        power: of gamma, 1 or 2, as in `Gate`.

    Raises:
        ValueError: a change is not of low rank, or the ranks differ.
    """
    changes = edit.group_changes()
    if wrong := [name for name, parts in changes.items() if set(parts) != {"down", "up"}]:
        raise ValueError(f"a gate takes low-rank changes alone, and {wrong[0]!r} is changed otherwise")
    ranks = {len(parts["down"]) for parts in changes.values()}
    if len(ranks) != 1:
        raise ValueError(
            f"a gate takes adapters of one rank; got {', '.join(map(str, sorted(ranks))) or 'no adapters'}"
        )
    arguments = {"concepts": list(concepts), "layers": list(changes), "rank": ranks.pop(), "power": power}
    values = {
        f"{GUIDE}{kind}": torch.cat([parts[kind].flatten() for parts in changes.values()]) for kind in ("down", "up")
    }
    return Edit(values, {**edit.meta, "guide": {"name": "gate", "arguments": arguments}})
