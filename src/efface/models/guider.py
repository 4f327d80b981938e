"""Guides, which erase a concept while pictures are drawn and leave every weight unchanged.

The sampling loop asks a `GuidedSampling` under which conditions to predict, and the `GuidedSampling` combines these
predictions into one. Without a guide it is `PlainSampling`, which is classifier-free guidance.
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
    """The sampling of one batch of pictures; it may remember earlier steps."""

    @abstractmethod
    def list_conds(self, i: int) -> Sequence[Cond]:
        """The conditions to predict under at step i, each of n rows; the network reads all in one batched call.

        A guide that calls the network itself returns an empty sequence.
        """

    @abstractmethod
    def combine(self, i: int, x_t: Tensor, t: Tensor, predictions: Mapping[Cond, Tensor]) -> Tensor:
        """Combines the predictions [n, ...] under each condition into the one [n, ...] that the scheduler gets.

        All are in the model's own space; x_t [n, c, h, w] is the network's input, t a scalar timestep.
        """


def predict_with_guidance(
    model: Denoiser, sampling: GuidedSampling, i: int, x_t: Tensor, t: Tensor, extra_conds: Sequence[Cond] = ()
) -> tuple[Tensor, dict[Cond, Tensor]]:
    """Step i of sampling: the prediction [n, ...] that the scheduler gets, and the prediction under each condition.

    One batched call of the network predicts under the sampling's conditions and the `extra_conds`.
    """
    asked = list(dict.fromkeys([*extra_conds, *sampling.list_conds(i)]))
    predictions = dict(zip(asked, model.predict(x_t, t, *asked), strict=True)) if asked else {}
    return sampling.combine(i, x_t, t, predictions), predictions


@dataclass(frozen=True, kw_only=True)
class Guider(ABC):
    """A frozen dataclass that changes sampling; an Edit stores all its fields but `strength`.

    The fields are of JSON's types, or tensors.
    """

    in_network: ClassVar[bool] = False
    """Whether the guide changes the network's own predictions, so that gradients of `predict_guided` include it."""
    strength: float = 1.0
    """The strength of the guide; 1 is the method as published."""

    def check(self, model: Denoiser) -> None:  # noqa: B027 - most guides fit every model
        """Raises ValueError where the model lacks what the guide needs."""

    def add_inputs(self, model: Denoiser, texts: Sequence[str], cond: Cond) -> Cond:
        """Adds the tensors [n, ...] that the guide needs to the conditions of these n prompts.

        A prompt that is given as an embedding has the text "", because its words are unknown.
        """
        return cond

    @contextmanager
    def act_in_network(self, model: Denoiser, cond: Cond) -> Iterator[None]:
        """Makes the network predict, under these conditions, as it does in sampling with the guide, if `in_network`."""
        yield

    @abstractmethod
    def begin(self, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> GuidedSampling:
        """Begins sampling n pictures, from their conditions, n rows of the empty prompt, and the guidance."""


@final
class PlainSampling(GuidedSampling):
    """Classifier-free guidance; at guidance 1 it is the plain conditional model and needs no second prediction."""

    def __init__(self, model: Denoiser, cond: Cond, uncond: Cond, guidance: Scale) -> None:
        self.model = model
        self.cond, self.uncond, self.guidance = cond, uncond, guidance

    def list_conds(self, i: int) -> Sequence[Cond]:
        return [self.cond] if is_plain(self.guidance) else [self.uncond, self.cond]

    def combine(self, i: int, x_t: Tensor, t: Tensor, predictions: Mapping[Cond, Tensor]) -> Tensor:
        if self.uncond not in predictions:
            return predictions[self.cond]
        return self.model.guide(predictions[self.cond], predictions[self.uncond], self.guidance)
