"""The protocol of a grid for attacks, audits and neurons, which know no protocols: its judges, steps and guidance.

As in `efface.evaluate`, they stand in for what the grid leaves open, on models that come without a world of their own.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from .grid import Grid

if TYPE_CHECKING:
    from ..evaluation.protocols import Protocol


def choose_scorers(grid: Grid, model: str) -> tuple[str, ...]:
    """The grid's scorers, else its protocol's; none where those that come with the model are taken."""
    if grid.scorers:
        return grid.scorers
    rules = _find_rules(grid.protocol, model)
    return (*rules.judges, *rules.scorers) if rules else ()


def choose_drawing(grid: Grid, model: str) -> dict[str, Any]:
    """The grid's steps and guidance, else its protocol's; None where the model's own are taken."""
    rules = _find_rules(grid.protocol, model)
    own = {"steps": grid.drawing.steps, "guidance": grid.drawing.guidance}
    return {key: getattr(rules, key) if value is None and rules else value for key, value in own.items()}


@functools.cache
def _find_rules(protocol: str, model: str) -> Protocol | None:
    """The protocol, if the grid has one and the model comes without a world."""
    from ..api.resources import find_bundle
    from ..evaluation.protocols import find_protocol

    return find_protocol(protocol) if protocol and find_bundle(model) is None else None
