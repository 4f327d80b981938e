"""Makes the predictions for queries: each state under each condition once, in one batch or in pieces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..models.cond import Cond
from ..models.pieces import call_in_pieces
from .data import Query
from .distributed import find_process_group
from .interfaces import Context


@final
@dataclass(frozen=True, eq=False)
class Predictor:
    """Makes the predictions for a step's queries with the weights in place."""

    context: Context
    trains_text_encoder: bool
    """Whether the student's prompts are encoded anew, with a gradient."""

    def predict_teacher(self, queries: Sequence[Query]) -> dict[int, Tensor]:
        """The predictions [n, c, h, w] by the `id` of each query; those in `states.known` take no pass."""
        known = {id(query): query.states.known[query.known] for query in queries if query.known in query.states.known}
        with torch.no_grad():
            return known | self._predict([query for query in queries if id(query) not in known])

    def predict_student(self, queries: Sequence[Query]) -> dict[int, Tensor]:
        """The predictions [n, c, h, w] by the `id` of each query, with a gradient, for `micro_batch` rows at once.

        The student's weights must be in place, and stay until the gradients are computed: pieces are recomputed then.
        """
        return self._predict(queries, self.context.config.micro_batch)

    def _predict(self, queries: Sequence[Query], rows_at_once: int = 0) -> dict[int, Tensor]:
        if not queries:
            return {}
        distinct = list({(id(query.states), id(query.cond)): query for query in queries}.values())
        x, t = torch.cat([query.states.x for query in distinct]), torch.cat([query.states.t for query in distinct])
        cond = Cond.cat([self._encode_query(query).expand(len(query.states.x)) for query in distinct])
        out = find_process_group().shard_apply(
            lambda own: self._call_in_pieces(x[own], t[own], cond[own], rows_at_once), len(x)
        )
        parts = out.split([len(query.states.x) for query in distinct])
        predictions = {(id(query.states), id(query.cond)): part for query, part in zip(distinct, parts, strict=True)}
        return {id(query): predictions[id(query.states), id(query.cond)] for query in queries}

    def _call_in_pieces(self, x: Tensor, t: Tensor, cond: Cond, rows_at_once: int) -> Tensor:
        return call_in_pieces(self._call_network, x, t, cond, rows_at_once)

    def _call_network(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.context.model.predict(x, t, cond)[0]

    def _encode_query(self, query: Query) -> Cond:
        """The query's condition, encoded anew where the student's text encoder is trained or the query has a prefix."""
        if query.role == "student" and query.prompts and (self.trains_text_encoder or query.prefix is not None):
            return self.context.model.encode_with_grad(query.prompts, query.prefix)
        return query.cond
