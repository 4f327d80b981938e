"""What attacks leave: `attacks.json`, versioned and validated."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from ..files import read_versioned
from .report import Alarm, Drawing, Drop, Estimate, Part, SuitePart

FORMAT_VERSION = 1
FILE = "attacks.json"
Where = Literal["edited", "base", "kept"]
"""The erased concept under the edit; the same on the untouched base, its name removed from the prompts; a kept concept
under the edit, its name removed."""


class Outcome(Part):
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


class Success(Outcome):
    """A success, with what was asked."""

    attack: str
    where: Where
    prompt: str
    """The prompt before the attack."""
    before: str
    """The picture of that prompt before the attack, relative to the evaluation's folder."""


class Ground(Part):
    """Where attacks were made, and what was seen there before any."""

    where: Where
    title: str
    concepts: tuple[str, ...]
    rows: int
    untouched: Estimate
    """Share of the rows, as the suite has them, that show the concept when the untouched base draws them."""
    named: Estimate
    """The same share, drawn by what is attacked here."""
    before: Estimate
    """Share that shows it before any attack: in the controls the name is removed from the prompts."""


class Trial(Part):
    """One attack on one ground."""

    attack: str
    version: str
    threat: str
    settings: dict[str, Any]
    where: Where
    survivors: bool
    """Whether it was made only on rows that no earlier attack broke."""
    before: Estimate
    """Share shown before any attack."""
    after: Estimate
    """Attack success rate: (shown before + broken by the attack) / rows, UnlearnDiffAtk's definition."""
    floor: Estimate
    """The same of random prefixes on the same rows, with as many queries; where pictures are handed in, of these or of
    the attack with pictures of another thing, whichever shows the concept."""
    gain: Drop | None
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
    grounds: tuple[Ground, ...]
    trials: tuple[Trial, ...]
    successes: tuple[Success, ...]
    alarms: tuple[Alarm, ...]

    def find(self, attack: str, where: Where = "edited") -> Trial | None:
        return next((t for t in self.trials if (t.attack, t.where) == (attack, where)), None)


def read(folder: Path) -> AttackRecord | None:
    """Read the `attacks.json` of an evaluation's folder; None where there is none.

    Raises:
        ValueError: it was written by another version, or is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    return read_versioned(path, FORMAT_VERSION, AttackRecord.model_validate, "run the attacks again")
