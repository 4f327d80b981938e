"""Changes weights by a low-rank product: W + up . down (LoRA, Hu et al., arXiv 2106.09685).

A convolution kernel [out, in, h, w] counts as the matrix [out, in * h * w]; vectors can't be factored and do not
change.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, final, get_args

import torch
from torch import Tensor

from ...models.base import Model
from ..interfaces import Context, Update
from ..optim import build_adam
from ..subsets import select

Start = Literal["normal", "uniform"]


@final
class LowRank(Update):
    """Adam on factors of rank `rank`; `down` starts at random, `up` at zero, so that the student starts as the base.

    Args:
        selection: the weights that may change, as in `subsets`.
        lr: Adam's learning rate.
        rank: the rank of the product.
        start: the initial distribution of `down` [rank, in]: "normal" with variance 1 / in, or "uniform" within
            1 / sqrt(in), of variance 1 / (3 in), as in PyTorch's linear layers and SPM's adapters.
    """

    steps_per_round = 1
    adds_factors = True

    def __init__(self, selection: str, lr: float, rank: int, start: Start = "normal") -> None:
        if rank < 1:
            raise ValueError(f"a rank must be at least 1, got {rank}")
        if start not in get_args(Start):
            raise ValueError(f"no start {start!r} of low rank; there are {', '.join(get_args(Start))}")
        self.selection, self.lr, self.rank = selection, lr, rank
        self.start: Start = start

    def prepare(self, context: Context) -> None:
        self.model: Model = context.model
        base = self.model.weights
        self.names = [name for name in select(base, self.selection) if base[name].dim() >= 2]
        if not self.names:
            raise ValueError(f"{self.selection!r} selects no matrix; low rank needs some, for example 'xattn'")
        rng = torch.Generator().manual_seed(context.config.seed)
        self.downs, self.ups = [], []
        for name in self.names:
            flat = self.model.get_plain_weight(name).detach().flatten(1)
            shape = self.rank, flat.shape[1]
            drawn = (
                torch.randn(shape, generator=rng)
                if self.start == "normal"
                else 2 * torch.rand(shape, generator=rng) - 1
            )
            down = drawn / flat.shape[1] ** 0.5
            self.downs.append(down.to(flat.device).requires_grad_())
            self.ups.append(torch.zeros(len(flat), self.rank, device=flat.device, requires_grad=True))
        self.adam = build_adam(self.list_params(), self.lr, context.config.moments)

    def list_params(self) -> list[Tensor]:
        return [*self.downs, *self.ups]

    def step(self, grads: Sequence[Tensor]) -> None:
        self.adam.step(grads)

    def list_changed_names(self) -> Sequence[str]:
        return self.names

    def swapped_in(self) -> AbstractContextManager[None]:
        parts = zip(self.names, self.ups, self.downs, strict=True)
        base = {name: self.model.get_plain_weight(name) for name in self.names}
        return self.model.swap_in(
            {n: (base[n] + (up @ down).view(base[n].shape)).to(base[n].dtype) for n, up, down in parts}
        )

    def compute_deltas(self) -> dict[str, Tensor]:
        parts = zip(self.names, self.ups, self.downs, strict=True)
        return {
            f"{name}:{kind}": factor.detach().cpu().clone()
            for name, up, down in parts
            for kind, factor in (("up", up), ("down", down))
        }

    def state_dict(self) -> dict[str, Tensor]:
        return self.adam.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.adam.load_state_dict(state)
