"""Scorers, one file each, which give a score to each picture, or one score to a whole set of pictures."""

from .base import Checked, Detector, Score, Scorer, SetScorer
from .build import Judge, build_scorers, names

__all__ = ["Checked", "Detector", "Judge", "Score", "Scorer", "SetScorer", "build_scorers", "names"]
