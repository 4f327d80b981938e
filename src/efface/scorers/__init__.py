"""Scorers, one file each: what looks at pictures and says one thing of each, or one thing of a whole set."""

from .base import Checked, Detector, Score, Scorer, SetScorer
from .build import Judge, build_scorers, names

__all__ = ["Checked", "Detector", "Judge", "Score", "Scorer", "SetScorer", "build_scorers", "names"]
