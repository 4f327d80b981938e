"""Logs the losses of a training by step, for its checkpoint and, with fewer points, for the record of its Edit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, final

import torch
from torch import Tensor

from .interfaces import Checkpointable

POINTS = 200
"""The largest number of points of the series in the record."""
NOTE = "losses"
"""The key of the series in an Edit's metadata."""


@final
class LossLog(Checkpointable):
    """The losses of the update's steps, by role.

    The series has at most `POINTS` points: where there are more steps, a point is the mean of several steps in a row,
    and has the number of the last of them.

    Example:
        >>> log = LossLog()
        >>> for step in (1, 2, 3):
        ...     log.add(step, {"erase": 1.0 / step})
        >>> log.collect_metadata()["losses"]
        {'step': [1, 2, 3], 'erase': [1.0, 0.5, 0.333333]}
    """

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.values: dict[str, list[float]] = {}

    def add(self, step: int, losses: Mapping[str, float]) -> None:
        """Notes the losses of a step, counted from 1; a role that had no part in it has no value there."""
        for role in losses:
            self.values.setdefault(role, [math.nan] * len(self.steps))
        self.steps.append(step)
        for role, values in self.values.items():
            values.append(losses.get(role, math.nan))

    def collect_metadata(self) -> dict[str, Any]:
        """The series: `step`, and a list of the same length for each role, with None where it had no part."""
        if not self.steps:
            return {}
        size = -(-len(self.steps) // POINTS)
        parts = [slice(start, start + size) for start in range(0, len(self.steps), size)]
        series = {role: [_average(values[part]) for part in parts] for role, values in self.values.items()}
        return {NOTE: {"step": [self.steps[part][-1] for part in parts], **series}}

    def state_dict(self) -> dict[str, Tensor]:
        if not self.steps:
            return {}
        values = {role: torch.tensor(given, dtype=torch.float64) for role, given in self.values.items()}
        return {"step": torch.tensor(self.steps), **values}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores a state; that of an earlier version's checkpoint is empty, so that the series begins later."""
        self.steps = state["step"].tolist() if "step" in state else []
        self.values = {role: values.tolist() for role, values in state.items() if role != "step"}


def _average(values: list[float]) -> float | None:
    there = [value for value in values if not math.isnan(value)]
    return float(f"{sum(there) / len(there):.6g}") if there else None
