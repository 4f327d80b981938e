"""Scorers, one file each: what looks at pictures and says one thing of each, or one thing of a whole set."""

from .base import Checked, Detector, Score, Scorer, SetScorer
from .build import Judge, names, panel

__all__ = ["Checked", "Detector", "Judge", "Score", "Scorer", "SetScorer", "names", "panel"]
