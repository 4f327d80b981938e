"""EraseDiff (Wu et al., CVPR 2025, arXiv 2401.05779 v4).

The problem is min_th L_r subject to g(th) = L_f(th) - min L_f <= 0. The weights th move by grad L_r + lambda_t grad g
with lambda_t = max{0, (a_t - <grad g, grad L_r>) / ||grad g||^2}. L_f teaches a wrong noise on forget pictures
(`wrong`), and L_r is the training loss on remain pictures. Defaults are those of the scripts for classes: the whole
U-Net, Adam with 1e-5, batch 16, 60 steps. Their constant lambda of 1 is what `eta` 1 gives if the gradients are
orthogonal; `rate="fixed"` is exactly theirs. The label c_m is the anchor, else "a photo of a pokemon", and any other
class of a class-conditional model.

This differs from the scripts in four points. There is no inner loop where it would change nothing. Each picture is
encoded once. After its inner steps each epoch restores the weights at the place that the formula asks for, where the
scripts misplace it. Every batch is new, while the scripts use the first one again and again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.constrained import Constrained, Rate
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.denoising import Denoising
from ..training.objectives.wrong_noise import Wrong, WrongNoise
from ..training.updates.dense import Dense
from .base import ImageMethod, Method
from .states import build_forget_pictures, build_remain_pictures, choose_labels


@final
@dataclass(frozen=True, kw_only=True)
class EraseDiff(ImageMethod):
    """Learns a wrong noise on pictures of the target at the required rate, with the least harm to pictures that
    remain."""

    uses_anchor: ClassVar[bool] = True
    weights: str = "full"
    """Which weights may change: subsets or regular expressions, comma-separated."""
    steps: int = 60
    """Number of updates of the weights."""
    batch: int = 16
    """Batch size: rows of each loss term in an update."""
    wrong: Wrong = "label"
    """What is learned on pictures of the target: another concept's prediction, or uniform noise."""
    label: str = "a photo of a pokemon"
    """The other concept if the request has no anchor; class-conditional models take any other class."""
    rate: Rate = "grad-norm"
    """How fast the forgetting loss must fall, a_t: eta ||grad g||^2, eta g, eta; or lambda_t = eta, fixed."""
    eta: float = 1.0
    """The rate's factor."""
    inner: int = 0
    """Number of steps that estimate the least forgetting loss; only --rate gap needs them."""

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Checks as every method does, and that an anchor is of use: uniform noise replaces no concept by another."""
        Method.check(self, erasure, model)
        if erasure.anchor and self.wrong != "label":
            raise ValueError(
                f"the wrong noise {self.wrong!r} has no use for an anchor ({erasure.anchor!r}); leave it out, or learn "
                "the prediction for it by --wrong label"
            )

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        noise = "uniform" if self.wrong == "uniform-noised" else "gaussian"
        others = choose_labels(model, erasure, self.label) if self.wrong == "label" else ()
        source, captions = build_remain_pictures(self, model, erasure)
        return (
            WrongNoise(build_forget_pictures(self, model, erasure, noise), others, self.wrong, self.space),
            Denoising(source, self.space, "keep", captions),
        )

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr)

    def build_balance(self) -> Balance:
        return Constrained(self.rate, self.eta, self.inner)
