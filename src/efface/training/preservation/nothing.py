"""Nothing is held in place."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ..interfaces import Ask, Role, Step, Term
from ..trainer import Trainer


@final
class Nothing(Term):
    """Never asks, never counts."""

    role: Role = "keep"

    def asks(self, trainer: Trainer, step: Step) -> Mapping[str, Ask] | None:
        return None

    def loss(self, trainer: Trainer, asks: Mapping[str, Ask], replies: Mapping[str, Tensor]) -> Tensor:
        raise AssertionError("it asked nothing")
