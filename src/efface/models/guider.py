"""Guides: what an erasure does while pictures are drawn, with every weight left alone.

The sampling loop asks a walk which conditions to predict under, and makes it one prediction of the answers. Without a
guide the walk is `Plain`, classifier-free guidance; the loop itself knows no difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, final

from torch import Tensor

from ..functional.losses import guided
from .cond import Cond

if TYPE_CHECKING:
    from .base import Model


class Walk(ABC):
    """One drawing under way; may remember what it saw at earlier steps."""

    @abstractmethod
    def conds(self, i: int) -> Sequence[Cond]:
        """The conditions to predict under at step i, each of n rows; all are answered in one batched call.

        None where the walk predicts by itself.
        """

    @abstractmethod
    def combine(self, i: int, x_t: Tensor, t: Tensor, said: Mapping[Cond, Tensor]) -> Tensor:
        """The prediction [n, ...] that the scheduler gets, from the one under each condition.

        All are in the model's own space; x_t [n, c, h, w] is the network's input, t a scalar timestep.
        """


def steered(
    model: Model, walk: Walk, i: int, x_t: Tensor, t: Tensor, also: Sequence[Cond] = ()
) -> tuple[Tensor, dict[Cond, Tensor]]:
    """Step i of a walk: the prediction [n, ...] that the scheduler gets, and the one under each condition asked.

    One batched call of the network answers the walk's conditions and those asked `also`.
    """
    asked = list(dict.fromkeys([*also, *walk.conds(i)]))
    said = dict(zip(asked, model.predict(x_t, t, *asked), strict=True)) if asked else {}
    return walk.combine(i, x_t, t, said), said


@dataclass(frozen=True, kw_only=True)
class Guide(ABC):
    """Steers drawing, as one frozen dataclass; its fields but `strength` are what an Edit keeps of it.

    They are of JSON's types, or tensors.
    """

    in_network: ClassVar[bool] = False
    """Whether the network itself answers otherwise, so that gradients through `Model.answer` know of the guide."""
    strength: float = 1.0
    """How much of it acts; 1 is the method as published."""

    def check(self, model: Model) -> None:  # noqa: B027 - most fit every model
        """Raises ValueError where the model lacks what the guide needs."""

    def read(self, model: Model, texts: Sequence[str], cond: Cond) -> Cond:
        """The conditions of these n prompts, with whatever tensors [n, ...] the guide adds to them.

        A prompt given as an embedding is read as the text "", for nobody knows its words.
        """
        return cond

    @contextmanager
    def answering(self, model: Model, cond: Cond) -> Iterator[None]:
        """Within, the network answers these conditions as it does in a drawing under the guide, where `in_network`."""
        yield

    @abstractmethod
    def begin(self, model: Model, cond: Cond, uncond: Cond, guidance: float) -> Walk:
        """A drawing of n pictures: their conditions, as many of the empty prompt, and the guidance asked for."""


@final
class Plain(Walk):
    """Classifier-free guidance; at guidance 1 the plain conditional model, which needs no second prediction."""

    def __init__(self, cond: Cond, uncond: Cond, guidance: float) -> None:
        self.cond, self.uncond, self.guidance = cond, uncond, guidance

    def conds(self, i: int) -> Sequence[Cond]:
        return [self.cond] if self.guidance == 1 else [self.uncond, self.cond]

    def combine(self, i: int, x_t: Tensor, t: Tensor, said: Mapping[Cond, Tensor]) -> Tensor:
        if self.uncond not in said:
            return said[self.cond]
        return guided(said[self.uncond], said[self.cond], self.guidance)
