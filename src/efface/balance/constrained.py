"""The constrained first-order step of EraseDiff: keep, but let the forgetting loss fall at a given rate.

delta = grad L_r + lambda_t grad g, lambda_t = max{0, (a_t - <grad g, grad L_r>) / ||grad g||^2} (arXiv 2401.05779).
As phi^K is held fixed, grad g is grad L_f whatever the inner loop did; it matters only where a_t is made of the gap,
and is run only there. The authors' scripts take a constant lambda: that is `rate="fixed"`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

import torch
from torch import Tensor

from ..functional.value_function import inner, multiplier
from ..game import Balance, Role

Rate = Literal["grad-norm", "gap", "constant", "fixed"]


@final
@dataclass(frozen=True)
class Constrained(Balance):
    """How fast forgetting must go: a_t = eta ||grad g||^2, eta max(g, 0), or eta; "fixed" is lambda_t = eta itself."""

    passes: ClassVar[int] = 2
    rate: Rate = "grad-norm"
    eta: float = 1.0
    inner: int = 0
    """Steps of the inner loop, where the rate is that of the gap."""

    def __post_init__(self) -> None:
        if self.rate not in get_args(Rate):
            raise ValueError(f"no rate {self.rate!r}; there are {', '.join(get_args(Rate))}")
        if self.eta < 0:
            raise ValueError(f"eta is not below 0, where forgetting would be undone, got {self.eta}")
        if (self.rate == "gap") != (self.inner > 0):
            raise ValueError(
                f"inner steps are for the rate 'gap', which needs at least 1; got {self.inner} for {self.rate!r}"
            )

    def __call__(
        self, losses: Mapping[Role, Tensor], grad_of: Callable[[Tensor], Sequence[Tensor]], floor: float | None
    ) -> Sequence[Tensor]:
        if "erase" not in losses or "keep" not in losses:
            raise ValueError("the constrained step needs something to erase and something to keep")
        forget = grad_of(losses["erase"])
        remain = list(grad_of(losses["keep"] + losses["cost"] if "cost" in losses else losses["keep"]))
        share = self._share(forget, remain, losses["erase"].item() - (floor or 0.0))
        for i, grad in enumerate(forget):  # one by one: a third set of gradients would be as large as what learns
            remain[i] = torch.add(remain[i], grad, alpha=share)
        return remain

    def _share(self, forget: Sequence[Tensor], remain: Sequence[Tensor], gap: float) -> float:
        """lambda_t."""
        if self.rate == "fixed":
            return self.eta
        square, along = inner(forget, forget), inner(forget, remain)
        goal = {"grad-norm": square, "gap": max(gap, 0.0), "constant": 1.0}[self.rate]
        return multiplier(square, along, self.eta * goal)
