"""Surgical: a composition of our own, All-but-One's objective with EAP's preservation. It is no paper's.

    || eps_th(z, c_e) - sg eps_th(z, "") - sg G ||^2
        + w (|| eps_th(z', c_a) - eps*(z', c_a) ||^2 + || eps_th(z, "") - eps*(z, "") ||^2)

with G = eps*(c_alt) - eps*("") where the request names an anchor (the alternative c_alt), else G = -eta (eps*(c_e) -
eps*("")), or G = 0, as in `efface.methods.abo` (arXiv 2312.12807; our reconstruction), and with c_a the candidate that
the erasure damages most, found by the search of `efface.methods.eap` (arXiv 2410.15618). Without `hold` the last term
is left out; `efface erase compose --objective guidance --preserve adversarial` is the same then.

All-but-One preserves the unconditional score and no concept by name; EAP preserves concepts, and pushes the target
beyond the empty prompt instead of to an alternative. docs/results/beat.md compares the three. Errors are measured as
x0, as in EAP. The weight w is ours: one candidate is preserved in an update, and many are to stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..functional.schedules import Space
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.guidance import Aim, Guidance, choose_goal
from ..training.preservation.adversarial import Adversarial
from ..training.preservation.unconditional import Unconditional
from ..training.states.shared import Shared
from ..training.updates.dense import Dense
from .base import Method
from .searching import SearchMethod
from .states import build_preservation_states, build_target_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class Surgical(SearchMethod):
    """Changes the guidance term of the target alone, towards an alternative or away (All-but-One), and preserves the
    word that this damages most (EAP); concepts to keep are candidates of that search."""

    needs_uncond: ClassVar[bool] = True
    uses_anchor: ClassVar[bool] = True
    goal: Aim = "auto"
    """What the guidance term becomes: the anchor's, zero (none), or the target's reversed; auto: the anchor's if
    given."""
    eta: float = 1.0
    """Factor of the reversed guidance term."""
    hold: bool = True
    """Preserve the unconditional prediction too, as All-but-One does."""
    space: Space = "x0"
    """The space in which squared errors are measured, which decides how much noisy timesteps count."""
    keep_weight: float = 10.0
    """Weight of what is preserved."""

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Checks as every method does, and that the goal has the anchor that it needs."""
        Method.check(self, erasure, model)
        choose_goal(self.goal, erasure.anchor)

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        goal, states = choose_goal(self.goal, erasure.anchor), Shared(build_target_trajectories(self, erasure))
        return (
            Guidance(states, goal, self.eta, True, self.space),
            Adversarial(build_preservation_states(self), self.build_search(model, erasure), self.space),
            *([Unconditional(states, self.space)] if self.hold else []),
        )

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum(keep=self.keep_weight)
