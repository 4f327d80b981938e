"""The settings of a training, apart from those of its objective, preservation, balance and update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, final


@final
@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The settings that the training loop, the terms, the sources and the updates read.

    A method builds it (`Trained.build_config`). The method's own arguments, which the Edit records, are kept beside it.
    """

    steps: int
    """Number of steps of the weights. Other learners, such as a search over words, take their steps in between."""
    batch: int
    """Number of rows of each term in a step."""
    draw_steps: int
    """Number of sampling steps of each trajectory and picture that the model draws to train on."""
    templates: Sequence[str] = ("{}",)
    """Prompt templates, each with one "{}" for the concept; every row of a step takes one at random."""
    seed: int = 0
    """Seed of all random choices."""
    micro_batch: int = 0
    """Number of rows that the student reads at once, with recomputed activations; 0 reads all rows in one call."""
    moments: Literal[32, 8] = 32
    """Number of bits of each of Adam's two moments."""
