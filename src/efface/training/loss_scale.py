"""Scales a loss whose gradients are computed in fp16, where small ones would be rounded to zero.

A gradient below 6e-8 is zero in fp16. The loss is therefore multiplied by a factor before it is differentiated, and the
gradients are divided by it in fp32 (Micikevicius et al., ICLR 2018, arXiv 1710.03740, section 3.2). A step whose
gradients overflowed is skipped and counted; the factor is then halved, and doubled again after `CLEAN` good steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from .distributed import find_process_group
from .interfaces import Checkpointable

CLEAN = 200
"""Number of steps without overflow after which a halved factor is doubled."""


@final
class LossScale(Checkpointable):
    """The factor of one training.

    Args:
        first: the first and largest factor; with 1 the factor stays 1 and no step is skipped.

    Example:
        >>> scale = LossScale(4096.0)
        >>> scale.accepts(finite=False), scale.factor, scale.skipped
        (False, 2048.0, 1)
    """

    def __init__(self, first: float) -> None:
        self.first = self.factor = first
        self.active = first != 1
        self.clean = self.skipped = 0

    def accepts(self, finite: bool) -> bool:
        """Whether the step is to be taken, given whether its gradients are finite; adapts the factor."""
        if finite or not self.active:
            self.clean += finite
            if self.factor < self.first and self.active and self.clean >= CLEAN:
                self.factor, self.clean = self.factor * 2, 0
            return finite
        self.factor, self.clean, self.skipped = self.factor / 2, 0, self.skipped + 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether there is no smaller factor, so that gradients overflow for another reason."""
        return self.factor <= 1

    def collect_metadata(self) -> dict[str, Any]:
        """The number of skipped steps, where the factor is not 1."""
        return {"skipped_steps": self.skipped} if self.active else {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"scale": torch.tensor([self.factor, self.clean, self.skipped])} if self.active else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if "scale" in state:
            self.factor, clean, skipped = state["scale"].tolist()
            self.clean, self.skipped = int(clean), int(skipped)


def compute_gradients(params: Sequence[Tensor], loss: Tensor, factor: float = 1.0) -> Sequence[Tensor]:
    """The gradient of a scalar [] for each param, in its shape; zero without dependence, averaged over processes.

    The activations are freed meanwhile. The scalar is multiplied by `factor` before it is differentiated, and the
    gradients are divided by it in fp32.
    """
    grads = list(torch.autograd.grad(loss * factor if factor != 1 else loss, params, allow_unused=True))
    for i, param in enumerate(params):  # one by one, so that not all are held in both dtypes
        grad = grads[i]
        grads[i] = torch.zeros_like(param) if grad is None else grad.float() / factor if factor != 1 else grad
    return find_process_group().all_reduce_mean(grads)
