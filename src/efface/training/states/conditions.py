"""States on recorded trajectories of the teacher under conditions that no prompt gives, such as learned embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import final

import torch

from ...models.cond import Cond
from ...models.trajectory import Draw
from ...models.trajectory_cache import COLUMNS
from ..interfaces import Context, MemoryFootprint, Source, States, Step
from ..seeds import find_first_seed


@final
class Conditions(Source):
    """`paths` trajectories for each condition of one row, by its name.

    All are drawn when the first is needed, so that their last bits do not depend on which is needed first, for a
    resumed run may need another one first. They are in the host's memory, not on the device.
    """

    def __init__(self, conds: Mapping[str, Cond], steps: int, guidance: float, paths: int) -> None:
        self.conds, self.steps, self.guidance, self.paths = dict(conds), steps, guidance, paths
        self.drawn: dict[str, Draw] = {}

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        """Recorded states; `known` holds the teacher's predictions under the row's condition and under ""."""
        if not self.drawn:
            self.drawn = {name: self._draw(context, i) for i, name in enumerate(self.conds)}
        picks = zip((self.drawn[name] for name in prompts), step.points, step.noise, strict=True)
        found = [[part[k, seed % self.paths] for part in (d.states, d.eps_c, d.eps_0)] for d, k, seed in picks]
        columns = (torch.stack(column) for column in zip(*found, strict=True))
        x, eps_c, eps_0 = (column.to(context.model.device, non_blocking=True) for column in columns)
        return States(x, next(iter(self.drawn.values())).t[list(step.points)], {"eps_c": eps_c, "eps_0": eps_0})

    def _draw(self, context: Context, i: int) -> Draw:
        """Draws the trajectories of the i-th condition, on the CPU; evaluations use no seeds near theirs."""
        first = find_first_seed("conditions", context.config.seed) + i * self.paths
        cond = list(self.conds.values())[i]
        seeds = [first + k for k in range(self.paths)]
        how = {"steps": self.steps, "guidance": self.guidance, "record": True}
        size, parts = context.model.drawn_together, []
        for start in range(0, self.paths, size):
            some = context.model.sample(cond, context.uncond, seeds[start : start + size], sampler="ddim", **how)
            parts.append(Draw(*(column.cpu() for column in vars(some).values())))
        joined = (torch.cat([getattr(part, name) for part in parts], dim=1) for name in COLUMNS)
        return Draw(torch.cat([part.x for part in parts]), parts[0].t, *joined)

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        n = min(context.model.drawn_together, self.paths)
        each = len(COLUMNS) * self.steps * prod(context.model.latent_shape) * context.model.state_dtype.itemsize
        return MemoryFootprint(
            n, n * each, image_bytes=len(self.conds) * self.paths * each, drawn=len(self.conds) * self.paths
        )
