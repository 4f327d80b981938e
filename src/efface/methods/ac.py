"""AC: Ablating Concepts (Kumari et al., ICCV 2023, arXiv 2303.13516).

The model-based loss is || eps_th(x_t, c_e) - sg eps_th(x_t, c_anchor) ||^2 (eq. 4), the noise-based one is ||
eps_th(x_t, c_e) - eps ||^2 (eq. 5). The states x_t are noised pictures of the anchor, which the model draws (1,000 in
the authors' code). Defaults are those of the code for styles and objects: it trains keys and values by 200 updates of
batch 4 at a learning rate of 2e-6 x 4 (its --scale_lr), and the keys and values of the start token give no gradient.
`--teacher frozen` is ours; it takes the base's prediction for the anchor.

This differs from the code in three points. Its prompts are written by a language model, ours are templates. It uses
AdamW with a weight decay of 1e-2, we use Adam without decay. It augments the pictures, we do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from ..concept import Erasure
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.anchor import Anchor, Teacher
from ..training.objectives.denoising import Denoising
from ..training.states.pictures import ANY, Pictures, read_latents
from ..training.updates.dense import Dense
from .base import Trained


@final
@dataclass(frozen=True, kw_only=True)
class AC(Trained):
    """Trains the target's prompt to be drawn as the anchor, on pictures of the anchor."""

    uses_anchor: ClassVar[bool] = True
    needs_anchor: ClassVar[bool] = True
    variant: Literal["model", "noise"] = "model"
    """What is learned on the anchor's pictures under the target's prompt: the prediction for the anchor, or the true
    noise."""
    teacher: Teacher = "student"
    """Which model predicts for the anchor: the model in training without a gradient (student, as published), or the
    base (frozen, ours)."""
    detach_start: bool = True
    """Stop the gradient of the start token's keys and values, which are the same in every prompt."""
    weights: str = "xattn-strict"
    """Which weights may change: subsets or regular expressions, comma-separated."""
    steps: int = 200
    """Number of updates of the weights."""
    lr: float = 8e-6
    """Adam's learning rate for the weights."""
    batch: int = 4
    """Batch size: rows of each loss term in an update."""
    guidance: float = 6.0
    """Guidance of the anchor's pictures."""
    pictures: int = 1000
    """Number of pictures that the model draws of each anchor prompt."""
    anchor_images: str = ""
    """Folder with pictures of the anchor to use instead."""

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        given = {ANY: read_latents(model, self.anchor_images, self.batch)} if self.anchor_images else None
        source = Pictures(self.pictures, self.draw_steps, self.guidance, given)
        if self.variant == "model":
            return (Anchor(source, self.space, states="anchor", teacher=self.teacher),)
        captions = {template.format(erasure.anchor): template for template in self.templates}
        return (Denoising(source, self.space, "erase", [*captions], captions),)

    def build_update(self) -> Update:
        return Dense(self.weights, self.lr, self.detach_start)

    def build_balance(self) -> Balance:
        return Sum()
