"""The preservation of methods that keep nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

from torch import Tensor

from ..interfaces import Context, LossRole, Query, Step, Term


@final
class NoPreservation(Term):
    """A preservation without queries and without a loss, for methods that preserve nothing."""

    role: LossRole = "keep"

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        return None

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        raise AssertionError("a term without queries has no loss")
