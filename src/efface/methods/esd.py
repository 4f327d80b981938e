"""ESD: Erasing Concepts from Diffusion Models (Gandikota et al., ICCV 2023, arXiv 2303.07345).

L = || eps_th(x_t, c) - [eps*(x_t, "") - eta (eps*(x_t, c) - eps*(x_t, ""))] ||^2, where x_t is partly denoised under c
at guidance 3. Defaults are those of the first release. The second release (on diffusers) is `--source frozen --steps
200 --lr 5e-5`; its eta of 2 around eps*(c) is our eta of 1. ESD-x is `--weights xattn` (for names and styles), and
ESD-u is `--weights noxattn` (for nudity and objects). In the second release, ESD-u is `--weights noxattn-layers`:
linear layers and convolutions outside attn2, including the time embedding and the output, but no norms. These are
815,358,084 numbers of Stable Diffusion 1.x, while the first release has 813,495,680.

This differs from the first release in one point: x_t is exactly at the timestep t at which it is scored, as in the
second release. The second release trains in bfloat16.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.negative_guidance import Beyond, NegativeGuidance
from ..training.preservation.nothing import NoPreservation
from ..training.updates.dense import Dense
from .base import TrajectoryMethod
from .states import build_target_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class ESD(TrajectoryMethod):
    """Pushes the target's prediction to the other side of the unconditional one; preserves nothing."""

    needs_uncond: ClassVar[bool] = True
    eta: float = 1.0
    """Strength of negative guidance: how far beyond the other prediction the target is pushed."""
    beyond: Beyond = "empty"
    """What the target is pushed beyond: the prediction for the empty prompt, as published, or for the `rest` of its
    prompt, the template without the target, so that what else the template names stays (ours; for styles)."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        return NegativeGuidance(
            build_target_trajectories(self, erasure), self.eta, self.space, self.beyond
        ), NoPreservation()

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum()
