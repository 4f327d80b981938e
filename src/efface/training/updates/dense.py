"""Every value of the selected weights may change."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import final

import torch
from torch import Tensor

from ...models.base import Model
from ...models.hooks.attention import detach_start_token
from ..interfaces import Context, Update
from ..optim import build_adam
from ..subsets import select


@final
class Dense(Update):
    """Adam on fp32 masters of a selection of the weights.

    Args:
        selection: the weights that may change, as in `subsets`.
        lr: Adam's learning rate.
        detach_start: whether keys and values of a prompt's start token pass no gradient on (concept ablation's code).
    """

    steps_per_round = 1

    def __init__(self, selection: str, lr: float, detach_start: bool = False) -> None:
        self.selection, self.lr, self.detach_start = selection, lr, detach_start

    def prepare(self, context: Context) -> None:
        self.model: Model = context.model
        base = self.model.weights
        self.names = select(base, self.selection)
        self.masters = [base[name].detach().float().clone().requires_grad_() for name in self.names]
        # The leaves that the network uses and that get gradients: in its own dtype, they take the bytes of the weights.
        self.leaves = [
            master if master.dtype == (dtype := base[name].dtype) else master.detach().to(dtype).requires_grad_()
            for name, master in zip(self.names, self.masters, strict=True)
        ]
        self.adam = build_adam(self.masters, self.lr, context.config.moments)

    def list_params(self) -> list[Tensor]:
        return self.leaves

    def list_optimised(self) -> list[Tensor]:
        return self.masters

    def step(self, grads: Sequence[Tensor]) -> None:
        self.adam.step(grads)
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Copies the fp32 masters into the leaves, in the network's own dtype."""
        for leaf, master in zip(self.leaves, self.masters, strict=True):
            if leaf is not master:
                leaf.copy_(master)

    def list_changed_names(self) -> Sequence[str]:
        return self.names

    def swapped_in(self) -> AbstractContextManager[None]:
        swapped = self.model.swap_in(dict(zip(self.names, self.leaves, strict=True)))
        return self._detached(swapped) if self.detach_start else swapped

    @contextmanager
    def _detached(self, swapped: AbstractContextManager[None]) -> Iterator[None]:
        with swapped, detach_start_token(self.model):
            yield

    def compute_deltas(self) -> dict[str, Tensor]:
        # Contiguous, as a file would return them: with other strides, sums may round differently.
        values = [master.detach().cpu().clone(memory_format=torch.contiguous_format) for master in self.masters]
        return dict(zip(self.names, values, strict=True))

    def state_dict(self) -> dict[str, Tensor]:
        return self.adam.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.adam.load_state_dict(state)
        self.refresh()
