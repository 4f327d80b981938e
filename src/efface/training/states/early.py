"""The noisiest states of another source of trajectories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import final

from torch import Tensor

from ...models.cond import Cond
from ..interfaces import Context, MemoryFootprint, Source, States, Step


@final
class Early(Source):
    """Another source at uniform points of its trajectories' first `first` steps, or of all steps if there are fewer.

    A fresh trajectory is drawn no further than its point, so that early points are also cheaper.
    """

    def __init__(self, source: Source, first: int) -> None:
        self.source, self.first = source, first

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        steps = context.config.draw_steps
        early = [point * min(self.first, steps) // steps for point in step.points]
        return self.source.sample_states(context, replace(step, points=early), prompts, cond)

    def expect(self, prompts: Sequence[str]) -> None:
        self.source.expect(prompts)

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        return self.source.estimate_footprint(context)

    def state_dict(self) -> dict[str, Tensor]:
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.source.load_state_dict(state)
