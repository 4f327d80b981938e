"""ABO: All but One, surgical concept erasing (Hong et al., AAAI 2024, arXiv 2312.12807).

L = || eps_th(c_e) - sg eps_th("") - sg G ||^2 + lambda || eps_th("") - eps*("") ||^2 with G = eps*(c_alt) - eps*("") if
the request names an anchor (the alternative), else G = -eta (eps*(c_e) - eps*("")), or G = 0. We could read only the
abstract and a figure of the paper. The loss, the detached eps_th("") (`detach`), the states (`states`) and every
default are therefore our reconstruction. If eps_th("") = eps*(""), the loss equals that of ESD, or that of model-based
concept ablation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final, get_args

from ..concept import Erasure, check_choice
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Source, Term, Update
from ..training.objectives.guidance import Aim, Guidance, choose_goal
from ..training.preservation.unconditional import Unconditional
from ..training.states.pictures import Pictures
from ..training.states.shared import Shared
from ..training.updates.dense import Dense
from .base import Method, TrajectoryMethod
from .states import build_target_trajectories, read_target_latents

StateKind = Literal["trajectories", "pictures"]


@final
@dataclass(frozen=True, kw_only=True)
class ABO(TrajectoryMethod):
    """Changes the guidance term of the target alone, towards an alternative or away, and preserves the unconditional
    score."""

    needs_uncond: ClassVar[bool] = True
    uses_anchor: ClassVar[bool] = True
    goal: Aim = "auto"
    """What the guidance term becomes: the anchor's, zero (none), or the target's reversed; auto: the anchor's if
    given."""
    eta: float = 1.0
    """Factor of the reversed guidance term."""
    detach: bool = True
    """Stop the gradient of the unconditional prediction in the guidance term; only the preservation then changes it."""
    hold: float = 1.0
    """Weight of the unconditional score's preservation."""
    states: StateKind = "trajectories"
    """States on guided trajectories under the target's prompt, or noised pictures of the target, which keeps their
    layout."""
    pictures: int = 64
    """Number of pictures that the model draws of each target prompt."""
    images: str = ""
    """Folder with pictures of the target to use instead, with captions if there are several targets."""

    def __post_init__(self) -> None:
        TrajectoryMethod.__post_init__(self)
        check_choice("states", self.states, get_args(StateKind))
        if self.images and self.states != "pictures":
            raise ValueError(f"states on {self.states} do not use images={self.images!r}; --states pictures does")

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Checks as every method does, and that the goal has the anchor that it needs."""
        Method.check(self, erasure, model)
        choose_goal(self.goal, erasure.anchor)

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        goal = choose_goal(self.goal, erasure.anchor)
        source = Shared(self._build_states(model, erasure))
        return (
            Guidance(source, goal, self.eta, self.detach, self.space),
            Unconditional(source, self.space),
        )

    def _build_states(self, model: Model, erasure: Erasure) -> Source:
        if self.states == "trajectories":
            return build_target_trajectories(self, erasure)
        given = read_target_latents(model, self.images, erasure, self) if self.images else None
        return Pictures(self.pictures, self.draw_steps, self.guidance, given)

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum(keep=self.hold)
