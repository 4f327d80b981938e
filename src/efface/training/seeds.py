"""Where the seeds lie of what a training draws: far above those of evaluations, and apart for each kind.

They are part of what makes an edit: with others, the same training ends in other weights.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["trajectories", "pictures", "conditions", "saliency", "stereo"]
FIRST: dict[Kind, int] = {
    "trajectories": 2**40,
    "pictures": 2**41,
    "conditions": 2**42,
    "saliency": 2**43,  # of generators, not of start noises
    "stereo": 2**43,
}
APART = 1_000_003
"""The distance between the first seeds of a training and of the training with the next seed."""
NOISE_SEEDS = 2**31
"""The seeds of start noises that a step draws lie below this."""


def find_first_seed(kind: Kind, training: int) -> int:
    """The first seed of a kind in the training with this seed, which takes those that follow."""
    return FIRST[kind] + training * APART
