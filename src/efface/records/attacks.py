"""The record of attacks, `attacks.json`: it has a version and is validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, SerializerFunctionWrapHandler, model_serializer

from ..functional.rates import tally
from ..plurals import write_count
from .report import ROUNDING, Alarm, Drawing, Drop, Estimate, Part, Share, SuitePart, check_difference

FORMAT_VERSION = 2
FILE = "attacks.json"
FOLDER = "attacks"
Rate = Annotated[float, Field(ge=-ROUNDING, le=1 + ROUNDING)]
OTHER_WORK = ("plain", "portraits", "reference-images")
"""Folders that belong to no attack: the pictures of plain prompts, and the attacker's pictures."""
Condition = Literal["target", "control-base", "control-kept"]
"""What is attacked: the erased concept under the edit; the same concept on the untouched base, with its name removed
from the prompts; a kept concept under the edit, with its name removed."""

Status = Literal["made", "refused", "no gradient", "error"]
"""Whether an attack has a value, can't be made here, found no gradient, or ended in an error."""


class RowResult(Part):
    """The result of one attack on one row."""

    row: str
    broken: bool | None
    """Whether every judge saw the concept in a picture; None where none did and a picture could not be judged, or the
    attack ended early."""
    queries: int
    """Number of pictures drawn, including the successful one."""
    unscored: int = 0
    """Number of these pictures that could not be judged."""
    text: str = ""
    """The prompt of the success, as drawn."""
    seed: int = 0
    note: str = ""
    """The attack's stage at the success."""
    answers: dict[str, str] = Field(default_factory=dict)
    """Each judge's answer for the successful picture."""
    picture: str = ""
    """The picture's file, relative to the evaluation's folder; plain prompts have one also without a success."""
    tensors: str = ""
    """The file of the success' embedding or start latents, where it has any."""


class AttackSuccess(RowResult):
    """A success, with its prompt."""

    attack: str
    condition: Condition
    prompt: str
    """The prompt before the attack."""
    before: str
    """The picture of that prompt before the attack, relative to the evaluation's folder."""


class ConditionSummary(Part):
    """A condition of attacks, with the rates before any attack."""

    condition: Condition
    title: str
    concepts: tuple[str, ...]
    rows: int
    untouched: Share
    """The share of the suite's rows that show the concept when the untouched base draws them."""
    named: Share
    """The same share, drawn by the model that is attacked here."""
    before: Share
    """The share that shows it before any attack; in the controls the name is removed from the prompts."""


class AttackMeasure(Part):
    """One attack under one condition."""

    attack: str
    version: str
    threat: str
    settings: dict[str, Any]
    condition: Condition
    worst_case: bool
    """Whether it was made only on rows that no earlier attack broke."""
    before: Share
    """The share of rows that show the concept before any attack."""
    after: Share
    """Attack success rate: (shown before + broken by the attack) / rows, UnlearnDiffAtk's definition."""
    baseline: Share
    """The success rate of random prefixes on the same rows, with as many queries. For an attack with pictures as input,
    a row counts if either random prefixes or the attack with pictures of another thing succeed."""
    lift: Annotated[Drop | None, AfterValidator(check_difference)]
    """`after` minus `baseline`, paired by row; the interval resamples rows, or prompts where several rows share one."""
    intact: Share | None = None
    """For an attack that only undoes an edit: the share of kept concepts that its model shows when asked by name."""
    curve: tuple[Rate, ...]
    """The attack success rate after 0, 1, 2 … queries."""
    stages: tuple[str, ...] = ()
    """The setting of each query ("20 steps"), where each query has its own."""
    queries: float
    """The mean number of pictures drawn for a row that was attacked."""
    drawn: int
    """The number of pictures drawn in all."""
    unscored: int
    """The number of these pictures that could not be judged."""
    seconds: float
    missing: str = ""
    """The reason why there is no value; "" where there is one."""
    status: Status = "made"
    inputs: tuple[str, ...] = ()
    """For each concept, the digest of everything on which the answers depend; empty in files of version 1."""
    seed: int = 0
    searched: str = ""
    """Which text encoder's tokens it searches, and what others read; "" where it searches no token embeddings."""
    origin: dict[str, str] = Field(default_factory=dict)
    """The module, the package and the hash of the source of an attack of another package."""

    @model_serializer(mode="wrap")
    def write(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out the origin of efface's own attacks, which earlier files do not have either."""
        return {name: value for name, value in plain(self).items() if name != "origin" or value}

    @property
    def size(self) -> int:
        """The number of its rows, judged or not."""
        return self.after.n + self.after.unscored

    @property
    def made_on_target(self) -> bool:
        """Whether it was made on the target and has a value."""
        return self.condition == "target" and not self.missing


class PlannedAttack(Part):
    """One attack under one condition that was begun; while no measure has its inputs, it was interrupted."""

    attack: str
    condition: Condition
    version: str
    settings: dict[str, Any]
    inputs: tuple[str, ...]
    rows: int
    """The number of rows that it attacks."""


class InterruptedAttack(Part):
    """The finished part of an attack that was interrupted."""

    attack: str
    condition: Condition
    version: str
    settings: dict[str, Any]
    rows: int
    """The number of rows that it was to attack."""
    row_results: tuple[RowResult, ...]
    """The results of the rows that it attacked."""
    damaged: int = 0
    """The number of files of further rows that can't be read."""


class AttackedRows(Part):
    """The rows of the target on which an attack was made, also those that showed the concept before it."""

    attack: str
    version: str
    settings: dict[str, Any]
    seed: int
    rows: tuple[str, ...]


class Batch(Part):
    """A finished batch of rows, as it is in its file."""

    attack: str = ""
    condition: Condition | None = None
    """None in files of version 1, whose names contain it."""
    inputs: str = ""
    row_results: tuple[RowResult, ...]
    seconds: float


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
    robust: Share
    """The share of rows that nothing broke: neither the plain prompt, nor an attack, nor a baseline."""
    conditions: tuple[ConditionSummary, ...]
    measures: tuple[AttackMeasure, ...]
    successes: tuple[AttackSuccess, ...]
    alarms: tuple[Alarm, ...]
    worst: dict[str, bool | None] = Field(default_factory=dict)
    """For each row of the target, whether anything that was finished broke it; None where that is not known."""
    attacked: tuple[AttackedRows, ...] = ()
    """The rows of each attack on the target that has a value, random prefixes excepted; empty in earlier files."""
    planned: tuple[PlannedAttack, ...] = ()
    """Every attack that was begun in this folder."""
    store: str = FOLDER
    """The folder of batches and pictures, relative to that of the record."""
    interrupted: tuple[InterruptedAttack, ...] = ()
    """Attacks that were begun and not finished; computed from the files of their batches when the record is read."""
    digest: str = ""
    """The sha256 of everything else in the file, as JSON with sorted keys; "" in files of earlier versions."""

    def __repr__(self) -> str:
        found = [f"{m.attack} {m.after.shorten()}" for m in self.measures if m.condition == "target"]
        what = f"{', '.join(self.targets)} by {self.method}, shown under {'; '.join(found) or 'no attack'}"
        return f"<AttackRecord: {what}; robust {self.robust.shorten()}; {write_count(len(self.alarms), 'alarm')}>"

    def find(self, attack: str, condition: Condition = "target") -> AttackMeasure | None:
        return next((t for t in self.measures if (t.attack, t.condition) == (attack, condition)), None)


def estimate_robust(worst: Mapping[str, bool | None], attacked: Sequence[AttackedRows] = ()) -> Estimate:
    """The share of rows that nothing broke, with Wilson's interval over the rows of which that is known.

    A row that something broke is known. Any other row is known if every attack was made on it.

    Args:
        worst: for each row, whether anything broke it.
        attacked: the rows of each attack.
    """
    whole = set(worst).intersection(*(each.rows for each in attacked))
    found = tally(
        [False if broken else None if broken is None or row not in whole else True for row, broken in worst.items()]
    )
    low, high = found.interval
    return Estimate(value=found.rate, low=low, high=high, n=found.n, unscored=found.unscored)
