"""AdvUnlearn: erasing in the text encoder, by adversarial training (Zhang et al., NeurIPS 2024, arXiv 2405.15234).

    delta = argmin || eps_th(x_t, c + delta) - eps*(x_t, c) ||^2
    L = || eps_th(x_t, c + delta) - [eps*("") - eta (eps*(c) - eps*(""))] ||^2
        + retain_weight || eps_th(x_t, c_ret) - eps*(x_t, c_ret) ||^2

th are the weights of the text encoder without the token and position embeddings (the authors' `text_encoder_full`), and
delta are token embeddings before the prompt. Our settings are called `attack_step`, `attack_lr`, `attack_init`,
`adv_prompt_num`, `warmup_iter`, `retain_batch`, `retain_loss_w` and `retain_train` in the authors' code. Defaults are
those of the command in their README: `attack_init` random, `retain_loss_w` 0.3, `retain_train` reg. Without flags their
program takes latest, 1 and iter. As in their code, x_t is drawn under the *frozen* encoder's embedding of the target,
so that a "student" trajectory is that of the frozen U-Net, unless `--weights` names some of its weights; and every
attack has a new Adam.

This differs from the code in two points. Our attack keeps one state for all its steps, theirs draws one for each step.
The words to retain are the concepts to keep or words of the model's vocabulary, theirs are COCO's objects, filtered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.attacked import Attacked, PrefixAttack, Start
from ..training.preservation.anchoring import Retained
from ..training.updates.dense import Dense
from .base import TrajectoryMethod
from .states import build_target_trajectories, build_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class AdvUnlearn(TrajectoryMethod):
    """Trains the text encoder by ESD's loss on prompts that an attack hardens in every step, and retains other
    words."""

    needs_uncond: ClassVar[bool] = True
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "sd3")
    unserved: ClassVar[Mapping[str, str]] = {
        "pixart": "its attack puts token embeddings after CLIP's start token, and T5 has none",
        "flux": "its attack moves CLIP's tokens, and this transformer hears them by the pooled embedding alone",
    }
    uses_keep: ClassVar[bool] = True
    weights: str = "text-encoder-full"
    """Which weights may change: subsets or regular expressions, comma-separated."""
    eta: float = 1.0
    """Strength of negative guidance: how far beyond the unconditional prediction the target is pushed."""
    attack_steps: int = 30
    """Steps of the attack in each update."""
    attack_lr: float = 1e-3
    """Adam's learning rate of the attack."""
    attack_tokens: int = 1
    """Token embeddings that the attack puts before the prompt."""
    attack_start: Start = "random"
    """Start of each attack after the first: random words again, or the last prefix."""
    warm_up: int = 200
    """Updates before the first attack."""
    retain_weight: float = 0.3
    """Weight of retaining."""
    retain_batch: int = 5
    """Number of words retained in each update."""
    retain_template: str = "a photo of a {}"
    """Prompt template of a word to retain."""
    retain_words: int = 1000
    """Number of words of the model's vocabulary to retain, the most common first, if there are no concepts to keep."""
    retain_paths: int = 4
    """Number of stored trajectories of each word to retain."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        how = (self.attack_steps, self.attack_lr, self.attack_tokens, self.warm_up, self.attack_start)
        words = erasure.keep or model.list_words(self.retain_words)
        return (
            Attacked(build_target_trajectories(self, erasure), self.eta, self.space, PrefixAttack(*how)),
            Retained(
                build_trajectories(self, self.retain_paths), words, self.retain_template, self.retain_batch, self.space
            ),
        )

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Sum(keep=self.retain_weight)
