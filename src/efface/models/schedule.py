"""diffusers' schedulers: what they say of a network, and which one draws."""

from __future__ import annotations

import copy
from typing import Any

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_unipc_multistep import UniPCMultistepScheduler
from torch import Tensor

from ..functional.schedules import NoiseLevel, Space
from .trajectory import Sampler

FEW_STEPS: dict[str, Any] = {"dpm": DPMSolverMultistepScheduler, "unipc": UniPCMultistepScheduler}
SPACES: dict[str, Space] = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}


def read_space(own: Any, name: str) -> Space:
    """What a network predicts, by its scheduler; ValueError where that, or its noise levels, are not known."""
    if flows(own):
        return "flow"
    predicts = own.config.get("prediction_type")
    if predicts not in SPACES or not hasattr(own, "alphas_cumprod"):
        raise ValueError(f"{name} predicts {predicts!r} by {type(own).__name__}; known: {', '.join(SPACES)}, and flows")
    return SPACES[predicts]


def read_levels(own: Any) -> NoiseLevel:
    """The noise levels [T] of a scheduler's training timesteps, on the CPU; of a flow [T + 1], from no noise to all."""
    if flows(own):
        steps = own.config.num_train_timesteps
        return NoiseLevel.from_flow(torch.arange(steps + 1, dtype=torch.double) / steps)
    return NoiseLevel.from_alpha_bar(own.alphas_cumprod.detach().double().cpu())


def interpolate_levels(levels: NoiseLevel, t: Tensor) -> NoiseLevel:
    """The levels at timesteps t [n], on the CPU.

    Of variance-preserving levels [T], sigma / alpha is linear between two timesteps, and alpha^2 is rounded to fp32, as
    schedulers have it. Of a flow's levels [T + 1], sigma is t / T.
    """
    if levels.alpha[-1] == 0 and levels.sigma[0] == 0:
        top = len(levels) - 1
        return NoiseLevel.from_flow(t.detach().double().cpu().clamp(0, top) / top)
    ratio = levels.sigma / levels.alpha
    low = t.detach().double().cpu().clamp(0, len(ratio) - 1)
    floor, share = low.floor().long(), low.frac()
    mean = ratio[floor] * (1 - share) + ratio[(floor + 1).clamp(max=len(ratio) - 1)] * share
    return NoiseLevel.from_alpha_bar((1 / (1 + mean.square())).to(torch.float32))


def flows(own: Any) -> bool:
    """Whether a scheduler is one of flow matching, whose levels go straight from picture to noise."""
    return isinstance(own, FlowMatchEulerDiscreteScheduler) or own.config.get("prediction_type") == "flow_prediction"


def copy_scheduler(own: Any, sampler: Sampler = "own") -> Any:
    """A scheduler of the same configuration and none of the state."""
    if sampler == "own":
        return copy.deepcopy(own)
    if sampler in FEW_STEPS:
        return FEW_STEPS[sampler].from_config(own.config)
    # Left alone, DDIM clips x0 to [-1, 1] wherever the configuration is silent, and latents wash out.
    clip = sampler == "ddim" and bool(own.config.get("clip_sample", False))
    return DDIMScheduler.from_config(own.config, clip_sample=clip)
