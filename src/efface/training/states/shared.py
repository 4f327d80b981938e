"""Gives several terms the same states, so that predictions that they share are made once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from torch import Tensor

from ...models.cond import Cond
from ..interfaces import Context, MemoryFootprint, Source, States, Step


@final
class Shared(Source):
    """Another source, sampled once in a step for the same prompts; later calls return the same `States` object."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.last: tuple[Step, tuple[str, ...], States] | None = None

    def expect(self, prompts: Sequence[str]) -> None:
        self.source.expect(prompts)

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        return self.source.estimate_footprint(context)

    def state_dict(self) -> dict[str, Tensor]:
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.source.load_state_dict(state)

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        if self.last is None or self.last[0] is not step or self.last[1] != tuple(prompts):
            self.last = (step, tuple(prompts), self.source.sample_states(context, step, prompts, cond))
        return self.last[2]
