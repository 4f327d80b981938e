"""Why a rule that would hold is undecided after all: attacks without an end, and groups that were left out."""

from __future__ import annotations

from collections.abc import Mapping

from ..attacks import STANDARD
from ..evaluation.alarms import LEFT_OUT
from ..plurals import write_count
from ..records.attacks import AttackMeasure, AttackRecord
from ..records.report import Record


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
    """The reason why the groups that were drawn do not answer a policy's rule on kept things; "" where they do."""
    left = [alarm.raised_when for alarm in record.alarms if alarm.name == LEFT_OUT]
    return left[0] if left and metric.startswith("psr") else ""


def tell_left_out(attacks: AttackRecord | None) -> tuple[str, ...]:
    """Names the standard attacks that were not made on the target; those that were made may be the weakest."""
    if attacks is None:
        return ()
    made = {m.attack for m in attacks.measures if m.condition == "target" and m.status != "error"}
    left = [name for name in STANDARD if name not in made]
    return (f"of the standard attacks these were not made: {', '.join(left)}",) if left else ()


def _has_erred(measure: AttackMeasure) -> bool:
    return measure.condition == "target" and measure.status == "error"
