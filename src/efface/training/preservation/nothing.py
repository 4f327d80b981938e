"""Nothing is held in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ..interfaces import LossRole, Query, Step, Term
from ..trainer import Trainer


@final
class NoPreservation(Term):
    """Never asks, never counts."""

    role: LossRole = "keep"

    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        return None

    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        raise AssertionError("it asked nothing")
