"""Schedulers of flow models, with the interface that the sampling loop expects.

States lie on the straight line x = (1 - sigma) x_0 + sigma eps, and the network predicts dx / dsigma (Lipman et al.,
arXiv 2210.02747; Liu et al., arXiv 2209.03003). Sampling is Euler's method on this ODE, which equals DDIM on a flow's
noise levels; `Spacing` says at which levels a pipeline takes its steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, final

import numpy as np
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from torch import Tensor

from .schedule import FEW_STEPS
from .trajectory import Sampler


@final
@dataclass(frozen=True)
class Spacing:
    """The noise levels of a pipeline's steps, before the scheduler shifts them."""

    sigmas: Sequence[float] | None = None
    """The levels sigma of the steps; None for the scheduler's own."""
    mu: float | None = None
    """The exponent of a shift that depends on the picture's size, where the scheduler has one."""


def shift_by_size(config: Any, tokens: int) -> float:
    """The exponent mu of a dynamic shift, linear in the number of the picture's tokens (the FLUX.1 and SD3 pipelines).

    Args:
        config: the scheduler's configuration.
        tokens: the number of the picture's tokens.
    """
    few, many = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
    low, high = config.get("base_shift", 0.5), config.get("max_shift", 1.15)
    slope = (high - low) / (many - few)
    return tokens * slope + low - slope * few


def spread_sigmas(steps: int) -> list[float]:
    """Levels from 1 down to 1 / steps, evenly spaced."""
    return torch.linspace(1.0, 1 / steps, steps, dtype=torch.double).tolist()


@final
class FlowEuler(FlowMatchEulerDiscreteScheduler):
    """diffusers' Euler scheduler of flow matching, which starts at pure noise and reads states as they are."""

    init_noise_sigma: ClassVar[float] = 1.0
    spacing: Callable[[int], Spacing] = staticmethod(lambda steps: Spacing())
    """Gives the spacing for a number of steps."""

    def set_timesteps(self, num_inference_steps: int, device: torch.device | None = None) -> None:  # type: ignore[override]
        """Prepares this number of steps, at the noise levels of the spacing.

        A schedule that is stretched to a last level (`shift_terminal`) has no levels, and NaN timesteps, where all of
        its levels are 1, as that of a single step is.
        """
        where = self.spacing(num_inference_steps)
        sigmas = None if where.sigmas is None else list(where.sigmas)
        with np.errstate(invalid="ignore"):
            FlowMatchEulerDiscreteScheduler.set_timesteps(self, num_inference_steps, device or "cpu", sigmas, where.mu)

    def scale_model_input(self, sample: Tensor, timestep: Any) -> Tensor:
        """Returns the state [n, ...] unchanged, because a flow's states are not scaled."""
        return sample

    def add_noise(self, latents: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Adds noise to clean latents: states [n, ...] at timesteps [n], which have to be among those visited."""
        return self.scale_noise(latents, timesteps, noise)  # type: ignore[arg-type]


def copy_flow_scheduler(own: Any, sampler: Sampler, spacing: Callable[[int], Spacing]) -> Any:
    """Makes a scheduler with the noise levels of a model's own.

    It is Euler's method for "own", "ddim" and "ddim-unclipped", which are the same on a flow; a model whose own
    scheduler is of another class keeps it for "own". "dpm" and "unipc" are solvers of higher order for the flow; their
    timesteps are rounded to whole numbers, their levels are not.
    """
    euler = isinstance(own, FlowMatchEulerDiscreteScheduler)
    if sampler == "own" and not euler:
        return type(own).from_config(own.config)
    if sampler in FEW_STEPS:
        kind: Any = FEW_STEPS[sampler]
        return kind(
            num_train_timesteps=own.config.num_train_timesteps,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=_shift(own, spacing),
        )
    made: Any = FlowEuler.from_config(own.config) if euler else FlowEuler(shift=_shift(own, spacing))
    made.spacing = spacing
    return made


def _shift(own: Any, spacing: Callable[[int], Spacing]) -> float:
    """The factor by which a scheduler's levels are shifted: s sigma / (1 + (s - 1) sigma)."""
    config: Any = own.config
    if "flow_shift" in config:
        return float(config.flow_shift)
    mu = spacing(20).mu
    if not config.use_dynamic_shifting or mu is None:
        return float(own.shift)
    return math.exp(mu) if config.time_shift_type == "exponential" else mu
