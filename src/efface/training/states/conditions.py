"""States on recorded trajectories of the frozen model under conditions that are given as such, without their words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import torch

from ...models.cond import Cond
from ...models.trajectory import Draw
from ..interfaces import Source, States, Step
from ..trainer import Trainer


@final
class Conditions(Source):
    """`paths` trajectories of each condition [1 row] by its name, all drawn when the first is asked for.

    Together, so that their last bits do not depend on which is asked for first, as after a resumption.
    """

    def __init__(self, conds: Mapping[str, Cond], steps: int, guidance: float, paths: int) -> None:
        self.conds, self.steps, self.guidance, self.paths = dict(conds), steps, guidance, paths
        self.drawn: dict[str, Draw] = {}

    def sample_states(self, trainer: Trainer, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        """Rows of the recordings; `known` holds the frozen predictions under the row's condition and under ""."""
        if not self.drawn:
            self.drawn = {name: self._draw(trainer, i) for i, name in enumerate(self.conds)}
        picks = zip((self.drawn[name] for name in prompts), step.points, step.noise, strict=True)
        found = [[part[k, seed % self.paths] for part in (d.states, d.eps_c, d.eps_0)] for d, k, seed in picks]
        x, eps_c, eps_0 = (torch.stack(column) for column in zip(*found, strict=True))
        return States(x, next(iter(self.drawn.values())).t[list(step.points)], {"eps_c": eps_c, "eps_0": eps_0})

    def _draw(self, trainer: Trainer, i: int) -> Draw:
        """The trajectories of the i-th condition; seeds as far from those of pictures as those of other recordings."""
        first = 2**42 + trainer.config.seed * 1_000_003 + i * self.paths
        cond = list(self.conds.values())[i]
        seeds = [first + k for k in range(self.paths)]
        how = {"steps": self.steps, "guidance": self.guidance, "record": True}
        return trainer.model.sample(cond, trainer.uncond, seeds, sampler="ddim", **how)
