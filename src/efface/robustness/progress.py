"""The progress of a whole campaign of attacks, beside the progress of each attack."""

from __future__ import annotations

from collections.abc import Sequence

from ..evaluation.evaluate import Progress
from ..records.attacks import PlannedAttack

ALL = "all attacks, prompts"
PLAIN, CONTROL = "plain prompts", "a control of"
"""How the stages begin that are no part of all attacks: prompts that are drawn as they are, and an attack with
pictures of another concept.
"""


class CampaignProgress:
    """Passes on the progress of each attack, and reports that of all together: prompts done, of those planned.

    Args:
        report: called with a stage's name, what is done, and the total; None for no report.
    """

    def __init__(self, report: Progress | None) -> None:
        self.report: Progress = report or (lambda stage, done, total: None)
        self.total = 0
        self.done: dict[str, int] = {}

    def __call__(self, stage: str, done: int, total: int) -> None:
        self.report(stage, done, total)
        if self.total and not stage.startswith((PLAIN, CONTROL)):
            self.done[stage] = done
            self.report(ALL, min(sum(self.done.values()), self.total), self.total)

    def expect(self, planned: Sequence[PlannedAttack]) -> None:
        """Sets the attacks that will be made; prompts that already show the concept are done without an attack."""
        self.total = sum(each.rows for each in planned)
        self.report(ALL, 0, self.total)

    def finish(self) -> None:
        """Reports that all attacks are made."""
        self.report(ALL, self.total, self.total)
