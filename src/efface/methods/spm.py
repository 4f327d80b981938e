"""SPM: One-dimensional Adapter to Rule Them All (Lyu et al., CVPR 2024, arXiv 2312.16145).

    L = || eps_spm(x_t, c) - [eps*("") - eta (eps*(c) - eps*(""))] ||^2
        + la_strength || eps_spm(x_t, c_s) - eps*(x_t, c_s) ||^2

eps_spm has rank-1 adapters, W + up down, in all linear layers and 1x1 convolutions of the U-Net's transformers (the
authors' `Transformer2DModel`); `--weights "unet\\..*\\.(attentions|resnets)\\."` takes those of the resnets too. c_s
are words, which are drawn the less often the more similar they are to c ("latent anchoring", the authors' `action:
erase_with_la`, `sampling_batch_size` 4), at the same x_t. While pictures are drawn, a gate weighs the adapters by the
similarity of prompt and targets ("facilitated transport", `efface.guidance.gate`): by gamma, as in the paper's formula,
or with `--transport release` by gamma^2, as in the release, which multiplies both factors of an adapter. `--no-gate`
leaves a low-rank edit without a gate, which can be exported. As in the release, x_t is drawn in 30 steps, and `down`
starts uniform with variance 1 / (3 in).

This differs from the release in four points. It uses Adam at a constant rate, the release AdamW in 8 bits with warm-up
and cosine restarts. c_s are words, theirs are Gaussian. Several targets share their adapters. All pictures have one
size, theirs have sizes drawn at random.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, final

from ..concept import Erasure
from ..edits.edit import Edit
from ..models.base import Model
from ..training.balance.sum import Sum
from ..training.interfaces import Balance, Term, Update
from ..training.objectives.negative_guidance import NegativeGuidance
from ..training.preservation.anchoring import Anchoring
from ..training.states.shared import Shared
from ..training.subsets import select
from ..training.updates.lowrank import LowRank
from .base import Method, TrajectoryMethod
from .guided import add_gate
from .states import build_target_trajectories


@final
@dataclass(frozen=True, kw_only=True)
class SPM(TrajectoryMethod):
    """Trains rank-1 adapters by ESD's loss and preserves random words; a gate lets the adapters act as far as a prompt
    is similar to the target."""

    needs_uncond: ClassVar[bool] = True
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "pixart")
    unserved: ClassVar[Mapping[str, str]] = {
        "flow": "its gate and its anchoring words compare one sequence of tokens, and these prompts are several parts"
    }
    uses_keep: ClassVar[bool] = True
    weights: str = "transformers"
    """Which weights have adapters: subsets or regular expressions, comma-separated; vectors have none."""
    steps: int = 3000
    """Number of updates of the adapters."""
    lr: float = 1e-4
    """Adam's learning rate for the adapters."""
    eta: float = 1.0
    """Strength of negative guidance: how far beyond the unconditional prediction the target is pushed."""
    draw_steps: int = 30
    """Sampling steps of the trajectories or pictures that the model draws to train on."""
    rank: int = 1
    """Rank of each adapter."""
    la_strength: float = 1000.0
    """Weight of the loss on the anchoring words."""
    anchors: int = 4
    """Number of anchoring words for each row."""
    anchor_words: int = 1000
    """Number of words of the model's vocabulary, the most common first, that may anchor beside the concepts to keep."""
    gate: bool = True
    """Weigh the adapters by each prompt while drawing; without a gate the edit changes weights for every prompt."""
    transport: Literal["paper", "release"] = "paper"
    """The factor of the adapters while drawing: gamma, the similarity of the prompt (paper), or its square
    (release)."""

    def __post_init__(self) -> None:
        TrajectoryMethod.__post_init__(self)
        if self.transport not in ("paper", "release"):
            raise ValueError(f"no transport {self.transport!r}; there are paper (gamma), release (gamma squared)")

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Checks as every method does, and that the gate's layers belong to the denoiser."""
        Method.check(self, erasure, model)
        names = select(model.weights, self.weights) if model is not None and self.gate else ()
        inside = model.denoiser if model is not None else ""
        if other := [name for name in names if not name.startswith(f"{inside}.")]:
            raise ValueError(f"the gate weighs layers of the denoiser, {other[0]!r} is none; choose others, or no gate")

    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        source = Shared(build_target_trajectories(self, erasure))
        words = [*erasure.keep, *model.list_words(self.anchor_words)]
        return (
            NegativeGuidance(source, self.eta, self.space),
            Anchoring(source, words, self.anchors, self.space),
        )

    def build_update(self) -> Update:
        return LowRank(self.weights, self.lr, self.rank, "uniform")

    def build_balance(self) -> Balance:
        return Sum(keep=self.la_strength)

    def leaves_weights(self) -> bool:
        """With the gate, which needs each prompt; without it the adapters are a change of weights."""
        return self.gate

    def finish(self, edit: Edit, erasure: Erasure) -> Edit:
        """Puts the gate before the trained adapters."""
        return add_gate(edit, erasure.targets, 2 if self.transport == "release" else 1) if self.gate else edit
