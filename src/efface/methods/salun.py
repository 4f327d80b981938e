"""SalUn: saliency-based unlearning (Fan et al., ICLR 2024, arXiv 2310.12508).

The loss is || eps_th(x_t, c_f) - sg eps_th(x_t, c_m) ||^2 + alpha L_r. It changes only the half of the weights for
which the gradient of the forget loss at the base is largest. As in the code, this forget loss is a guided denoising
loss, summed over the whole forget set (`efface.training.updates.saliency`). Defaults are those of the code for nudity:
800 + 800 pictures, alpha 0.1, one epoch of batch 8, lr 1e-5 (for classes: alpha 0.5, 5 epochs). c_m is the anchor, else
a caption that remains. `--looks` is ours: it sums the gradient of the random-label loss over so many batches instead.
This differs from the code in one point: c_f and c_m are predicted at the same x_t, while the code predicts them at two,
from two encodings of a picture.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.denoising import Denoising
from ..training.objectives.wrong_noise import WrongNoise
from ..training.states.pictures import Pictures
from ..training.updates.saliency import GuidedDenoising
from ..training.updates.salient import Salient
from .base import ImageMethod
from .states import build_forget_pictures, build_remain_pictures


@final
@dataclass(frozen=True, kw_only=True)
class SalUn(ImageMethod):
    """Trains pictures of the target under another label, and changes only the weights that are most salient for
    them."""

    uses_anchor: ClassVar[bool] = True
    weights: str = "full"
    """Which weights may change: subsets or regular expressions, comma-separated."""
    steps: int = 100
    """Number of updates of the weights."""
    batch: int = 8
    """Batch size: rows of each loss term in an update."""
    alpha: float = 0.1
    """Weight of the loss on pictures that remain."""
    share: float = 0.5
    """Share of the weights that may change, the most salient ones."""
    saliency_guidance: float = 7.5
    """Guidance of the denoising loss whose gradient over the forget set is the saliency."""
    looks: int = 0
    """Ours: batches of the random-label loss that saliency is summed over instead; 0 is the published saliency."""

    def __post_init__(self) -> None:
        ImageMethod.__post_init__(self)
        if self.looks < 0:
            raise ValueError(f"looks must be at least 0, got {self.looks}")

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        source, captions = build_remain_pictures(self, model, erasure)
        others = [t.format(erasure.anchor) for t in self.templates] if erasure.anchor else captions
        return (
            WrongNoise(build_forget_pictures(self, model, erasure), others, "label", self.space),
            Denoising(source, self.space, "keep", captions),
        )

    def build_update(self) -> Update:
        return Salient(self.weights, self.lr, self.share, self.looks or 1)

    def fit_update(self, update: Update, terms: Sequence[Term]) -> Update:
        """The same choice of weights, ranked by the forget pictures that the objective holds."""
        forget = next(term.source for term in terms if isinstance(term, WrongNoise))
        if self.looks or not isinstance(forget, Pictures):
            return update
        return Salient(self.weights, self.lr, self.share, 0, GuidedDenoising(forget, self.saliency_guidance))

    def build_balance(self) -> Balance:
        return Sum(keep=self.alpha)
