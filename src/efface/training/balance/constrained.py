"""EraseDiff's constrained first-order step: it lowers the keeping loss while the forgetting loss falls at a given rate.

delta = grad L_r + lambda_t grad g, lambda_t = max{0, (a_t - <grad g, grad L_r>) / ||grad g||^2} (arXiv 2401.05779).
As phi^K is held fixed, grad g is grad L_f whatever the inner loop did; the inner loop matters only where a_t depends on
the gap g, and is run only there. The authors' scripts use a constant lambda, which is `rate="fixed"` here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from ...concept import check_choice
from ...functional.value_function import inner, multiplier
from ..interfaces import Balance, GradOf, LossRole

Rate = Literal["grad-norm", "gap", "constant", "fixed"]


@final
@dataclass(frozen=True)
class Constrained(Balance):
    """`rate` says how fast forgetting must go.

    "grad-norm" is a_t = eta ||grad g||^2, "gap" is eta max(g, 0), "constant" is eta, and "fixed" sets lambda_t = eta.
    """

    needs: ClassVar[tuple[LossRole, ...]] = ("erase", "keep")
    passes: ClassVar[tuple[tuple[LossRole, ...], ...]] = (("erase",), ("keep", "cost"))
    rate: Rate = "grad-norm"
    eta: float = 1.0
    inner: int = 0
    """Number of steps of the inner loop, for the rate "gap" alone."""

    def __post_init__(self) -> None:
        check_choice("rate", self.rate, get_args(Rate))
        if self.eta < 0:
            raise ValueError(f"eta must not be below 0, which would undo the forgetting, got {self.eta}")
        if (self.rate == "gap") != (self.inner > 0):
            raise ValueError(f"only the rate 'gap' has inner steps, at least 1; got {self.inner} for {self.rate!r}")

    def __call__(self, grad_of: GradOf, floor: float | None) -> Sequence[Tensor]:
        losses, forget = grad_of({"erase": 1.0})
        forget, remain = list(forget), list(grad_of({"keep": 1.0, "cost": 1.0})[1])
        share = self._compute_share(forget, remain, losses["erase"], floor or 0.0)
        for i in range(len(remain)):  # one by one, to hold no third set of gradients
            remain[i] = torch.add(remain[i], forget.pop(0), alpha=share)
        return remain

    def _compute_share(self, forget: Sequence[Tensor], remain: Sequence[Tensor], loss: Tensor, floor: float) -> float:
        """lambda_t; its three numbers are read together, because each read waits for the device."""
        if self.rate == "fixed":
            return self.eta
        own = inner(forget, forget)
        square, along, above = torch.stack([own, inner(forget, remain), loss.to(own)]).tolist()
        gap = above - floor
        goal = {"grad-norm": square, "gap": max(gap, 0.0), "constant": 1.0}[self.rate]
        return multiplier(square, along, self.eta * goal)
