"""States made from pictures by the forward process: x_t = sqrt(ab) x0 + sqrt(1 - ab) noise, with uniform t.

The pictures come from a folder, or the teacher draws them for all expected prompts together when the first is needed.
The batches do not depend on the step, so that a resumed run has the same pictures. Each picture is encoded once, so
that all predictions of a row are made at the same x_t (EraseDiff's and SalUn's code encodes a picture twice and
compares predictions at two different x_t).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import Literal, final

import torch
from torch import Tensor

from ...files import read_pictures
from ...functional.schedules import add_noise, denoising_target
from ...models.base import Model
from ...models.cond import Cond
from ...plurals import write_count
from ..distributed import find_process_group
from ..interfaces import Context, MemoryFootprint, Source, States, Step
from ..seeds import find_first_seed

Noise = Literal["gaussian", "uniform"]
ANY = "*"
AT_ONCE = 32
"""How many pictures are encoded at once."""


@final
class Pictures(Source):
    """Noised pictures by prompt; `known` holds the latents "x0" and "noise", which a perfect denoiser would predict.

    Args:
        drawn: how many pictures the model draws for each prompt that has none.
        steps, guidance: sampling steps and guidance of these pictures.
        given: latents [m, c, h, w] by prompt, on the CPU; those of "*" serve every prompt.
        noise: "gaussian", or "uniform" in [0, 1), as in EraseDiff's code.
        antithetic: whether timesteps are drawn in pairs t, T - 1 - t.
    """

    def __init__(
        self,
        drawn: int,
        steps: int,
        guidance: float,
        given: Mapping[str, Tensor] | None = None,
        noise: Noise = "gaussian",
        antithetic: bool = False,
    ) -> None:
        self.drawn, self.steps, self.guidance = drawn, steps, guidance
        self.noise, self.antithetic = noise, antithetic
        self.store: dict[str, Tensor] = dict(given or {})
        self.expected: dict[str, None] = {}

    def expect(self, prompts: Sequence[str]) -> None:
        self.expected |= dict.fromkeys(p for p in prompts if ANY not in self.store and p not in self.store)

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        """A picture of each row's prompt, noised to a uniform timestep."""
        self._demand(context, prompts)
        stacks = [self._get_pictures(prompt) for prompt in prompts]
        x0 = torch.stack([stack[i % len(stack)] for stack, i in zip(stacks, step.noise, strict=True)])
        x0 = x0.to(context.model.device, non_blocking=True)
        t = self._draw_times(len(context.model.levels), len(x0), step.generator)
        draw = torch.randn if self.noise == "gaussian" else torch.rand
        eps = draw(x0.shape, generator=step.generator).to(x0, non_blocking=True)
        bar = context.model.find_noise_level(t)
        x_t = add_noise(x0, eps, bar)
        goal = denoising_target(x0, eps, x_t, bar, context.model.space)
        return States(x_t, t, {"noise": goal, "x0": x0})

    def count(self, context: Context, prompt: str) -> int:
        """The number of a prompt's pictures; draws missing ones. A row's noise seed, modulo the number, chooses one."""
        self._demand(context, [prompt])
        return len(self._get_pictures(prompt))

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        shape = context.model.latent_shape
        drawn = len(self.expected) * self.drawn
        given = {id(stack): stack.nbytes for stack in self.store.values()}  # a stack may serve several prompts
        held = drawn * prod(shape) * context.model.state_dtype.itemsize + sum(given.values())
        return MemoryFootprint(min(context.model.drawn_together, drawn), image_bytes=held, drawn=drawn)

    def _get_pictures(self, prompt: str) -> Tensor:
        """Latents [m, c, h, w] of a prompt, or those that serve every prompt."""
        return self.store[prompt if prompt in self.store else ANY]

    def _draw_times(self, of: int, n: int, rng: torch.Generator) -> Tensor:
        if not self.antithetic:
            return torch.randint(of, (n,), generator=rng)
        half = torch.randint(of, (-(-n // 2),), generator=rng)
        return torch.cat([half, of - 1 - half])[:n]

    def _demand(self, context: Context, prompts: Sequence[str]) -> None:
        """Draws these prompts' missing pictures, and those of all expected prompts if one of them is expected.

        Those of a prompt that was not expected are drawn by themselves, whatever else the step asks for.
        """
        wanted = dict.fromkeys(prompts if ANY not in self.store else ())
        missing = [prompt for prompt in wanted if prompt not in self.store]
        if any(prompt in self.expected for prompt in missing):
            self._fill(context, [prompt for prompt in self.expected if prompt not in self.store])
        for prompt in missing:
            if prompt not in self.store:
                self._fill(context, [prompt])

    def _fill(self, context: Context, prompts: Sequence[str]) -> None:
        """Draws pictures of these prompts in batches; evaluations use no seeds near theirs."""
        first = find_first_seed("pictures", context.config.seed)
        asked = [(prompt, first + i) for prompt in prompts for i in range(self.drawn)]
        done = []
        size = context.model.drawn_together
        for start in range(0, len(asked), size):
            context.on_drawn(start, len(asked))
            part = asked[start : start + size]
            done.append(
                find_process_group().shard_apply(lambda own, part=part: self._draw(context, part[own]), len(part)).cpu()
            )
        for prompt, latents in zip(prompts, torch.cat(done).split(self.drawn) if done else (), strict=True):
            self.store[prompt] = latents

    def _draw(self, context: Context, part: Sequence[tuple[str, int]]) -> Tensor:
        cond, seeds = context.model.encode([prompt for prompt, _ in part]), [seed for _, seed in part]
        return context.model.sample(
            cond, context.uncond, seeds, steps=self.steps, guidance=self.guidance, sampler="ddim"
        ).x


def read_latents(model: Model, folder: str, at_least: int = 1) -> Tensor:
    """Latents [m, c, h, w] of all pictures in a folder, whatever their captions; raises ValueError for too few."""
    return torch.cat([*encode_by_caption(model, read_enough(model, folder, at_least)).values()])


def read_enough(model: Model, folder: str, at_least: int) -> dict[str, Tensor]:
    """Reads a folder's pictures [n, 3, h, w] by caption; ValueError where they are too few."""
    pictures = read_pictures(folder, model.resolution)
    if (count := sum(map(len, pictures.values()))) < at_least:
        raise ValueError(f"{folder} holds {write_count(count, 'picture')}, fewer than a batch of {at_least}")
    return pictures


def encode_by_caption(model: Model, pictures: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Latents by caption, on the CPU, from uint8 pictures [m, 3, h, w] by caption."""
    return {
        caption: torch.cat([model.encode_pictures(part).cpu() for part in stack.split(AT_ONCE)])
        for caption, stack in pictures.items()
    }
