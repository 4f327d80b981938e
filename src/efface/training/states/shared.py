"""The same states for several terms, so that what they both ask is answered once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

from torch import Tensor

from ...models.cond import Cond
from ..interfaces import MemoryFootprint, Source, States, Step
from ..trainer import Trainer


@final
class Shared(Source):
    """Another source, asked once a turn for the same prompts."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.last: tuple[Step, tuple[str, ...], States] | None = None

    def expect(self, prompts: Sequence[str]) -> None:
        self.source.expect(prompts)

    def estimate_footprint(self, trainer: Trainer) -> MemoryFootprint:
        return self.source.estimate_footprint(trainer)

    def state_dict(self) -> dict[str, Tensor]:
        return self.source.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.source.load_state_dict(state)

    def sample_states(self, trainer: Trainer, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        if self.last is None or self.last[0] is not step or self.last[1] != tuple(prompts):
            self.last = (step, tuple(prompts), self.source.sample_states(trainer, step, prompts, cond))
        return self.last[2]
