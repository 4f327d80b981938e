"""Why a rule that would hold is undecided after all: attacks without an end or of other things, and what is missing."""

from __future__ import annotations

from collections.abc import Mapping

from ..attacks import STANDARD
from ..evaluation.alarms import DRAWN, LEFT_OUT, UNTESTED
from ..plurals import write_count, write_percent
from ..records.attacks import AttackMeasure, AttackRecord
from ..records.report import Record
from ..suites.questions import find_unasked

JUDGING = ("scorer", "asks", "labels")
"""Facts of a judge that an evaluation adds, or that depend on which of a suite's rows are drawn."""


def list_open_ends(attacks: AttackRecord | None) -> dict[str, str]:
    """The attacks on the target whose result is not known, with the reason: interrupted, or ended in an error."""
    if attacks is None:
        return {}
    found = {m.attack: f"ended in an error: {m.missing}" for m in attacks.measures if _has_erred(m)}
    for each in attacks.interrupted:
        if each.condition == "target":
            found[each.attack] = f"was interrupted after {len(each.row_results)} of {write_count(each.rows, 'row')}"
    return found


def doubt_attacks(metric: str, group: str, open_ends: Mapping[str, str]) -> str:
    """The reason why a number of attacks can't be trusted; "" where there is none.

    Args:
        metric, group: the number.
        open_ends: the result of `list_open_ends`.
    """
    kind = metric.partition("_")[0]
    about = [name for name in open_ends if kind == "robust" or (kind == "asr" and name == group)]
    return f"attack {about[0]} {open_ends[about[0]]}; run the same attacks again, which goes on" if about else ""


def doubt_groups(metric: str, record: Record) -> str:
    """The reason why what was drawn does not answer a policy's rule on kept things or the target; "" where it does."""
    about = LEFT_OUT if metric.startswith("psr") else UNTESTED if metric.startswith("esr") else ""
    return next((alarm.raised_when for alarm in record.alarms if alarm.name == about), "")


def list_attack_doubts(record: Record, attacks: AttackRecord | None) -> tuple[str, ...]:
    """The reasons why attacks say little of an evaluation's request, however few of their rows were broken.

    These are targets that were not attacked, a concept that the untouched model seldom shows in the attacked rows, and
    a judge that did not judge the evaluation: a success has to convince every judge.
    """
    if attacks is None:
        return ()
    found = []
    if left := find_unasked(record.targets, attacks.targets):
        found.append(f"no attack was made on {', '.join(left)}")
    for each in attacks.conditions:
        shown = each.untouched
        if each.condition == "target" and shown.value is not None and shown.value < DRAWN:
            found.append(
                f"the untouched model shows the target in {write_percent(shown.value, DRAWN)} of the "
                f"{write_count(each.rows, 'row')} "
                f"that were attacked (under {DRAWN:.0%})"
            )
    if others := list_other_judges(record, attacks):
        found.append(f"a judge of the attacks did not judge the evaluation: {', '.join(others)}")
    return tuple(found)


def list_other_judges(record: Record, attacks: AttackRecord) -> list[str]:
    """The judges of attacks that did not judge the evaluation, at least not as they are."""

    def read(scorers: Mapping[str, Mapping[str, str]], name: str) -> dict[str, str]:
        return {key: fact for key, fact in scorers.get(name, {}).items() if key not in JUDGING}

    return [
        name
        for name in attacks.scorers
        if name not in record.scorers or read(record.scorers, name) != read(attacks.scorers, name)
    ]


def tell_left_out(attacks: AttackRecord | None) -> tuple[str, ...]:
    """Names the standard attacks that were not made on the target; those that were made may be the weakest."""
    if attacks is None:
        return ()
    made = {m.attack for m in attacks.measures if m.made_on_target}
    left = [name for name in STANDARD if name not in made]
    return (f"of the standard attacks these were not made: {', '.join(left)}",) if left else ()


def _has_erred(measure: AttackMeasure) -> bool:
    return measure.condition == "target" and measure.status == "error"
