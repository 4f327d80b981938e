"""Every value of the selected weights may move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import final

import torch
from torch import Tensor

from ..game import Adam, Game, Update
from ..models.base import Model
from ..select import select


@final
class Dense(Update):
    """Adam on fp32 masters of a selection of the weights."""

    turns = 1

    def __init__(self, selection: str, lr: float) -> None:
        self.selection, self.lr = selection, lr

    def prepare(self, game: Game) -> None:
        self.model: Model = game.model
        base = self.model.weights
        self.names = select(base, self.selection)
        self.masters = [base[name].detach().float().clone().requires_grad_() for name in self.names]
        self.dtypes = [base[name].dtype for name in self.names]
        self.adam = Adam(self.masters, self.lr)

    def params(self) -> list[Tensor]:
        return self.masters

    def step(self, grads: Sequence[Tensor]) -> None:
        self.adam.step(grads)

    def moved(self) -> Sequence[str]:
        return self.names

    def bound(self) -> AbstractContextManager[None]:
        cast = [master.to(dtype) for master, dtype in zip(self.masters, self.dtypes, strict=True)]
        return self.model.bound(dict(zip(self.names, cast, strict=True)))

    def payload(self) -> dict[str, Tensor]:
        # Contiguous, as a file would give them back: other strides may round differently.
        values = [master.detach().cpu().clone(memory_format=torch.contiguous_format) for master in self.masters]
        return dict(zip(self.names, values, strict=True))

    def state(self) -> dict[str, Tensor]:
        return self.adam.state()

    def restore(self, state: Mapping[str, Tensor]) -> None:
        self.adam.restore(state)
