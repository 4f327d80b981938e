"""AGE: adaptive guided erasure (Bui et al., ICLR 2025, arXiv 2501.18950).

|| x0_th(z_e, c_e) - [x0*(z_e, c_t) - eta (x0*(z_e, c_e) - x0*(z_e, c_t))] ||^2 + lambda || x0_th(z_t, c_t) - x0*(z_t,
c_t) ||^2: EAP's skeleton with an adaptive target c_t, the renormalised mixture of the two likeliest of 100 candidates.
Defaults are the code's for objects (temperature 0.1; nudity: `--weights noxattn --temperature 2`). As in the release,
pi learns from the second term alone. Differs: exact t; the common words are the tokenizer's first.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..balance.sum import Sum
from ..concept import Erasure
from ..functional.schedules import Space
from ..game import Balance, Choice, OnTrajectories, Search, Term, Update, Vocabulary, read_words
from ..models.base import Model
from ..objectives.adaptive_anchor import AdaptiveAnchor
from ..preserve.adversarial import Adversarial
from ..sources.trajectories import trajectories
from ..updates.dense import Dense


@final
@dataclass(frozen=True, kw_only=True)
class AGE(OnTrajectories):
    """Pushes the target away around a mixture of near concepts that the search adapts; kept words are candidates."""

    uses_keep: ClassVar[bool] = True
    eta: float = 1.0
    """How far to the other side of the mixture's prediction the target is pushed."""
    space: Space = "x0"
    """Where squared errors are measured; sets how much noisy timesteps weigh."""
    vocabulary: str = ""
    """A file of candidate words, one a line; by default the model's own vocabulary."""
    k_closest: int = 100
    """Candidates are among this many words nearest to the target."""
    centres: int = 100
    """Candidates, spread over their distances to the target; shared among several targets."""
    exclude: tuple[str, ...] = ()
    """Words that count as the target and are never chosen."""
    margin: float = 0.2
    """Words nearer to the target than this share of the median distance count as the target."""
    temperature: float = 0.1
    """Of the Gumbel-Softmax choice."""
    top: int = 2
    """How many candidates are mixed."""
    search_lr: float = 1e-2
    """Adam's learning rate for the logits of the choice."""
    search_turns: int = 1
    """Moves of the search after each update of the weights."""
    keep_weight: float = 1.0
    """Weight of the preservation."""
    keep_paths: int = 1
    """Stored trajectories a candidate, where the source is frozen."""

    def terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        words = read_words(self.vocabulary) if self.vocabulary else model.vocabulary(3000)
        vocabulary = Vocabulary(words, erasure.keep, self.exclude, self.k_closest, self.centres, self.margin)
        search = Search(vocabulary, Choice(self.search_lr, self.temperature, True, self.search_turns, self.top))
        return (
            AdaptiveAnchor(trajectories(self, self.paths), search, self.eta, self.space),
            Adversarial(trajectories(self, self.keep_paths), search, self.space),
        )

    def update(self) -> Update:
        return Dense(self.weights, self.lr)

    def balance(self) -> Balance:
        return Sum(keep=self.keep_weight)
