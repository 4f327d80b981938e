"""Hardened: a composition of our own, AdvUnlearn's attack in every update with EAP's preservation. It is no paper's.

    delta = argmin || eps_th(z, c_e + delta) - eps*(z, c_e) ||^2
    L = || eps_th(z, c_e + delta) - [eps*(z, "") - eta (eps*(z, c_e) - eps*(z, ""))] ||^2
        + w || eps_th(z', c_a) - eps*(z', c_a) ||^2

delta are `attack_tokens` free token embeddings before the target's prompt, found anew for each row of an update as in
`efface.methods.advunlearn` (arXiv 2405.15234), and c_a is the candidate that the erasure damages most, found by the
search of `efface.methods.eap` (arXiv 2410.15618). `efface erase compose --objective attacked --preserve adversarial` is
the same.

AdvUnlearn changes the text encoder and retains words that it draws at random; EAP preserves the word most at risk, and
nothing attacks its erasure. This changes the denoiser's cross-attention and does both. Later attacks start where the
last one ended, so that a few steps in each update are enough: this and the weight w of what is preserved are ours.
docs/results/beat.md compares the method with those of single papers. Errors are measured as x0, as in EAP.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..functional.schedules import Space
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.attacked import Attacked, PrefixAttack, Start
from ..training.preservation.adversarial import Adversarial
from ..training.updates.dense import Dense
from .searching import SearchMethod
from .states import build_preservation_states, build_target_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class Hardened(SearchMethod):
    """Erases the target under prefixes that an attack finds in every update (AdvUnlearn), and preserves the word that
    this damages most (EAP); concepts to keep are candidates of that search."""

    needs_uncond: ClassVar[bool] = True
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "sd3")
    unserved: ClassVar[Mapping[str, str]] = {
        "pixart": "its attack puts token embeddings after CLIP's start token, and T5 has none",
        "flux": "its attack moves CLIP's tokens, and this transformer hears them by the pooled embedding alone",
    }
    eta: float = 1.0
    """Strength of negative guidance: how far beyond the unconditional prediction the target is pushed."""
    space: Space = "x0"
    """The space in which squared errors are measured, which decides how much noisy timesteps count."""
    attack_steps: int = 4
    """Steps of the attack in each update."""
    attack_lr: float = 3e-2
    """Adam's learning rate of the attack."""
    attack_tokens: int = 5
    """Token embeddings that the attack puts before the prompt."""
    attack_start: Start = "latest"
    """Start of each attack after the first: the last prefix, or random words again."""
    warm_up: int = 100
    """Updates before the first attack."""
    keep_weight: float = 10.0
    """Weight of what is preserved."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        attack = PrefixAttack(self.attack_steps, self.attack_lr, self.attack_tokens, self.warm_up, self.attack_start)
        return (
            Attacked(build_target_trajectories(self, erasure), self.eta, self.space, attack),
            Adversarial(build_preservation_states(self), self.build_search(model, erasure), self.space),
        )

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum(keep=self.keep_weight)
