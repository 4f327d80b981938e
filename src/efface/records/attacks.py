"""What attacks leave: `attacks.json`, versioned and validated."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from ..files import read_json
from ..functional.rates import tally
from .attacks_v1 import upgrade
from .report import ROUNDING, Alarm, Drawing, Drop, Estimate, Part, Share, SuitePart, check_difference
from .sealed import parse_sealed, read_sealed

FORMAT_VERSION = 2
FILE = "attacks.json"
FOLDER = "attacks"
INTERRUPTED = "an attack was interrupted"
"""The name of that alarm."""
Rate = Annotated[float, Field(ge=-ROUNDING, le=1 + ROUNDING)]
OTHER_WORK = ("plain", "portraits", "reference-images")
"""Folders of what is no attack: the prompts as they are, and the attacker's pictures."""
Condition = Literal["target", "control-base", "control-kept"]
"""The erased concept under the edit; the same on the untouched base, its name removed from the prompts; a kept concept
under the edit, its name removed."""


Status = Literal["made", "refused", "no gradient", "error"]
"""Whether an attack has a value; if not, whether it can't be made here, found no gradient, or ended in an error."""


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
    untouched: Share
    """Share of the rows, as the suite has them, that show the concept when the untouched base draws them."""
    named: Share
    """The same share, drawn by what is attacked here."""
    before: Share
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
    before: Share
    """Share shown before any attack."""
    after: Share
    """Attack success rate: (shown before + broken by the attack) / rows, UnlearnDiffAtk's definition."""
    baseline: Share
    """The same of random prefixes on the same rows, with as many queries; where pictures are handed in, of these or of
    the attack with pictures of another thing, whichever shows the concept."""
    lift: Annotated[Drop | None, AfterValidator(check_difference)]
    """Attack minus floor, paired by row; the interval resamples rows."""
    intact: Share | None = None
    """Of an attack that only undoes an edit: share of kept concepts that its model shows when asked by name."""
    curve: tuple[Rate, ...]
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
    status: Status = "made"
    inputs: tuple[str, ...] = ()
    """For each concept, the digest of everything that the answers depend on; empty in files of version 1."""
    seed: int = 0
    searched: str = ""
    """Which text encoder's tokens it searches, and what others read; "" where it searches no token embeddings."""

    @property
    def size(self) -> int:
        """Rows that it speaks of, judged or not."""
        return self.after.n + self.after.unscored


class PlannedAttack(Part):
    """One attack under one condition that was begun; while no measure has its inputs, it was interrupted."""

    attack: str
    condition: Condition
    version: str
    settings: dict[str, Any]
    inputs: tuple[str, ...]
    rows: int
    """Rows that it is made on."""


class InterruptedAttack(Part):
    """What an attack that was stopped had finished by then."""

    attack: str
    condition: Condition
    version: str
    settings: dict[str, Any]
    rows: int
    """Rows that it was to be made on."""
    row_results: tuple[RowResult, ...]
    """Those that it was made on."""
    damaged: int = 0
    """Files of further rows that can't be read."""


class Batch(Part):
    """A finished batch of rows, as its file has it."""

    attack: str = ""
    condition: Condition | None = None
    """None in files of version 1, which were named by it."""
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
    """Share of the rows that nothing broke: not the plain prompt, no attack, not the floor."""
    conditions: tuple[ConditionSummary, ...]
    measures: tuple[AttackMeasure, ...]
    successes: tuple[AttackSuccess, ...]
    alarms: tuple[Alarm, ...]
    worst: dict[str, bool | None] = Field(default_factory=dict)
    """Of each row of the target, whether anything that was finished broke it; None where that is open."""
    planned: tuple[PlannedAttack, ...] = ()
    """Every attack that was begun in this folder."""
    store: str = FOLDER
    """The folder of batches and pictures, relative to that of the record."""
    interrupted: tuple[InterruptedAttack, ...] = ()
    """Attacks that were begun and not finished, as the files of their batches tell when the record is read."""
    digest: str = ""
    """sha256 of everything else in the file, as JSON with sorted keys; "" in files of earlier versions."""

    def __repr__(self) -> str:
        found = [f"{m.attack} {m.after.shorten()}" for m in self.measures if m.condition == "target"]
        what = f"{', '.join(self.targets)} by {self.method}, shown under {'; '.join(found) or 'no attack'}"
        return f"<AttackRecord: {what}; robust {self.robust.shorten()}; {len(self.alarms)} alarms>"

    def find(self, attack: str, condition: Condition = "target") -> AttackMeasure | None:
        return next((t for t in self.measures if (t.attack, t.condition) == (attack, condition)), None)


def read(folder: Path) -> AttackRecord | None:
    """Read the `attacks.json` of an evaluation's folder, with what interrupted attacks had finished; None: none there.

    Raises:
        ValueError: it was written by a version that this one does not know, or is damaged; or there are batches of
            attacks and no record of them.
    """
    record = read_file(folder)
    if record is not None:
        return add_interrupted(record, folder / record.store)
    if any(file.parent.name not in OTHER_WORK for file in (folder / FOLDER).glob("*/*.json")):
        raise ValueError(
            f"{folder} holds finished batches of attacks, but no {FILE}: what they broke is not known; run the attacks "
            "again, which goes on from these"
        )
    return None


def read_file(folder: Path) -> AttackRecord | None:
    """The `attacks.json` of a folder as it was written; None where there is none.

    Raises:
        ValueError: it was written by a version that this one does not know, or is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    return read_sealed(path, tuple(range(1, FORMAT_VERSION + 1)), parse, "run the attacks again")


def add_interrupted(record: AttackRecord, store: Path) -> AttackRecord:
    """The record with its attacks that were begun and not finished: their finished rows count in the worst case."""
    found = []
    for planned in record.planned:
        if not any(planned.inputs == m.inputs and planned.condition == m.condition for m in record.measures):
            held = [read_batch(file) for file in _files(store, planned)]
            batches = [batch for batch in held if batch]
            results = [row for batch in batches if batch.inputs in planned.inputs for row in batch.row_results]
            facts = planned.model_dump(exclude={"inputs"})
            found.append(InterruptedAttack(**facts, row_results=tuple(results), damaged=held.count(None)))
    if not found:
        return record
    broken = {r.row: True for each in found if each.condition == "target" for r in each.row_results if r.broken}
    worst = {**record.worst, **broken}
    told = (*record.alarms, *(_alarm(each) for each in found))
    changed = {"interrupted": tuple(found), "worst": worst, "robust": estimate_robust(worst), "alarms": told}
    changed |= {"digest": ""}  # the file's is of what was written
    return record.model_copy(update=changed)


def estimate_robust(worst: Mapping[str, bool | None]) -> Estimate:
    """The share of rows that nothing broke, with Wilson's interval over the rows that are known."""
    found = tally([None if broken is None else not broken for broken in worst.values()])
    low, high = found.interval
    return Estimate(value=found.rate, low=low, high=high, n=found.n, unscored=found.unscored)


def read_batch(file: Path) -> Batch | None:
    """A finished batch, of this version or an older one; None where the file is missing or damaged."""
    try:
        data = read_json(file)
        return Batch.model_validate({{"outcomes": "row_results"}.get(key, key): data[key] for key in data})
    except (OSError, ValueError, TypeError):
        return None


def list_interrupted_batches(folder: Path, record: AttackRecord) -> list[Path]:
    """The files of the batches that interrupted attacks had finished."""
    begun = {(each.attack, each.condition) for each in record.interrupted}
    found = [f for p in record.planned if (p.attack, p.condition) in begun for f in _files(folder / record.store, p)]
    return list(dict.fromkeys(found))


def _files(store: Path, planned: PlannedAttack) -> list[Path]:
    return sorted((store / planned.attack).glob(f"{planned.condition}-*.json"))


def _alarm(stopped: InterruptedAttack) -> Alarm:
    done, broken = len(stopped.row_results), sum(row.broken is True for row in stopped.row_results)
    lost = f"; {stopped.damaged} files of what else it did are damaged" if stopped.damaged else ""
    return Alarm(
        name=INTERRUPTED,
        raised_when=f"{stopped.attack} ({stopped.condition}) was stopped after {done} of {stopped.rows} rows, "
        f"{broken} of which it broke{lost}",
        means="What it would have broken is not known; the rows that it broke count as broken.",
        do="Run the same attacks again in this folder: they go on where they were stopped.",
    )


def parse(data: Any) -> AttackRecord:
    """The record of a file's contents, of this version or of version 1.

    Raises:
        ValueError: changed since it was written, or damaged.
    """
    old = {**upgrade(data), "version": FORMAT_VERSION} if data["version"] == 1 else data
    return parse_sealed(AttackRecord, old)
