"""Prunes weights by a learned mask and trains none of them (pruning for robust erasing, arXiv 2405.16534).

min_s L(theta * m(s)) + beta mean(1 - m), with any objective L. The paper could be read in part only; relaxation,
regulariser, initial value and learning rate are our reconstruction. Biases and norms are never pruned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Literal, final

import torch
from torch import Tensor

from ...edits.deltas import pack
from ...edits.edit import Edit
from ...functional.masks import binarise, hard_concrete, keep_probability, straight_through
from ...models.base import Model
from ..interfaces import Context, LossRole, Query, Step, Term, Update
from ..optim import build_adam
from ..seeds import APART
from ..subsets import select

Relaxation = Literal["straight-through", "hard-concrete"]
FILL = 0x5EED
"""The seed of the noise that fills pruned weights is this plus the training's."""


@final
class Mask(Update):
    """Adam on one logit for each weight, which starts at `start` and is binarised at the end.

    Args:
        selection: the weights that may be pruned, as in `subsets`.
        lr: Adam's learning rate.
        relaxation: "straight-through" or "hard-concrete".
        tau: temperature of the relaxation.
        start: initial value of the logits.
        sparsity: the share of the selected weights that is pruned; 0 prunes the weights whose logits say so.
        fill: standard deviation, in units of each tensor's own, of the noise that replaces pruned weights; zeros would
            show which weights carried the concept (arXiv 2603.06640).
    """

    steps_per_round = 1

    def __init__(
        self,
        selection: str,
        lr: float,
        relaxation: Relaxation = "straight-through",
        tau: float = 1.0,
        start: float = 4.0,
        sparsity: float = 0.0,
        fill: float = 0.0,
    ) -> None:
        if relaxation not in ("straight-through", "hard-concrete"):
            raise ValueError(f"no relaxation {relaxation!r}; there are straight-through, hard-concrete")
        if not 0 <= sparsity < 1:
            raise ValueError(f"a sparsity is a share from 0 to below 1, got {sparsity}")
        if start <= 0 or tau <= 0 or fill < 0:
            raise ValueError(f"start and tau are above 0, fill is not below: got {start}, {tau}, {fill}")
        self.selection, self.lr, self.relaxation, self.tau = selection, lr, relaxation, tau
        self.start, self.sparsity, self.fill, self.taken = start, sparsity, fill, 0

    def prepare(self, context: Context) -> None:
        self.model: Model = context.model
        self.seed = context.config.seed
        base = self.model.weights
        self.names = [name for name in select(base, self.selection) if base[name].dim() >= 2]
        if not self.names:
            raise ValueError(f"{self.selection!r} selects no weight that can be pruned; 'xattn' would, biases cannot")
        self.logits = [torch.full_like(base[name], self.start, dtype=torch.float32) for name in self.names]
        for logits in self.logits:
            logits.requires_grad_()
        self.adam = build_adam(self.logits, self.lr, context.config.moments)

    def list_params(self) -> list[Tensor]:
        return self.logits

    def step(self, grads: Sequence[Tensor]) -> None:
        self.adam.step(grads)
        self.taken += 1

    def list_changed_names(self) -> Sequence[str]:
        return self.names

    def relax(self) -> list[Tensor]:
        """The relaxed masks of this step, differentiable; their noise stays the same within a step."""
        if self.relaxation == "straight-through":
            return [straight_through(s, self.tau) for s in self.logits]
        rng = torch.Generator().manual_seed(self.seed * APART + self.taken)
        noise = [torch.rand(s.shape, generator=rng).clamp(min=1e-6).to(s.device) for s in self.logits]
        return [hard_concrete(s, self.tau, u) for s, u in zip(self.logits, noise, strict=True)]

    def compute_kept_share(self) -> Tensor:
        """The mean share of weights that are kept, a differentiable scalar."""
        soft = [
            torch.sigmoid(s / self.tau) if self.relaxation == "straight-through" else keep_probability(s, self.tau)
            for s in self.logits
        ]
        return torch.stack([s.sum() for s in soft]).sum() / sum(s.numel() for s in soft)

    def swapped_in(self) -> AbstractContextManager[None]:
        base = self.model.weights
        masks = zip(self.names, self.relax(), strict=True)
        return self.model.swap_in({name: base[name] * mask.to(base[name].dtype) for name, mask in masks})

    @torch.no_grad()
    def compute_deltas(self) -> dict[str, Tensor]:
        masks = dict(zip(self.names, binarise(self.logits, self.sparsity), strict=True))
        packed = {f"{name}:mask": pack(mask) for name, mask in masks.items() if not mask.all()}
        if self.fill:
            base, rng = self.model.weights, torch.Generator().manual_seed(FILL + self.seed)
            for name in [key.removesuffix(":mask") for key in packed]:
                scale = self.fill * float(base[name].float().std())
                noise = torch.randn(int((~masks[name]).sum()), generator=rng) * scale
                packed[f"{name}:fill"] = noise.half()
        return packed

    def collect_metadata(self) -> dict[str, float]:
        """The share of the selected weights that is pruned."""
        masks = binarise(self.logits, self.sparsity)
        return {"pruned": sum(int((~m).sum()) for m in masks) / sum(m.numel() for m in masks)}

    def state_dict(self) -> dict[str, Tensor]:
        return self.adam.state_dict() | {"taken": torch.tensor(self.taken)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.taken = int(state["taken"])
        self.adam.load_state_dict({key: tensor for key, tensor in state.items() if key != "taken"})


def check_reach(steps: int, lr: float, start: float, sparsity: float) -> None:
    """Raises ValueError where this number of Adam's steps can prune no weight."""
    if not sparsity and lr * steps < start:
        raise ValueError(
            f"in {steps} steps of {lr:g} no logit gets from {start:g} to 0, and nothing would be pruned; an lr of 5e-2 "
            f"is usual, and {start / steps:.1g} is the least that could work"
        )


def require_pruned(edit: Edit, steps: int, lr: float, beta: float) -> Edit:
    """Returns the edit; raises ValueError where its mask keeps every weight."""
    if not edit.values:
        raise ValueError(
            f"nothing was pruned: in {steps} steps of {lr:g} no weight was worth its cost at beta {beta:g}; a smaller "
            "beta, more steps or a higher lr may prune some, and a sparsity prunes its share in any case"
        )
    return edit


@final
class KeepWeights(Term):
    """The cost beta mean(1 - m), by which no more is pruned than erasing needs."""

    role: LossRole = "cost"

    def __init__(self, beta: float) -> None:
        self.beta = beta

    def prepare(self, context: Context) -> None:
        if not isinstance(context.update, Mask):
            raise ValueError("keeping weights is a cost of pruning; use it with a mask as the update")
        self.mask = context.update

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        return {} if step.learner is context.update else None

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        return self.beta * (1 - self.mask.compute_kept_share())
