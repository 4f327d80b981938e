"""The settings of a training, apart from those of its objective, preservation, balance and update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final


@final
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings that the training loop, the terms, the sources and the updates read.

    A method builds it (`Trained.train_config`). The method's own arguments, which the Edit records, are kept beside it.
    """

    steps: int
    """Steps of the weights. Other learners, such as a search over words, take theirs in between."""
    batch: int
    """Rows of each term in a step."""
    draw_steps: int
    """Sampling steps of each trajectory and picture that the model draws to train on."""
    templates: Sequence[str] = ("{}",)
    """Prompts around a concept, each with one "{}"; every row of a step takes one at random."""
    seed: int = 0
    """Seed of everything that is drawn at random."""
    micro_batch: int = 0
    """Rows at once in the student's pass, whose activations are recomputed in the backward pass; 0 is all rows."""
    moments: Literal[32, 8] = 32
    """Bits of each of Adam's two moments."""
