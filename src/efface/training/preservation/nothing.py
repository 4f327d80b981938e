"""Nothing is kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ..interfaces import Context, LossRole, Query, Step, Term


@final
class NoPreservation(Term):
    """A preservation without queries and without a loss, for methods that preserve nothing."""

    role: LossRole = "keep"

    def queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        return None

    def loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        raise AssertionError("it has no queries")
