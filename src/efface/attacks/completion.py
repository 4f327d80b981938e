"""Diffusion completion: the model is handed a picture of the concept, in part or under noise, and asked to complete it.

Image to image (SDEdit, Meng et al., arXiv 2108.01073): the picture noised to a share `strength` of the schedule and
drawn from there under the row's prompt. Inpainting (RePaint without its resampling, Lugmayr et al., arXiv 2201.09865):
from pure noise, half of the latents, left, right, top or bottom, being put back to the picture's own at that noise
level before every step. Erasures that act on text alone leave the model's knowledge of pictures in place, and this
finds it.

With little noise, and in the half that was given, a part of the picture survives whatever the model knows; with much
noise nothing of it is left, and the attack is the prompt alone. The strengths here lie between, and the number means
something only beside its controls: pictures of another thing handed in alike (the floor), the same attack on a kept
concept under the same edit, and on the base. Where the erasure hangs on words the concept comes back more often when
none are said, so half of the tries say nothing.

Inpainting is walked step by step, so a scheduler of several steps' memory runs with one here, and a guide begins anew
at every step.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from ..concept import check_choice, require_positive
from ..suites.spec import Row
from .base import Attack, AttackContext, Candidate, Proposals, Threat

How = Literal["img2img", "inpaint"]
Half = Literal["left", "right", "top", "bottom"]


@final
@dataclass(frozen=True, kw_only=True)
class Completion(Attack):
    """Gives the model a picture of the concept, noised or halved, to complete under the row's prompt."""

    threat: ClassVar[Threat] = "pictures"
    hands_in_images: ClassVar[bool] = True
    version: ClassVar[str] = "4"
    queries: int = 4
    """Number of queries of each row, each from another picture and with the next combination of the settings below."""
    how: How = "img2img"
    """What the model is given: a noised picture (img2img), or one half of it (inpaint)."""
    strengths: tuple[float, ...] = (0.35, 0.5)
    """For img2img: shares of the schedule that are drawn anew; 1 would begin at pure noise."""
    halves: tuple[Half, ...] = ("left", "top")
    """For inpaint: which halves of a picture are given."""
    says: tuple[str, ...] = ("{}", "")
    """Prompts beside the picture: {} stands for the row's prompt, and "" is the empty prompt."""
    pictures: int = 25
    """Largest number of pictures of the concept to choose from."""

    def check_settings(self) -> None:
        check_choice("completion", self.how, get_args(How))
        if not self.strengths or not 0 < min(self.strengths) <= max(self.strengths) < 1:
            raise ValueError(f"strengths lie between 0 and 1, for example 0.7; got {self.strengths}")
        if not self.halves or not set(self.halves) <= set(get_args(Half)):
            raise ValueError(f"halves are some of {', '.join(get_args(Half))}; got {self.halves}")
        if not self.says:
            raise ValueError("says is empty; it holds what is said beside a picture, for example '{}' or ''")
        require_positive(self, "pictures")

    def check(self, context: AttackContext) -> None:
        context.require_image_input()

    def propose(self, context: AttackContext, rows: Sequence[Row]) -> Proposals:
        latents = context.encode_pictures(self.pictures)
        orders = [context.make_rng("completion", row.id).sample(range(len(latents)), len(latents)) for row in rows]
        parts = self.strengths if self.how == "img2img" else self.halves
        mixes = list(itertools.product(parts, self.says))
        for i in itertools.count():
            part, said = mixes[i % len(mixes)]
            given = latents[[order[i % len(order)] for order in orders]]
            prompts = [said.replace("{}", row.prompt) for row in rows]
            seeds = [row.seed + i // len(latents) for row in rows]
            if isinstance(part, str):
                states, since = self._draw_by_guidance(context, rows, prompts, given, seeds, part)
            else:
                states, since = self._add_noise(context, given, seeds, part)
            note = f"{part} half" if isinstance(part, str) else f"strength {part:g}"
            note += "" if said else ", no words"
            asked = zip(prompts, seeds, states, strict=True)
            yield [Candidate(prompt, seed, state, since, note) for prompt, seed, state in asked]

    def _add_noise(
        self, context: AttackContext, given: Tensor, seeds: Sequence[int], strength: float
    ) -> tuple[Tensor, int]:
        """The noised pictures [n, c, h, w], and the index of their timestep, from which strength * steps are to go."""
        steps = self._count_steps(context)
        count = len(context.model.list_timesteps(steps))
        since = count - min(max(round(strength * count), 1), count)
        return context.model.add_noise(given, seeds, since, steps=steps), since

    def _draw_by_guidance(
        self,
        context: AttackContext,
        rows: Sequence[Row],
        prompts: Sequence[str],
        given: Tensor,
        seeds: Sequence[int],
        half: str,
    ) -> tuple[Tensor, int]:
        """`_halved`, of rows that each have a guidance of their own."""
        guidances = [context.guidance if row.guidance is None else row.guidance for row in rows]
        states, since = torch.empty_like(given), 0
        for guidance in dict.fromkeys(guidances):
            own = [i for i, g in enumerate(guidances) if g == guidance]
            said, noise = [prompts[i] for i in own], [seeds[i] for i in own]
            states[own], since = self._draw_halves(context, said, given[own], noise, half, guidance)
        return states, since

    def _draw_halves(
        self,
        context: AttackContext,
        prompts: Sequence[str],
        given: Tensor,
        seeds: Sequence[int],
        half: str,
        guidance: float | None,
    ) -> tuple[Tensor, int]:
        """States [n, c, h, w] with one step to go, before each of which a half was the pictures' own; its index."""
        model, steps = context.model, self._count_steps(context)
        cond, uncond = model.encode(prompts), model.encode([""])
        known = torch.zeros(given.shape[-2:], dtype=torch.bool, device=given.device)
        sides = known if half in ("left", "right") else known.T
        middle = sides.shape[1] // 2
        sides[:, :middle] = half in ("left", "top")
        sides[:, middle:] = half in ("right", "bottom")
        last = len(model.list_timesteps(steps)) - 1
        x = model.sample(cond, uncond, seeds, steps=steps, guidance=guidance, until=0).x
        for k in range(last):
            x = torch.where(known, model.add_noise(given, seeds, k, steps=steps), x)
            # A scheduler that adds noise would otherwise add the same in every step.
            fresh = [context.make_rng("completion", seed, k).randrange(2**31) for seed in seeds]
            x = model.sample(cond, uncond, fresh, steps=steps, guidance=guidance, start=x, since=k, until=k + 1).x
        return torch.where(known, model.add_noise(given, seeds, last, steps=steps), x), last

    def _count_steps(self, context: AttackContext) -> int:
        return context.model.defaults.steps if context.steps is None else context.steps
