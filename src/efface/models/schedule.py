"""Reads a network's noise levels and prediction space from its diffusers scheduler, and makes the one that draws."""

from __future__ import annotations

import copy
import inspect
import json
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
    """The space of a network's predictions, by its scheduler; raises ValueError where it is not supported."""
    if flows(own):
        return "flow"
    predicts = own.config.get("prediction_type")
    if predicts not in SPACES or not hasattr(own, "alphas_cumprod"):
        raise ValueError(
            f"{name} predicts {predicts!r} by {type(own).__name__}; {', '.join(SPACES)} and flows are supported"
        )
    return SPACES[predicts]


def read_levels(own: Any, name: str = "the model") -> NoiseLevel:
    """The noise levels [T] of a scheduler's training timesteps, on the CPU; of a flow [T + 1], from no to full noise.

    The last may be pure noise, alpha 0 (zero terminal SNR: Lin et al., WACV 2024, arXiv 2305.08891).

    Raises:
        ValueError: the numbers are no schedule, or a network that predicts noise starts at pure noise, where its
            prediction says nothing about the picture.
    """
    if flows(own):
        steps = own.config.num_train_timesteps
        return NoiseLevel.from_flow(torch.arange(steps + 1, dtype=torch.double) / steps)
    bars = own.alphas_cumprod.detach().double().cpu()
    # Only the last level may be pure noise; a NaN fails every comparison.
    if not ((bars[:-1] > 0).all() and bars[-1] >= 0 and bars[0] <= 1 and (bars.diff() <= 0).all()):
        raise ValueError(
            f"alphas_cumprod of {name}'s scheduler does not fall between 1 and 0 (it runs from "
            f"{bars[0].item():.4g} to {bars[-1].item():.4g}); beta_start and beta_end between 0 and 1 would have worked"
        )
    visited = own.config.get("timestep_spacing", "leading") != "leading"
    if bars[-1] == 0 and visited and own.config.get("prediction_type") == "epsilon":
        raise ValueError(
            f"{name} predicts noise, and its scheduler begins at pure noise (rescale_betas_zero_snr), where noise says "
            'nothing of the picture; set prediction_type to "v_prediction" if the network predicts v, '
            "or rescale_betas_zero_snr to false, in scheduler_config.json"
        )
    return NoiseLevel.from_alpha_bar(bars)


def interpolate_levels(levels: NoiseLevel, t: Tensor, *, straight: bool) -> NoiseLevel:
    """The levels at timesteps t [n], on the CPU.

    For variance-preserving levels [T], sigma / alpha is linear between two timesteps, and alpha^2 is rounded to fp32,
    as in schedulers; where a level is pure noise, sigma / alpha is infinite and alpha 0, also between that level and
    the one before. For a flow's levels [T + 1] (`straight`), sigma is t / T.
    """
    if straight:  # an argument, because levels can't be read where tensors have shapes alone
        top = len(levels) - 1
        return NoiseLevel.from_flow(t.detach().double().cpu().clamp(0, top) / top)
    ratio = levels.sigma / levels.alpha
    low = t.detach().double().cpu().clamp(0, len(ratio) - 1)
    floor, share = low.floor().long(), low.frac()
    above = ratio[(floor + 1).clamp(max=len(ratio) - 1)]
    # A share of 0 adds nothing; infinity times 0 would be NaN.
    mean = ratio[floor] * (1 - share) + torch.where(share > 0, above * share, 0)
    return NoiseLevel.from_alpha_bar((1 / (1 + mean.square())).to(torch.float32))


def flows(own: Any) -> bool:
    """Whether a scheduler is one of flow matching, whose levels are linear between picture and noise."""
    return isinstance(own, FlowMatchEulerDiscreteScheduler) or own.config.get("prediction_type") == "flow_prediction"


def list_settings(scheduler: Any) -> dict[str, Any]:
    """Lists a scheduler's settings that differ from those that its class has by default, as values of JSON."""
    given = inspect.signature(type(scheduler).__init__).parameters
    own = {name: _to_json(scheduler.config[name]) for name in given if name in scheduler.config}
    return {name: value for name, value in own.items() if value != _to_json(given[name].default)}


def _to_json(value: Any) -> Any:
    """Converts a setting to what JSON gives back for it: tuples and arrays become lists."""
    return json.loads(json.dumps(value, default=lambda it: it.tolist() if hasattr(it, "tolist") else str(it)))


def copy_scheduler(own: Any, sampler: Sampler = "own") -> Any:
    """Makes a scheduler for this sampler with the same configuration and no state."""
    if sampler == "own":
        return copy.deepcopy(own)
    if sampler in FEW_STEPS:
        return FEW_STEPS[sampler].from_config(own.config)
    # By default DDIM clips x0 to [-1, 1] where the configuration says nothing, which ruins latents.
    clip = sampler == "ddim" and bool(own.config.get("clip_sample", False))
    made: Any = DDIMScheduler.from_config(own.config, clip_sample=clip)
    # Schedulers that divide by alpha keep its last value above 0 where DDIM, by the same configuration, has 0.
    made.alphas_cumprod = own.alphas_cumprod.detach().cpu().clone()
    return made
