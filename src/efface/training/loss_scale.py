"""The factor before a loss whose gradients are taken in fp16, where small ones would be rounded to zero.

A gradient below 6e-8 is zero in fp16. The loss is therefore multiplied by a factor before it is differentiated, and the
gradients are divided by it in fp32 (Micikevicius et al., ICLR 2018, arXiv 1710.03740, section 3.2). A step whose
gradients overflowed is left out and counted; the factor is then halved, and doubled again after some clean steps.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

import torch
from torch import Tensor

from .distributed import process_group
from .interfaces import Checkpointable

CLEAN = 200
"""Clean steps after which a halved factor is doubled."""


@final
class LossScale(Checkpointable):
    """The factor of one training.

    Args:
        first: the factor at first, and at most; 1 stays 1, and leaves no step out.

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
        """Whether the step is to be taken, given whether its gradients are finite; changes the factor by that."""
        if finite or not self.active:
            self.clean += finite
            if self.factor < self.first and self.active and self.clean >= CLEAN:
                self.factor, self.clean = self.factor * 2, 0
            return finite
        self.factor, self.clean, self.skipped = self.factor / 2, 0, self.skipped + 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether no smaller factor is left, so that gradients that are not finite are the loss' own."""
        return self.factor <= 1

    def metadata(self) -> dict[str, Any]:
        """The number of steps left out, where the factor acts."""
        return {"skipped_steps": self.skipped} if self.active else {}

    def state_dict(self) -> dict[str, Tensor]:
        return {"scale": torch.tensor([self.factor, self.clean, self.skipped])} if self.active else {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        if "scale" in state:
            self.factor, clean, skipped = state["scale"].tolist()
            self.clean, self.skipped = int(clean), int(skipped)


def gradients(params: Sequence[Tensor], loss: Tensor, factor: float = 1.0) -> Sequence[Tensor]:
    """The gradient of a scalar for each of these, zero where it does not depend on one, averaged over the processes.

    The activations are freed on the way. The scalar is multiplied by `factor` before it is differentiated, and the
    gradients are divided by it in fp32.
    """
    grads = list(torch.autograd.grad(loss * factor if factor != 1 else loss, params, allow_unused=True))
    for i, param in enumerate(params):  # one by one, so that narrow and wide ones never lie side by side
        grad = grads[i]
        grads[i] = torch.zeros_like(param) if grad is None else grad.float() / factor if factor != 1 else grad
    return process_group().all_reduce_mean(grads)
