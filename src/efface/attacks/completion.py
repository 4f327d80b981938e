"""Diffusion completion: the model is handed a picture of the concept, in part or under noise, and asked to complete it.

Image to image (SDEdit, Meng et al., arXiv 2108.01073): the picture noised to a share `strength` of the schedule and
drawn from there under the row's prompt. Inpainting (RePaint without its resampling, Lugmayr et al., arXiv 2201.09865):
from pure noise, half of the latents, left, right, top or bottom, being put back to the picture's own at that noise
level before every step. Erasures that act on text alone leave the model's knowledge of pictures in place, and this
finds it.

With little noise, and in the half that was given, the picture survives whatever the model knows: a success there is no
proof. Therefore the default strengths are high, and the number means something only beside its controls: the same
attack on a kept concept under the same edit, and on the base.

Inpainting is walked step by step, so a scheduler of several steps' memory runs with one here, and a guide begins anew
at every step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from ..suites import Row
from .base import Arena, Attack, Shot, Shots, Threat

How = Literal["img2img", "inpaint"]
HALVES = ("left", "top", "right", "bottom")


@final
@dataclass(frozen=True, kw_only=True)
class Completion(Attack):
    """Hands in a picture of the concept, noised or halved, with the row's prompt."""

    threat: ClassVar[Threat] = "pictures"
    version: ClassVar[str] = "1"
    queries: int = 4
    """Pictures drawn and judged for each row, each from another picture handed in; every strength in turn."""
    how: How = "img2img"
    """What is handed in: a noised picture, or one half of it."""
    strengths: tuple[float, ...] = (0.7, 0.8)
    """Of img2img: shares of the schedule that are drawn anew; 1 would be pure noise."""
    pictures: int = 25
    """Pictures of the concept to choose from, at most."""

    def __post_init__(self) -> None:
        if self.how not in get_args(How):
            raise ValueError(f"no completion {self.how!r}; there are {', '.join(get_args(How))}")
        if not self.strengths or not 0 < min(self.strengths) <= max(self.strengths) < 1:
            raise ValueError(f"strengths lie between 0 and 1, for example 0.7; got {self.strengths}")
        for name in ("queries", "pictures"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")

    def check(self, arena: Arena) -> None:
        arena.must_read_pictures()

    def shots(self, arena: Arena, rows: Sequence[Row]) -> Shots:
        latents = arena.latents(self.pictures)
        orders = [arena.rng("completion", row.id).sample(range(len(latents)), len(latents)) for row in rows]
        for i in range(self.queries):
            given = latents[[order[i % len(order)] for order in orders]]
            seeds = [row.seed + i // len(latents) for row in rows]
            if self.how == "img2img":
                yield self._noised(arena, rows, given, seeds, self.strengths[i % len(self.strengths)])
            else:
                yield self._halved(arena, rows, given, seeds, HALVES[i % len(HALVES)])

    def _noised(
        self, arena: Arena, rows: Sequence[Row], given: Tensor, seeds: Sequence[int], strength: float
    ) -> list[Shot]:
        """Shots that begin at the noised pictures and have the last round(strength * steps) steps to go."""
        steps = len(arena.model.timesteps(self._steps(arena)))
        since = steps - min(max(round(strength * steps), 1), steps)
        start = arena.model.noised(given, seeds, since, steps=self._steps(arena))
        return [
            Shot(row.prompt, seed, x, since, f"strength {strength:g}")
            for row, seed, x in zip(rows, seeds, start, strict=True)
        ]

    def _halved(self, arena: Arena, rows: Sequence[Row], given: Tensor, seeds: Sequence[int], half: str) -> list[Shot]:
        """Shots that have the last step to go, on the way to which one half was the pictures' own at every step."""
        model, steps = arena.model, self._steps(arena)
        cond, uncond = model.encode([row.prompt for row in rows]), model.encode([""])
        known = torch.zeros(given.shape[-2:], dtype=torch.bool, device=given.device)
        sides = known if half in ("left", "right") else known.T
        middle = sides.shape[1] // 2
        sides[:, :middle] = half in ("left", "top")
        sides[:, middle:] = half in ("right", "bottom")
        last = len(model.timesteps(steps)) - 1
        x = model.sample(cond, uncond, seeds, steps=steps, guidance=arena.guidance, until=0).x
        for k in range(last + 1):
            x = torch.where(known, model.noised(given, seeds, k, steps=steps), x)
            if k < last:
                x = model.sample(
                    cond, uncond, seeds, steps=steps, guidance=arena.guidance, start=x, since=k, until=k + 1
                ).x
        return [
            Shot(row.prompt, seed, state, last, f"{half} half") for row, seed, state in zip(rows, seeds, x, strict=True)
        ]

    def _steps(self, arena: Arena) -> int:
        return arena.model.defaults.steps if arena.steps is None else arena.steps
