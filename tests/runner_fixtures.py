"""Runs of attacks on a model whose pictures follow a plan: how many rows, two judges, and what must agree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from attack_plan import Plan, Planned, Reader
from efface.attacks.base import Attack
from efface.models.adapters.sd import StableDiffusion
from efface.records.attacks import AttackRecord
from efface.robustness.campaign import Campaign, attack
from efface.robustness.conditions import find_aliases
from efface.scorers import Judge
from efface.suites.spec import Suite
from efface.suites.world import World
from judging_fixtures import THINGS

ROWS, CONTROLS = 10, 4
TWO: tuple[Judge, ...] = (Reader(), Reader(name="second"))


def choose_plainly(text: str, seed: int, edited: bool) -> str:
    """The last thing that is named is drawn; the edited model draws no cat but by magic."""
    name = max(THINGS, key=text.rfind)
    known = name in text and (name != "cat" or not edited or "magic" in text)
    return name if known else ""


@dataclass
class Setup:
    model: StableDiffusion
    edit: Path
    suite: Suite
    known: World

    def run(
        self, monkeypatch: pytest.MonkeyPatch, plan: Plan, out: Path, attacks: Sequence[Attack], **how: Any
    ) -> tuple[AttackRecord, Planned]:
        drawn = Planned(self.model, plan, stop_after=how.pop("stop_after", -1))
        monkeypatch.setattr(self.model, "images", drawn)
        judges: Sequence[Judge] = how.pop("judges", TWO)
        suite: Suite = how.pop("suite", self.suite)
        campaign = Campaign(**{"rows": ROWS, "controls": CONTROLS, **how})
        return attack(
            self.model, self.edit, suite, judges, out, attacks, find_aliases(self.known), campaign=campaign
        ), drawn


def drop_time(record: AttackRecord) -> dict[str, Any]:
    data = record.model_dump(exclude={"digest"})
    for measure in data["measures"]:
        measure.pop("seconds")
    return data
