"""The part of a model's interface that a guide may use, without the class `Model`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from ..concept import Prompt
from ..functional.schedules import NoiseLevel, Space
from .cond import Cond

Scale = float | Tensor
"""Guidance of a drawing: one number for all of its pictures, or each picture's own, [n, 1, 1, 1]."""


def is_plain(scale: Scale) -> bool:
    """Whether sampling at this guidance needs only the prediction under the prompt."""
    return not isinstance(scale, Tensor) and scale == 1


class Denoiser(Protocol):
    """A network that predicts under conditions; `base.Model` is one, and documents each member."""

    name: str
    device: torch.device
    dtype: torch.dtype
    space: Space
    latent_shape: tuple[int, int, int]

    @property
    def weights(self) -> Mapping[str, Tensor]: ...

    def encode(self, prompts: Sequence[str | Prompt]) -> Cond: ...

    def encode_with_grad(
        self, texts: Sequence[str], prefix: Tensor | None = None, spelled: Sequence[str] = ()
    ) -> Cond: ...

    def predict(self, x_t: Tensor, t: Tensor | float, *conds: Cond) -> tuple[Tensor, ...]: ...

    def find_noise_level(self, t: Tensor) -> NoiseLevel: ...

    def guide(self, positive: Tensor, negative: Tensor, scale: Scale) -> Tensor: ...

    def build_scheduler(self, sampler: Any = "own") -> Any: ...
