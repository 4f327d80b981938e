"""Published protocols: the suite and scorers of each, and how its numbers are computed from verdicts.

They are in `protocols.toml`, with their sources and the differences to them. A rate over a pool follows the same rule
for several judges as every other rate, and its drop is paired by row and resampled by concept.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..catalog import did_you_mean
from ..files import read_toml
from ..records.report import Measure, ProtocolPart
from ..suites.make import knows_all, needs_world
from ..suites.spec import Row, Suite
from .judging import ScoreTable, Sought
from .metrics import OTHER_QUESTION, Label, Value, measure_rows, name_other

HERE = Path(__file__).with_name("protocols.toml")


@dataclass(frozen=True)
class Pool:
    """Several groups of a suite that are measured as one."""

    name: str
    title: str
    groups: tuple[str, ...]


@dataclass(frozen=True)
class Aggregate:
    """A number of a protocol beside the groups' own rates."""

    metric: str
    title: str
    over: str
    """The pool, or the group of the suite, over which it is computed."""
    what: Literal["own", "other", "probability"] = "own"
    """Whether it is a rate of what the rows ask for, of what they name in the other domain, or a mean probability."""
    depth: int = 1
    """The number of most likely labels that count."""


@dataclass(frozen=True)
class Protocol:
    """A published way to evaluate."""

    name: str
    version: str
    about: str
    source: str
    """The paper and its settings."""
    differs: str
    """The differences to the paper."""
    questions: tuple[str, ...]
    """The questions that its suites may ask about the target."""
    suites: tuple[str, ...]
    judges: tuple[str, ...]
    """The scorers for models that come without judges."""
    scorers: tuple[str, ...] = ()
    """The scorers that are always used."""
    steps: int | None = None
    """Sampling steps, for models that suggest none of their own; None means the model's default."""
    guidance: float | None = None
    headlines: tuple[str, ...] = ()
    """The names of the numbers to read first, `metric/group` or `metric/group/threshold`."""
    pools: tuple[Pool, ...] = ()
    aggregates: tuple[Aggregate, ...] = ()

    @property
    def part(self) -> ProtocolPart:
        return ProtocolPart(name=self.name, version=self.version)

    def choose_suite(self, fitting: str | None, targets: Sequence[str] = ()) -> str:
        """The default suite.

        Args:
            fitting: the glyphs suite that fits the model and the erasure; None for models other than glyphs.
            targets: what is erased; of several suites for such models, the first that knows all of it is taken.

        Raises:
            ValueError: the protocol has no suite for such a model or erasure.
        """
        if fitting in self.suites:
            return str(fitting)
        free = [s for s in self.suites if not needs_world(s)]
        if fitting is not None or not free:
            asked = f"suite {fitting}" if fitting else "models of another make than glyphs"
            raise ValueError(f"protocol {self.name} is not for {asked}; its suites are {', '.join(self.suites)}")
        return next((s for s in free if knows_all(s, targets)), free[0])

    def adjust(self, suite: Suite) -> Suite:
        """The suite as the protocol draws it: a guidance of the protocol replaces the rows' own.

        Raises:
            ValueError: the suite asks something else about its targets than the protocol measures.
        """
        asked = sorted({r.asks for r in suite.rows if r.role == "erase"})
        if not set(asked) & set(self.questions):
            wanted, found = " or ".join(self.questions), ", ".join(asked) or "nothing"
            raise ValueError(
                f"protocol {self.name} is about {wanted} erased, and suite {suite.spec.name} asks of the target: "
                f"{found}; its suites are {', '.join(self.suites)}"
            )
        if self.guidance is None:
            return suite
        return dataclasses.replace(suite, rows=tuple(dataclasses.replace(r, guidance=None) for r in suite.rows))


def list_protocols() -> list[str]:
    """The names of the declared protocols."""
    return sorted(read_toml(HERE))


def find_protocol(name: str) -> Protocol:
    """The protocol of this name; raises ValueError, which lists all protocols, where there is none."""
    declared = read_toml(HERE)
    if name not in declared:
        raise ValueError(f"there is no protocol {name!r}{did_you_mean(name, sorted(declared))}")
    facts: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in declared[name].items()}
    pools = [Pool(p["name"], p["title"], tuple(p["groups"])) for p in facts.pop("pools", ())]
    aggregates = [Aggregate(**a) for a in facts.pop("aggregates", ())]
    return Protocol(name=name, **facts, pools=tuple(pools), aggregates=tuple(aggregates))


def find_rows(protocol: Protocol, over: str, suite: Suite) -> list[int]:
    """The indices of the suite's rows in a pool or group."""
    groups = next((p.groups for p in protocol.pools if p.name == over), (over,))
    return [i for i, r in enumerate(suite.rows) if r.group in groups]


def measure_protocol(protocol: Protocol, table: ScoreTable, suite: Suite) -> list[Measure]:
    """The protocol's own numbers, by all judges and by each; numbers without rows or judges are left out."""
    domain = next((r.asks for r in suite.rows if r.group == "target"), protocol.questions[0])
    out = []
    for aggregate in protocol.aggregates:
        question = OTHER_QUESTION.get(domain, "") if aggregate.what == "other" else domain
        judges = table.list_judges(question)
        if not judges or aggregate.depth not in table.list_depths(question):
            continue
        rows = [i for i in find_rows(protocol, aggregate.over, suite) if _belongs(aggregate, suite.rows[i], question)]
        if not rows:
            continue
        for judge in judges if aggregate.what == "probability" else ("all", *judges):
            value = _read_value(aggregate, table, question, judge)
            label = Label(aggregate.metric, aggregate.title, aggregate.over, judge)
            out.append(measure_rows(table, label, rows, value))
    return out


def _belongs(aggregate: Aggregate, row: Row, question: str) -> bool:
    """Whether a row of the pool asks this question, or names one thing of the other domain that can be judged."""
    if aggregate.what == "other":
        return bool(name_other(row, question)) and not row.second
    return row.asks == question


def _read_value(aggregate: Aggregate, table: ScoreTable, question: str, judge: str) -> Value:
    """Gives a row's verdict or probability, before or after the edit; None where it could not be judged."""
    if aggregate.what == "probability":
        return lambda variant, i: table.scores[variant][judge][i].value
    if aggregate.what == "own":
        return lambda variant, i: table.find_success(variant, i, judge, aggregate.depth)
    sought = [Sought(question, (name_other(row, question),), aggregate.depth, judge, every=True) for row in table.rows]
    return lambda variant, i: table.shows(variant, i, sought[i])
