"""Data that pass between the parts of a training: states, queries, and estimates of memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from ..models.cond import Cond

LossRole = Literal["erase", "keep", "cost"]
"""What a term's loss is for: to erase the target, to keep something else, or to make the update small."""
ModelRole = Literal["student", "teacher"]
"""Who predicts: the model with the weights in training, or the frozen base."""

GradOf = Callable[[Mapping[LossRole, float]], tuple[Mapping[LossRole, Tensor], Sequence[Tensor]]]
"""Given a weight for each of some roles: their losses, and the gradient of their weighted sum for each param.

Losses are scalars on the model's device, for each number that is read there waits for the device."""


@dataclass(frozen=True)
class States:
    """n noisy latents at which a term is evaluated."""

    x: Tensor
    """Noisy latents [n, c, h, w]."""
    t: Tensor
    """Their timesteps [n], on the CPU: noise levels are found there, and nothing waits for a GPU."""
    known: Mapping[str, Tensor] = field(default_factory=dict)
    """Predictions [n, c, h, w] that need no pass any more, in the model's own space: the teacher's "eps_c" under each
    row's own condition and "eps_0" under ""; for noised pictures "noise", which a perfect denoiser would predict."""


@dataclass(frozen=True)
class Query:
    """A request for the prediction of one model at some states, under some conditions."""

    states: States
    cond: Cond
    """Conditions of n rows, or of one that serves all."""
    role: ModelRole
    known: str = ""
    """Key of `states.known` whose entry, where there is one, answers a query to the teacher without a pass."""
    prompts: Sequence[str] = ()
    """The n prompts that `cond` encodes. A student whose text encoder learns encodes them anew, with a gradient."""
    prefix: Tensor | None = None
    """Token embeddings [n, k, d] put before the words of `prompts`, as an attack finds them."""


@dataclass(frozen=True)
class MemoryFootprint:
    """The memory that a source's drawing takes."""

    images_at_once: int = 0
    """Trajectories or pictures drawn in one batch."""
    trace_bytes: int = 0
    """Bytes recorded of one such batch while it is drawn, on the network's device."""
    cache_bytes: int = 0
    """Bytes recorded of all expected prompts; what exceeds the trajectory cache's bound goes to disk."""
    image_bytes: int = 0
    """Bytes of pictures and states that stay in the host's memory."""
    drawn: int = 0
    """Trajectories or pictures of all expected prompts, which are drawn before they can be trained on."""
