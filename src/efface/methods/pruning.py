"""The base of methods that learn a pruning mask: the mask's settings (pruning for robust erasing, arXiv 2405.16534)."""

from __future__ import annotations

from dataclasses import dataclass

from ..concept import Erasure
from ..edits.edit import Edit
from ..training.interfaces import Update
from ..training.updates.mask import Mask, Relaxation, check_reach, require_pruned
from .base import TrajectoryMethod


@dataclass(frozen=True, kw_only=True)
class Pruning(TrajectoryMethod):
    """A method that learns which weights to prune, with the settings of the mask."""

    lr: float = 5e-2
    """Adam's learning rate for the logits; a weight is pruned if its logit moves from `start` to below 0."""
    relaxation: Relaxation = "straight-through"
    """How the mask is learned: straight-through sigmoid, or hard-concrete samples."""
    tau: float = 1.0
    """Temperature of the relaxation."""
    start: float = 4.0
    """Initial logit of every weight; at 4 its chance to be kept, sigmoid(4), is 98 %."""
    beta: float = 1e-2
    """Weight of the share of pruned weights in the loss."""
    sparsity: float = 0.0
    """Prune exactly this share of the selected weights, those with the smallest logits; 0 prunes every weight with a
    negative logit."""
    fill: float = 0.0
    """Noise that replaces pruned weights, in units of each tensor's standard deviation; zeros would reveal which
    weights were pruned."""

    def __post_init__(self) -> None:
        TrajectoryMethod.__post_init__(self)
        check_reach(self.steps, self.lr, self.start, self.sparsity)

    def finish(self, edit: Edit, erasure: Erasure) -> Edit:
        return require_pruned(edit, self.steps, self.lr, self.beta)

    def build_update(self) -> Update:
        return Mask(self.weights, self.lr, self.relaxation, self.tau, self.start, self.sparsity, self.fill)
