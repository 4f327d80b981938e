"""Conditions: opaque to all but the adapter that made them, yet open to stacking, picking and mixing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Cond:
    """n rows of conditions: tensors by the adapter's own names, each [n, ...]."""

    tensors: Mapping[str, Tensor]

    def __len__(self) -> int:
        return len(next(iter(self.tensors.values())))

    def __getitem__(self, rows: slice | Sequence[int] | Tensor) -> Cond:
        return Cond({name: tensor[rows] for name, tensor in self.tensors.items()})

    def expand(self, n: int) -> Cond:
        """n rows, from n rows or from one."""
        if len(self) not in (1, n):
            raise ValueError(f"{len(self)} conditions for {n} rows; give one for all, or one for each")
        return Cond({name: tensor.expand(n, *tensor.shape[1:]) for name, tensor in self.tensors.items()})

    def detach(self) -> Cond:
        return Cond({name: tensor.detach() for name, tensor in self.tensors.items()})

    def mix(self, weights: Tensor) -> Cond:
        """k rows, each a weighted sum of the n: weights [k, n]. Differentiable in the weights."""
        return Cond({name: torch.tensordot(weights.to(t), t, dims=1) for name, t in self.tensors.items()})

    def flat(self) -> Tensor:
        """[n, d]: everything in a row, for distances between conditions."""
        return torch.cat([tensor.flatten(1) for tensor in self.tensors.values()], dim=1)

    @staticmethod
    def cat(conds: Sequence[Cond]) -> Cond:
        return Cond({name: torch.cat([c.tensors[name] for c in conds]) for name in conds[0].tensors})
