"""Guides: what an erasure does while pictures are drawn, with every weight left alone.

The sampling loop asks a `GuidedSampling` which conditions to predict under, and makes it one prediction of the answers.
Without a guide it is `PlainSampling`, classifier-free guidance; the loop itself knows no difference.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar, final

from torch import Tensor

from .cond import Cond
from .denoiser import Denoiser, Scale, is_plain


class GuidedSampling(ABC):
    """One drawing under way; may remember what it saw at earlier steps."""

    @abstractmethod
    def conds(self, i: int) -> Sequence[Cond]:
        """The conditions to predict under at step i, each of n rows; all are answered in one batched call.

        None where it predicts by itself.
        """

    @abstractmethod
    def combine(self, i: int, x_t: Tensor, t: Tensor, predictions: Mapping[Cond, Tensor]) -> Tensor:
        """The prediction [n, ...] that the scheduler gets, from the one under each condition.

        All are in the model's own space; x_t [n, c, h, w] is the network's input, t a scalar timestep.
        """


def guided_prediction(
    model: Denoiser, sampling: GuidedSampling, i: int, x_t: Tensor, t: Tensor, extra_conds: Sequence[Cond] = ()
) -> tuple[Tensor, dict[Cond, Tensor]]:
    """Step i of a drawing: the prediction [n, ...] that the scheduler gets, and the one under each condition asked.

    One batched call of the network answers the drawing's conditions and the `extra_conds`.
    """
    asked = list(dict.fromkeys([*extra_conds, *sampling.conds(i)]))
    predictions = dict(zip(asked, model.predict(x_t, t, *asked), strict=True)) if asked else {}
    return sampling.combine(i, x_t, t, predictions), predictions


@dataclass(frozen=True, kw_only=True)
class Guider(ABC):
    """Steers drawing, as one frozen dataclass; its fields but `strength` are what an Edit keeps of it.

    They are of JSON's types, or tensors.
    """

    in_network: ClassVar[bool] = False
    """Whether the network itself answers otherwise, so that gradients through `predict_guided` know of the guide."""
    strength: float = 1.0
    """How much of it acts; 1 is the method as published."""

    def check(self, model: Denoiser) -> None:  # noqa: B027 - most fit every model
        """Raises ValueError where the model lacks what the guide needs."""

    def add_inputs(self, model: Denoiser, texts: Sequence[str], cond: Cond) -> Cond:
        """The conditions of these n prompts, with whatever tensors [n, ...] the guide adds to them.

        A prompt given as an embedding is read as the text "", for nobody knows its words.
        """
        return cond

    @contextmanager
    def act_in_network(self, model: Denoiser, cond: Cond) -> Iterator[None]:
        """Within, the network answers these conditions as it does in a drawing under the guide, where `in_network`."""
        yield

    @abstractmethod
    def begin(self, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> GuidedSampling:
        """A drawing of n pictures: their conditions, as many of the empty prompt, and the guidance asked for."""


@final
class PlainSampling(GuidedSampling):
    """Classifier-free guidance; at guidance 1 the plain conditional model, which needs no second prediction."""

    def __init__(self, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> None:
        self.model = model
        self.cond, self.uncond, self.guidance = cond, uncond, guidance

    def conds(self, i: int) -> Sequence[Cond]:
        return [self.cond] if is_plain(self.guidance) else [self.uncond, self.cond]

    def combine(self, i: int, x_t: Tensor, t: Tensor, predictions: Mapping[Cond, Tensor]) -> Tensor:
        if self.uncond not in predictions:
            return predictions[self.cond]
        return self.model.guide(predictions[self.cond], predictions[self.uncond], self.guidance)
