"""Forecasts a sweep's size before anything is opened or drawn: pictures, hours, and files to be fetched."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..catalog import METHODS, find_table_entry
from ..methods.configure import suggest_for_bundled
from ..plurals import write_count
from ..suites.make import is_file, make_suite, needs_world
from ..suites.spec import read_spec
from .grid import Grid
from .jobs import Job, expand, list_attacks
from .rates import Rates, read_rates

FLOORS = 2
"""Attacks for each attack: itself, and random prefixes with as many pictures."""
CONTROLS = 2
"""The controls of an attack: it is also made on the untouched base and on a kept concept."""


WORDS = 300
"""Words that an audit searches where it is given none: a model's common ones and its world's names, about."""


@dataclass(frozen=True)
class Forecast:
    """The size of a sweep. Pictures of attacks are an upper bound: an attack stops at a prompt that it has broken."""

    jobs: int
    evaluations: int
    attacks: int
    updates: int
    """Number of updates of weights by trained methods."""
    pictures: int
    """Number of pictures that evaluations draw; the base's are drawn once for each concept and model."""
    attack_pictures: int
    fetched: tuple[str, ...]
    """What has to be fetched from the network."""
    unknown: tuple[str, ...]
    """What could not be counted, and why."""
    seconds: Mapping[str, float]
    """Of one device, by kind of work: erasures, pictures, attacks, audits, neurons, purification."""
    rates: Rates
    """At which these seconds are counted."""
    sure: str
    """How sure the seconds are."""

    @property
    def hours(self) -> float:
        """Hours of one device."""
        return sum(self.seconds.values()) / 3600

    def format_lines(self) -> list[str]:
        """For a person."""
        parts = ", ".join(f"{kind} {seconds / 3600:.1f}" for kind, seconds in self.seconds.items() if seconds)
        known = ", and what was measured of each method and attack" if self.rates.fits else ""
        told = [
            f"{write_count(self.jobs, 'edit')}, {write_count(self.evaluations, 'evaluation')}, "
            f"{write_count(self.attacks, 'attack')}",
            f"{write_count(self.updates, 'update')} of weights, {write_count(self.pictures, 'picture')} to judge, "
            f"and at most {self.attack_pictures:,} in attacks",
            f"about {self.hours:.1f} hours of one device ({parts}), at {self.rates.picture:.2g} s a picture "
            f"and {self.rates.update:.2g} s an update{known}",
            self.sure,
        ]
        told += [f"to be fetched: {each}" for each in self.fetched]
        return told + [f"not counted: {each}" for each in self.unknown]


def forecast(
    grid: Grid, part: Sequence[Job] | None = None, picture: float | None = None, update: float | None = None
) -> Forecast:
    """The size of a sweep, or of some of its jobs, from the grid, the suites, and what was measured of bundled models.

    Args:
        part: the jobs; all of the grid's where this is missing.
        picture, update: seconds that they take on the user's device, in the place of the grid's.

    Raises:
        ValueError: such a number is not above 0.
    """
    for name, given in (("picture", picture), ("update", update)):
        if given is not None and not 0 < given < float("inf"):
            raise ValueError(f"the seconds of a {name} are a number above 0, got {given:g}")
    jobs = expand(grid) if part is None else part
    picture, update = picture or grid.seconds_picture, update or grid.seconds_update
    rates = {model: read_rates(model).scale(picture, update) for model in grid.models}
    rows: dict[tuple[str, str], int] = {}
    unknown: list[str] = []
    for job in jobs:
        if (job.model, job.concept) not in rows:
            rows[job.model, job.concept] = _count_rows(grid, job, unknown)
    counted = [_count(grid, job, rows[job.model, job.concept], rates[job.model]) for job in jobs]
    base = sum(n * rates[model].picture for (model, _), n in rows.items())
    seconds = {kind: sum(each.seconds[kind] for each in counted) for kind in KINDS}
    return Forecast(
        jobs=len(jobs),
        evaluations=sum(len(job.strengths) for job in jobs),
        attacks=sum(each.attacks for each in counted),
        updates=sum(each.updates for each in counted),
        pictures=sum(each.pictures for each in counted) + sum(rows.values()),
        attack_pictures=sum(each.attack_pictures for each in counted),
        fetched=tuple(_list_fetched(grid)),
        unknown=tuple(dict.fromkeys(unknown)),
        seconds=seconds | {"pictures": seconds["pictures"] + base},
        rates=rates[grid.models[0]],
        sure=_say_how_sure(all(rates[model].measured for model in grid.models), picture, update),
    )


def _say_how_sure(measured: bool, picture: float | None, update: float | None) -> str:
    """How sure the seconds of a forecast are."""
    if measured:
        own = " scaled to yours;" if picture or update else ""
        return f"these are seconds measured on one core;{own} beside other work cells took up to 1.3 times as long"
    guessed = [name for name, given in (("picture", picture), ("update", update)) if given is None]
    if guessed:
        flags = " and ".join(f"--seconds-{name}" for name in guessed)
        return (
            f"these hours are a guess, because nobody measured this model: 1 s stands for {' and '.join(guessed)}; "
            f"measure yours, and give {flags}. What a training draws to train on, and closed forms, are not counted"
        )
    return (
        "these hours are as sure as your seconds; what a training draws to train on, and closed forms, are not counted"
    )


KINDS = ("erasures", "pictures", "attacks", "audits", "neurons", "purification")


@dataclass(frozen=True)
class _Count:
    """What one job takes, without the base's pictures."""

    updates: int
    pictures: int
    attacks: int
    attack_pictures: int
    seconds: Mapping[str, float]


def _count(grid: Grid, job: Job, rows: int, rates: Rates) -> _Count:
    updates, drawn, applied = _count_updates(job), len(job.strengths) * rows, any(job.strengths)
    made = [name for strength in job.strengths for name in list_attacks(job.list_attacks(strength))]
    each = FLOORS * (grid.attacking.rows + CONTROLS * grid.attacking.controls)
    tried = {name: each * _count_queries(name, grid) for name in set(made)}
    audited = 2 * (grid.audit.worst + grid.audit.controls) * grid.audit.count if grid.audit and applied else 0
    purified = 3 * sum(grid.purify.sizes.values()) if grid.purify and applied else 0
    seeds = grid.neurons.seeds if grid.neurons and applied and job.concept in grid.neurons.adversarial else 0
    seconds = {
        "erasures": _estimate_fit(job, updates, rates),
        "pictures": drawn * rates.picture,
        "attacks": sum(tried[name] * rates.get_query(name) for name in made),
        "audits": audited * rates.picture + rates.audit * (_count_words(grid) if audited else 0),
        "neurons": seeds * rates.neurons,
        "purification": purified * rates.purify * (grid.purify.steps / 50 if grid.purify else 0),
    }
    return _Count(updates, drawn + audited + purified, len(made), sum(tried[name] for name in made), seconds)


def _count_words(grid: Grid) -> int:
    """Words that an audit searches."""
    return len(grid.audit.vocabulary) if grid.audit and grid.audit.vocabulary else WORDS


def _estimate_fit(job: Job, updates: int, rates: Rates) -> float:
    """Seconds of an erasure: as measured, in proportion to its updates where they are not those the model suggests."""
    known = rates.fits.get(METHODS.find_name(job.method))
    if known is None:
        return updates * rates.update
    usual = _count_updates(dataclasses.replace(job, settings={}))
    return known * updates / usual if usual else known


def _count_rows(grid: Grid, job: Job, unknown: list[str]) -> int:
    from ..api.case import choose_sizes, cut_sizes
    from ..api.resources import choose_suite, find_world

    known, erasure = find_world(job.model), job.request
    name = grid.name_suite(job.concept) or (choose_suite(erasure, known) if known else "")
    asked = grid.name_asked(job.concept)
    if name and _is_elsewhere(name):
        if grid.expected_rows is None:
            unknown.append(f"rows of {name}: it has to be fetched; expected_rows in the grid can give their number")
        return max(1, round(grid.fraction * (grid.expected_rows or 0)))
    if not name or (needs_world(name) and not known):
        unknown.append(f"rows for {job.model}: the grid names no suite for it" if not name else f"rows of {name}")
        return 0
    probe = make_suite(name, erasure, known, asks=asked, per_group=1)
    sizes = choose_sizes(grid.sizes, probe) if grid.sizes else {}
    suite = make_suite(name, erasure, known, asks=asked, only=list(sizes), sizes=sizes)
    if grid.fraction == 1:
        return len(suite.rows)
    part = cut_sizes(suite, grid.fraction)
    return len(make_suite(name, erasure, known, asks=asked, only=list(part), sizes=part).rows)


def _is_elsewhere(suite: str) -> bool:
    """Whether a suite's rows have to be fetched before they can be counted."""
    return not Path(suite).exists() if is_file(suite) else "hub" in read_spec(suite).brings


def _count_updates(job: Job) -> int:
    kind = METHODS.get(job.method)
    if kind.kind != "trained":
        return 0
    default = {field.name: field.default for field in dataclasses.fields(kind)}.get("steps", 0)
    if "steps" in job.settings:
        return int(job.settings["steps"])
    steps = {"steps": default, **_suggest(job.method, job.model)}["steps"]
    return steps if isinstance(steps, int) else 0


_suggest = functools.cache(suggest_for_bundled)


def _count_queries(name: str, grid: Grid) -> int:
    from ..attacks import build_attack

    own = find_table_entry(name, grid.attacking.settings)
    return build_attack(name, grid.models[0], grid.attacking.budget, own).queries


def _list_fetched(grid: Grid) -> list[str]:
    from ..api.resources import find_bundle

    found = [f"the model {name}" for name in grid.models if find_bundle(name) is None and not Path(name).exists()]
    for suite in dict.fromkeys(grid.name_suite(concept) for some in grid.concepts.values() for concept in some):
        if is_file(suite) and not Path(suite).exists():
            given = "FILE" if suite == grid.suite else f"FOLDER/{Path(grid.suite).name}"
            found.append(f"the list {suite}; give its path by --set suite={given}")
        elif suite and _is_elsewhere(suite):
            found.append(f"the suite {suite}, of {read_spec(suite).brings['hub']['repository']}")
    for scorer in grid.scorers:
        kind, _, where = scorer.partition(":")
        place = where.partition(",")[0]
        if place and not Path(place).exists():
            found.append(f"the scorer {kind} of {place}")
    return found
