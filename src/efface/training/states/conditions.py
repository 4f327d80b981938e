"""States on recorded trajectories of the teacher under conditions that no prompt encodes, as learned embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch

from ...models.cond import Cond
from ...models.trajectory import Draw
from ..interfaces import Context, Source, States, Step


@final
class Conditions(Source):
    """`paths` trajectories of each condition [1 row] by its name.

    All are drawn when the first is needed, so that their last bits do not depend on which is needed first: a resumed
    run may need another one first.
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
        x, eps_c, eps_0 = (torch.stack(column) for column in zip(*found, strict=True))
        return States(x, next(iter(self.drawn.values())).t[list(step.points)], {"eps_c": eps_c, "eps_0": eps_0})

    def _draw(self, context: Context, i: int) -> Draw:
        """The trajectories of the i-th condition; their seeds are far from those that pictures are judged with."""
        first = 2**42 + context.config.seed * 1_000_003 + i * self.paths
        cond = list(self.conds.values())[i]
        seeds = [first + k for k in range(self.paths)]
        how = {"steps": self.steps, "guidance": self.guidance, "record": True}
        return context.model.sample(cond, context.uncond, seeds, sampler="ddim", **how)
