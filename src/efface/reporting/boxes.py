"""Groups alarms for a page: one box for each alarm, however often it was raised, with serious ones first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..records.report import Alarm

CAUTIONS = (
    "a control could not be made",
    "an attack could not be made",
    "no kept concept to compare with",
    "one judge alone",
    "the budget is not on a plateau",
    "the plateau was not tested",
    "too few rows to check an attack",
)
"""Alarms that limit what a number says. Any other alarm puts the number itself in doubt, and is serious."""


@dataclass(frozen=True)
class AlarmBox:
    """One alarm with all cases in which it was raised."""

    name: str
    weight: Literal["serious", "caution"]
    raised: tuple[str, ...]
    means: str
    do: str


def group_alarms(alarms: Sequence[Alarm]) -> list[AlarmBox]:
    """Groups alarms by name; serious ones come before cautions, each kind in the order of its first alarm."""
    names = dict.fromkeys(alarm.name for alarm in alarms)
    found = []
    for name in names:
        own = [alarm for alarm in alarms if alarm.name == name]
        raised = tuple(dict.fromkeys(alarm.raised_when for alarm in own))
        found.append(AlarmBox(name, "caution" if name in CAUTIONS else "serious", raised, own[0].means, own[0].do))
    return sorted(found, key=lambda box: box.weight == "caution")
