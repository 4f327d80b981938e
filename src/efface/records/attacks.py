"""What attacks leave: `attacks.json`, versioned and validated."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from .report import Alarm, Drawing, Drop, Estimate, Part, SuitePart

FORMAT_VERSION = 2
FILE = "attacks.json"
Condition = Literal["target", "control-base", "control-kept"]
"""The erased concept under the edit; the same on the untouched base, its name removed from the prompts; a kept concept
under the edit, its name removed."""


class RowResult(Part):
    """What one attack did on one row."""

    row: str
    broken: bool | None
    """Whether a picture convinced every judge; None where none did and one could not be judged."""
    queries: int
    """Pictures drawn, the successful one included."""
    unscored: int = 0
    """Of them, those that could not be judged."""
    text: str = ""
    """The prompt of the success, as drawn."""
    seed: int = 0
    note: str = ""
    """Where in the attack it stood."""
    answers: dict[str, str] = Field(default_factory=dict)
    """What each judge said of it."""
    picture: str = ""
    """Its file, relative to the evaluation's folder; of plain prompts also where nothing was seen."""
    tensors: str = ""
    """The file of its embedding or start latents, where it has any."""


class AttackSuccess(RowResult):
    """A success, with what was asked."""

    attack: str
    condition: Condition
    prompt: str
    """The prompt before the attack."""
    before: str
    """The picture of that prompt before the attack, relative to the evaluation's folder."""


class ConditionSummary(Part):
    """Where attacks were made, and what was seen there before any."""

    condition: Condition
    title: str
    concepts: tuple[str, ...]
    rows: int
    untouched: Estimate
    """Share of the rows, as the suite has them, that show the concept when the untouched base draws them."""
    named: Estimate
    """The same share, drawn by what is attacked here."""
    before: Estimate
    """Share that shows it before any attack: in the controls the name is removed from the prompts."""


class AttackMeasure(Part):
    """One attack on one ground."""

    attack: str
    version: str
    threat: str
    settings: dict[str, Any]
    condition: Condition
    worst_case: bool
    """Whether it was made only on rows that no earlier attack broke."""
    before: Estimate
    """Share shown before any attack."""
    after: Estimate
    """Attack success rate: (shown before + broken by the attack) / rows, UnlearnDiffAtk's definition."""
    baseline: Estimate
    """The same of random prefixes on the same rows, with as many queries; where pictures are handed in, of these or of
    the attack with pictures of another thing, whichever shows the concept."""
    lift: Drop | None
    """Attack minus floor, paired by row; the interval resamples rows."""
    intact: Estimate | None = None
    """Of an attack that only undoes an edit: share of kept concepts that its model shows when asked by name."""
    curve: tuple[float, ...]
    """Attack success rate after 0, 1, 2 … queries."""
    stages: tuple[str, ...] = ()
    """What each query was ("20 steps"), where every one was a setting of its own."""
    queries: float
    """Mean pictures drawn for a row that was attacked."""
    drawn: int
    """Pictures drawn in all."""
    unscored: int
    """Of them, those that could not be judged."""
    seconds: float
    missing: str = ""
    """Why there is no value, where there is none."""


class AttackRecord(Part):
    """`attacks.json`."""

    format: Literal["efface-attacks"]
    version: int
    targets: tuple[str, ...]
    method: str
    arguments: dict[str, Any]
    suite: SuitePart
    drawing: Drawing
    scorers: dict[str, dict[str, str]]
    rule: str
    seed: int
    robust: Estimate
    """Share of the rows that nothing broke: not the plain prompt, no attack, not the floor."""
    conditions: tuple[ConditionSummary, ...]
    measures: tuple[AttackMeasure, ...]
    successes: tuple[AttackSuccess, ...]
    alarms: tuple[Alarm, ...]

    def find(self, attack: str, condition: Condition = "target") -> AttackMeasure | None:
        return next((t for t in self.measures if (t.attack, t.condition) == (attack, condition)), None)


def read(folder: Path) -> AttackRecord | None:
    """Read the `attacks.json` of an evaluation's folder; None where there is none.

    Raises:
        ValueError: it was written by a version that this one does not know, or is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        return parse(json.loads(path.read_text(encoding="utf-8")))
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise ValueError(f"{path} is damaged ({str(error).splitlines()[0]}); run the attacks again") from error
    except ValueError as error:
        raise ValueError(f"{path} is {error}") from error


def parse(data: Any) -> AttackRecord:
    """The record of a file's contents, of this version or of an older one.

    Raises:
        ValueError: of a version that this one does not know; pydantic's ValidationError: damaged.
    """
    version = data.get("version") if isinstance(data, dict) else None
    if version == 1:
        data = upgrade(data)
    elif version != FORMAT_VERSION:
        raise ValueError(f"of version {version}; this efface reads versions 1 to {FORMAT_VERSION}")
    return AttackRecord.model_validate(data)


KEYS = {"where": "condition", "survivors": "worst_case", "floor": "baseline", "gain": "lift"}
"""Names of version 1, and what they are called now."""
CONDITIONS: Mapping[str, Condition] = {"edited": "target", "base": "control-base", "kept": "control-kept"}


def upgrade(data: Mapping[str, Any]) -> dict[str, Any]:
    """Contents of a file of version 1, with the names and values of this one; what is damaged stays as it is."""
    parts = {"grounds": "conditions", "trials": "measures", "successes": "successes"}
    found = {key: value for key, value in data.items() if key not in parts}
    for old, new in parts.items():
        if isinstance(entries := data.get(old), list):
            found[new] = [_upgrade_part(each) if isinstance(each, dict) else each for each in entries]
    return {**found, "version": FORMAT_VERSION}


def _upgrade_part(part: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {KEYS.get(key, key): value for key, value in part.items()}
    return {**renamed, "condition": CONDITIONS.get(part.get("where", ""), part.get("where"))}
