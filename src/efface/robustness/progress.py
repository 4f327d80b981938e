"""How far a whole campaign of attacks is, beside how far each attack is."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.evaluate import Progress
from ..records.attacks import PlannedAttack

ALL = "all attacks, prompts"


class CampaignProgress:
    """Passes on what is told of each attack, and tells of all of them together: prompts dealt with, of those planned.

    Args:
        report: called with a stage's name, what is done, and of how much; None for nobody.
    """

    def __init__(self, report: Progress | None) -> None:
        self.report: Progress = report or (lambda stage, done, total: None)
        self.total = 0
        self.done: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.report(stage, done, total)
        if self.total and not stage.startswith("plain,"):
            self.done[stage] = done
            self.report(ALL, min(sum(self.done.values()), self.total), self.total)

    def expect(self, planned: Sequence[PlannedAttack]) -> None:
        """The attacks that will be made; prompts that show the concept by themselves are dealt with without one."""
        self.total = sum(each.rows for each in planned)
        self.report(ALL, 0, self.total)

    def finish(self) -> None:
        """All of them are made."""
        self.report(ALL, self.total, self.total)
