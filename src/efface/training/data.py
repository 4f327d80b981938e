"""Data that pass between the parts of a training: states, queries, and estimates of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ..models.cond import Cond

LossRole = Literal["erase", "keep", "cost"]
"""The purpose of a term's loss: to erase the target, to keep something else, or to make the update small."""
ModelRole = Literal["student", "teacher"]
"""The model that predicts: the one with the weights in training, or the frozen base."""

GradOf = Callable[[Mapping[LossRole, float]], tuple[Mapping[LossRole, Tensor], Sequence[Tensor]]]
"""Takes a weight for some roles; gives their losses, and the gradient of the weighted sum for each param.

Losses are scalars on the model's device, because reading a number waits for the device."""


@dataclass(frozen=True)
class States:
    """n noisy latents at which a term is evaluated."""

    x: Tensor
    """Noisy latents [n, c, h, w]."""
    t: Tensor
    """Their timesteps [n], on the CPU, where noise levels are computed without waiting for a GPU."""
    known: Mapping[str, Tensor] = field(default_factory=dict)
    """Known predictions [n, c, h, w], in the model's own space: the teacher's "eps_c" under each row's own condition
    and "eps_0" under ""; for noised pictures "noise", which a perfect denoiser would predict."""


@dataclass(frozen=True)
class Query:
    """A request for the prediction of one model at some states, under some conditions."""

    states: States
    cond: Cond
    """Conditions of n rows, or of one row for all states."""
    role: ModelRole
    known: str = ""
    """A key of `states.known`; if it has an entry, that is the teacher's prediction and no call is needed."""
    prompts: Sequence[str] = ()
    """The n prompts that `cond` encodes. A student whose text encoder is trained encodes them anew, with a gradient."""
    prefix: Tensor | None = None
    """Token embeddings [n, k, d], found by an attack, that are put before the words of `prompts`."""


@dataclass(frozen=True)
class MemoryFootprint:
    """The memory that a source needs to draw its states."""

    images_at_once: int = 0
    """Number of trajectories or pictures in one batch."""
    trace_bytes: int = 0
    """Bytes that are recorded while one batch is drawn, on the network's device."""
    cache_bytes: int = 0
    """Bytes of the recordings of all expected prompts; those beyond the trajectory cache's bound are on disk."""
    image_bytes: int = 0
    """Bytes of pictures and states that stay in the host's memory."""
    drawn: int = 0
    """Number of trajectories or pictures, for all expected prompts, that are drawn before training on them."""
