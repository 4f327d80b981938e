"""The record of an evaluation: `report.json`, validated, with a version, and `rows.parquet`, with a row a picture."""

import re
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from ..files.missing import require_in
from ..files.structured import shorten
from ..plurals import write_count
from .sealed import parse_sealed, read_sealed

FORMAT_VERSION = 2
ROUNDING = 1e-9
"""How far a share may be outside 0 to 1 because of floating-point arithmetic."""


class Part(BaseModel):
    """A part of a record: it is frozen, and refuses unknown fields and NaN or infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Estimate(Part):
    """A rate or mean with its 95 % interval; `value` is None where nothing could be judged."""

    value: float | None
    low: float
    high: float
    n: int = Field(ge=0)
    unscored: int = Field(ge=0)

    def shorten(self) -> str:
        """Writes the number with its interval, with three digits each."""
        return "not judged" if self.value is None else f"{self.value:.3g} [{self.low:.3g}, {self.high:.3g}]"


def check_share(estimate: Estimate) -> Estimate:
    """Returns the estimate of a share; raises ValueError where it, or its interval, is not between 0 and 1."""
    for number in (estimate.value, estimate.low, estimate.high):
        if number is not None and not -ROUNDING <= number <= 1 + ROUNDING:
            raise ValueError(f"a share is between 0 and 1, got {number:g}")
    return estimate


Share = Annotated[Estimate, AfterValidator(check_share)]
"""An estimate that is a share of pictures or rows."""


class Drop(Part):
    """The mean of base minus edited over rows that were judged in both.

    The interval resamples whole concepts; prompts where there is one concept, and rows where there is one prompt.
    """

    value: float
    low: float
    high: float
    clusters: int


def check_difference(drop: Drop | None) -> Drop | None:
    """Returns the difference of two shares; raises ValueError where it, or its interval, is not between -1 and 1."""
    for number in (drop.value, drop.low, drop.high) if drop else ():
        if not abs(number) <= 1 + ROUNDING:
            raise ValueError(f"a difference of shares is between -1 and 1, got {number:g}")
    return drop


class Measure(Part):
    """One number of the report: its metric, its rows and its judge, with the values before and after."""

    metric: str
    title: str
    group: str
    judge: str
    base: Estimate
    edited: Estimate
    drop: Drop | None
    threshold: float | None = None
    """For a detector, the confidence from which a detection counts."""
    unit: Literal["share", "number"] = "share"
    """Whether it is a share of pictures, from 0 to 1, or another number."""

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.unit == "share":
            check_share(self.base)
            check_share(self.edited)
            check_difference(self.drop)
        return self


class Alarm(Part):
    """Something that makes the numbers less reliable than they seem."""

    name: str
    raised_when: str
    means: str
    do: str


class SuitePart(Part):
    name: str
    version: str
    licence: str
    source: str
    groups: dict[str, str]
    """The title of each group that was drawn."""


class ProtocolPart(Part):
    """The declared protocol that an evaluation followed."""

    name: str
    version: str


class Drawing(Part):
    """Everything on which the pictures depend beside prompt and seed."""

    model: str
    fingerprint: dict[str, str]
    decoder: str
    """The digest of what turns latents into pictures."""
    edit: str
    """The sha256 of the edit's file."""
    strength: float
    steps: int
    guidance: float
    guidance_rescale: float = 0.0
    """How far guided predictions were rescaled to the conditional one's standard deviation, 0 to 1."""
    scheduler: str
    """The scheduler that drew: the model's own, or the one that was asked for."""
    schedule: dict[str, Any] = {}
    """The scheduler's settings that differ from those that its class has by default; of earlier files nothing."""
    dtype: str
    """The dtype of the weights."""
    compute: str
    """The dtype in which the network computes, and whether it is compiled, which changes last bits."""
    resolution: int

    @model_serializer(mode="wrap")
    def write(self, plain: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leaves out what an earlier file did not have and is 0 or empty, so that its digest stays valid."""
        later = ("guidance_rescale", "schedule")
        return {name: value for name, value in plain(self).items() if name not in later or value}


class RowsFile(Part):
    """`rows.parquet`, as it was when the report was written."""

    lines: int
    sha256: str


def check_headline(name: str) -> str:
    """Returns a headline's name; raises ValueError unless it is metric/group or metric/group/threshold."""
    parts = name.split("/")
    if len(parts) not in (2, 3) or (len(parts) == 3 and not re.fullmatch(r"\d+(\.\d+)?(e-?\d+)?", parts[2])):
        raise ValueError(f"a headline is metric/group or metric/group/threshold, got {shorten(name)!r}")
    return name


Headline = Annotated[str, AfterValidator(check_headline)]


class Record(Part):
    """`report.json`."""

    format: Literal["efface-report"]
    version: int
    targets: tuple[str, ...]
    anchor: str
    keep: tuple[str, ...]
    method: str
    arguments: dict[str, Any]
    suite: SuitePart
    rows: int
    rows_digest: str
    """The sha256 of every row's prompt, seed and question."""
    drawing: Drawing
    scorers: dict[str, dict[str, str]]
    packages: dict[str, str]
    rule: str
    """How the answers of several judges give one verdict."""
    measures: tuple[Measure, ...]
    headlines: tuple[Headline, ...]
    """The names of the numbers to read first: `metric/group`, or `metric/group/threshold`."""
    alarms: tuple[Alarm, ...]
    protocol: ProtocolPart | None = None
    history: dict[str, Any] = {}
    """Notes of the fitting, such as the words that a search chose."""
    cost: dict[str, float] = {}
    """The cost of the fitting, from the edit: "seconds", or "seconds_since_resumed" where it went on from a checkpoint,
    and "peak_memory_mb"."""
    rows_file: RowsFile | None = None
    """None in files of earlier versions."""
    digest: str = ""
    """The sha256 of everything else in this file, as JSON with sorted keys; "" in files of earlier versions."""

    def __repr__(self) -> str:
        heads = [f"{m.metric}/{m.group} {m.edited.shorten()} (base {m.base.shorten()})" for m in self.list_headlines()]
        what = f"{', '.join(self.targets)} by {self.method} on {self.suite.name}, {write_count(self.rows, 'row')}"
        return f"<Record: {what}; {'; '.join(heads) or 'no headline'}; {write_count(len(self.alarms), 'alarm')}>"

    def find(self, metric: str, group: str, judge: str = "all", threshold: float | None = None) -> Measure | None:
        """The first measure that fits; without a threshold every threshold fits."""
        for m in self.measures:
            if (m.metric, m.group, m.judge) == (metric, group, judge) and threshold in (None, m.threshold):
                return m
        return None

    def comes_first(self, m: Measure) -> bool:
        """Whether a number is that of all judges together, or there is none of these, as for a detector's rates."""
        return m.judge == "all" or self.find(m.metric, m.group, threshold=m.threshold) is None

    def list_headlines(self) -> list[Measure]:
        found = [self._find_named(*h.split("/")) for h in self.headlines]
        return [m for m in found if m is not None]

    def _find_named(self, metric: str, group: str, threshold: str = "") -> Measure | None:
        """The measure of all judges together where there is one, else that of the first judge."""
        limit = float(threshold) if threshold else None
        judges = dict.fromkeys(["all", *(m.judge for m in self.measures if (m.metric, m.group) == (metric, group))])
        return next((m for j in judges if (m := self.find(metric, group, j, limit))), None)


def read_report(folder: Path) -> Record:
    """Reads the `report.json` of an evaluation.

    Raises:
        FileNotFoundError: the folder holds no finished evaluation.
        ValueError: it was written by another version, was changed since, or is damaged.
    """
    path = require_in(folder, "report.json", "give the --out of an `efface evaluate` that finished")
    return read_sealed(path, FORMAT_VERSION, partial(parse_sealed, Record), "run the evaluation again")


def list_differences(before: dict[str, Any], now: dict[str, Any], skip: Sequence[str] = ()) -> list[str]:
    """The differences between two protocols, in words, by dotted name."""
    out = []
    for key in sorted({*before, *now} - set(skip)):
        a, b = before.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            out += [f"{key}.{line}" for line in list_differences(a, b)]
        elif a != b:
            out.append(f"{key}: {a!r} before, {b!r} now")
    return out
