"""Defaults of sampling, its setup on a scheduler, and its result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, final

import torch
from torch import Tensor

from ..plurals import write_count

Sampler = Literal["own", "ddim", "ddim-unclipped", "dpm", "unipc"]
"""The model's own scheduler; DDIM on its noise levels; DDIM that never clips x0, which can be walked backwards; on the
same noise levels DPM-Solver++ of second order and UniPC, which need fewer steps."""


LARGEST_SEED = 2**63 - 1


@dataclass(frozen=True)
class Defaults:
    """A model's default settings."""

    steps: int = 50
    guidance: float = 7.5
    methods: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Arguments by method; empty for models of the papers' size, for which the presets' own values are meant."""
    blank_tokens: int = 256
    """Number of zero tokens that a network reads instead of a text encoder's, where the pipeline lacks the encoder."""


@dataclass(frozen=True)
class Draw:
    """The result of sampling n pictures. `x` is as the network reads it; the rest is empty unless it was recorded."""

    x: Tensor
    """[n, c, h, w]: the end of the trajectory, or the state at `until`."""
    t: Tensor
    """[m]: the timesteps visited, on the CPU."""
    states: Tensor
    """[m, n, c, h, w]: the network's input at each of them."""
    eps_c: Tensor
    """[m, n, c, h, w]: the prediction under the condition, in the model's own space."""
    eps_0: Tensor
    """[m, n, c, h, w]: the prediction under the empty prompt."""


@final
class Trace:
    """Collects states and predictions of n pictures from the `since`-th to before the `end`-th timestep.

    Each is written to its place at once: a list that is stacked in the end would need twice the memory.
    """

    def __init__(self, end: int, since: int, x: Tensor) -> None:
        self.t: list[Tensor] = []
        self.columns = [x.new_empty(end - since, *x.shape) for _ in range(3)]

    def note(self, t: Tensor, x_t: Tensor, eps_c: Tensor, eps_0: Tensor) -> None:
        """Notes a state [n, c, h, w] at timestep t, and both predictions there."""
        for column, value in zip(self.columns, (x_t, eps_c, eps_0), strict=True):
            column[len(self.t)] = value
        self.t.append(t)


def choose_image_batch(resolution: int) -> int:
    """Number of pictures of this many pixels a side that are drawn at once: fewer of large ones, to save memory."""
    return 64 if resolution <= 128 else 4


def build_draw(x: Tensor, trace: Trace | None) -> Draw:
    """Puts the end of a trajectory and what was recorded on the way together."""
    if trace is None or not trace.t:
        empty = x.new_empty(0)
        return Draw(x, empty, empty, empty, empty)
    return Draw(x, torch.stack(trace.t), *trace.columns)


def set_timesteps(scheduler: Any, steps: int, since: int = 0) -> Any:
    """Prepares the scheduler for `steps` timesteps, of which it starts at the `since`-th.

    Its timesteps and noise levels stay on the CPU, where reading one needs no wait for a GPU. The scheduler is told the
    position of its first step, because it would else look the timestep's value up among all of them, and timesteps
    repeat where a strong shift or rounding makes them equal: it would begin one step late and run out of levels.

    Raises:
        ValueError: there is no such timestep, or the scheduler has no levels for so few steps, or for so many.
    """
    if steps < 1:
        raise ValueError(f"steps must be at least 1, got {steps}")
    if steps > (most := getattr(scheduler.config, "num_train_timesteps", steps)):
        raise ValueError(f"steps={steps} is more than the scheduler's {most} timesteps; 1 to {most} would have worked")
    scheduler.set_timesteps(steps)
    if not scheduler.timesteps.isfinite().all():
        raise ValueError(f"the scheduler has no finite noise levels for steps={steps}; more steps would have worked")
    if since not in range(count := len(scheduler.timesteps)):
        raise ValueError(f"since={since} is none of the {count} timesteps; 0 to {count - 1} would have worked")
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(since)
    return scheduler


def unscale(scheduler: Any, x_t: Tensor, t: Tensor) -> Tensor:
    """Undoes `scale_model_input`: from the network's input at t [n, ...] to the scheduler's state [n, ...]."""
    return x_t / scheduler.scale_model_input(torch.ones((), device=x_t.device), t)


def check_seeds(seeds: Sequence[int]) -> None:
    """Raises ValueError for a seed below 0, which other programs take for a random one, or too large for torch."""
    if wrong := [seed for seed in seeds if not 0 <= seed <= LARGEST_SEED]:
        raise ValueError(f"a seed is a whole number from 0 to {LARGEST_SEED}; got {wrong[0]}")


def draw_noise(seeds: Sequence[int], shape: Sequence[int]) -> tuple[list[torch.Generator], Tensor]:
    """A generator for each seed, and the first noise [n, *shape] that they draw; both on the CPU.

    Raises ValueError for a seed that is none, as `check_seeds` says.
    """
    check_seeds(seeds)
    rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
    return rngs, torch.cat([torch.randn((1, *shape), generator=rng) for rng in rngs])


def check_start(
    shape: Sequence[int], seeds: Sequence[int], start: Tensor | None, since: int, until: int | None = None
) -> None:
    """Raises ValueError where sampling of latents [c, h, w] can't continue from these states at these timesteps."""
    if start is None and since:
        raise ValueError(f"since={since} needs the states there: give start, from until={since} or from add_noise")
    if start is not None and start.shape != (whole := (len(seeds), *shape)):
        raise ValueError(f"start for {write_count(len(seeds), 'seed')} has to be {whole}, got {tuple(start.shape)}")
    if until is not None and until < since:
        raise ValueError(f"until={until} lies before since={since}")
