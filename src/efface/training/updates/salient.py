"""Changes only the weights that are most salient for forgetting (SalUn, Fan et al., arXiv 2310.12508).

The mask selects the share of the selected weights with the largest saliency, a summed gradient at the base. It is
applied after the optimiser's step; as it never changes and Adam has no weight decay, that is the same as masking the
gradient, which the authors' code does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import final

import torch
from torch import Tensor

from ...functional.masks import choose_largest
from ..interfaces import Context, Update
from .dense import Dense
from .saliency import GuidedDenoising

FIRST_STREAM = 500
"""The first stream of random choices for batches; inner steps use the streams before it."""


@final
class Salient(Update):
    """Adam on the `share` of a selection with the largest saliency.

    Args:
        selection: the weights among which the mask chooses, as in `subsets`.
        lr: Adam's learning rate.
        share: the share of weights that may change.
        looks: number of batches over which the gradient of the erasing loss is summed, which is ours; 0 with
            `saliency`.
        saliency: the authors' loss on the forget set, whose gradient is summed instead.
    """

    steps_per_round = 1

    def __init__(
        self, selection: str, lr: float, share: float, looks: int = 0, saliency: GuidedDenoising | None = None
    ) -> None:
        if not 0 < share <= 1:
            raise ValueError(f"a share of the weights must be above 0 and at most 1, got {share}")
        if not (saliency is None) <= looks <= 500:
            raise ValueError(f"saliency needs 1 to 500 batches, got {looks}")
        self.dense, self.share, self.looks, self.saliency = Dense(selection, lr), share, looks, saliency

    def prepare(self, context: Context) -> None:
        self.context = context
        self.dense.prepare(context)

    def begin(self, erase_gradient: Callable[[int], Sequence[Tensor]]) -> None:
        self.erase_gradient = erase_gradient

    @cached_property
    @torch.enable_grad()
    def masks(self) -> list[Tensor]:
        """The mask of each tensor; computed at the first use, which must come before anything has changed."""
        if self.saliency is not None:
            total = self.saliency.compute_gradient(self.context, self.dense)
        else:
            total = [torch.zeros_like(master) for master in self.dense.masters]
            for k in range(self.looks):
                for sum_, grad in zip(total, self.erase_gradient(FIRST_STREAM + k), strict=True):
                    sum_ += grad
        count = max(1, round(self.share * sum(each.numel() for each in total)))
        return choose_largest([each.abs_() for each in total], count)

    def list_params(self) -> list[Tensor]:
        return self.dense.list_params()

    def list_optimised(self) -> list[Tensor]:
        return self.dense.list_optimised()

    @torch.no_grad()
    def step(self, grads: Sequence[Tensor]) -> None:
        masks, before = self.masks, [master.clone() for master in self.dense.masters]
        with torch.enable_grad():
            self.dense.step(grads)
        for master, mask, old in zip(self.dense.masters, masks, before, strict=True):
            master.copy_(torch.where(mask, master, old))
        self.dense.refresh()

    def list_changed_names(self) -> Sequence[str]:
        return self.dense.list_changed_names()

    def swapped_in(self) -> AbstractContextManager[None]:
        return self.dense.swapped_in()

    def compute_deltas(self) -> dict[str, Tensor]:
        return self.dense.compute_deltas()

    def state_dict(self) -> dict[str, Tensor]:
        return self.dense.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        _ = self.masks  # computed before the state is restored, because it is the base's
        self.dense.load_state_dict(state)
