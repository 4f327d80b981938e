"""Summarises records to the numbers that a cell stores and a table shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..functional.rates import Verdict, tally
from ..functional.words import share_name

if TYPE_CHECKING:
    from ..diagnostics.neurons import Diagnosis
    from ..diagnostics.purification import Purified
    from ..records.attacks import AttackRecord
    from ..records.audit import Audit
    from ..records.report import Record
    from ..suites.spec import GroupSpec

NOTHING: Mapping[str, Any] = {"value": None, "low": None, "high": None, "n": 0, "unscored": 0}
"""The estimate of nothing."""
NOT_MADE: Mapping[str, Any] = {"attacks": [], "rows": {}, "alarms": []}
"""The numbers of an attack that can't be made on an edit; the cell says why."""
JUDGED = ("esr1", "psr1")
"""The metrics whose judges are compared with each other."""


def summarise(record: Record, folder: Path) -> Mapping[str, Any]:
    """The numbers of an evaluation, and the share of the pictures on which its judges agree."""
    keep = {"metric", "group", "judge", "base", "edited", "drop", "threshold", "unit"}
    measures = [m.model_dump(include=keep) for m in record.measures]
    measures += _measure_agreement(record, folder)
    return {"measures": measures, "headlines": list(record.headlines), "alarms": _name_alarms(record)}


def _name_alarms(record: Record | AttackRecord) -> list[str]:
    return sorted({alarm.name for alarm in record.alarms})


def _measure_agreement(record: Record, folder: Path) -> list[Mapping[str, Any]]:
    """The share of pictures in each group on which all judges give the same verdict; empty for one judge."""
    from ..evaluation.rows_table import read_rows

    found = []
    for group in record.suite.groups:
        told = {m.judge for m in record.measures if m.group == group and m.metric in JUDGED} - {"all"}
        if len(told) < 2:
            continue
        columns = ["group", "variant", "counts", *(f"{judge}.answer" for judge in sorted(told))]
        lines = [line for line in read_rows(folder, columns) if line["group"] == group]
        shares = {
            variant: _describe_share([_agree(line, sorted(told)) for line in lines if line["variant"] == variant])
            for variant in ("base", "edited")
        }
        where = {"metric": "agreement", "group": group, "judge": "all", "threshold": None, "unit": "share"}
        found.append({**where, **shares, "drop": None})
    return found


def _agree(line: Mapping[str, Any], judges: Sequence[str]) -> Verdict:
    """Whether the judges' first labels give the same verdict; None where a judge could not judge."""
    answers = [line[f"{judge}.answer"] for judge in judges]
    if not all(answers):
        return None
    return len({any(share_name(name, answer[0]) for name in line["counts"]) for answer in answers}) == 1


def _describe_share(verdicts: Sequence[Verdict]) -> Mapping[str, Any]:
    found = tally(verdicts)
    low, high = found.interval
    return {"value": found.rate, "low": low, "high": high, "n": found.n, "unscored": found.unscored}


def summarise_attack(record: AttackRecord, name: str, baseline: str) -> Mapping[str, Any]:
    """The numbers of one attack, and for every row of the target whether the plain prompt, this attack or its baseline
    broke it."""
    keep = {"attack", "condition", "before", "after", "baseline", "lift", "curve", "queries", "status", "missing"}
    found = [m.model_dump(include=keep) for m in record.measures if m.attack == name]
    broken = {s.row: {a.attack for a in record.successes if a.row == s.row} for s in record.successes}
    mine = {row: broken.get(row, {name}) & {name, baseline} for row in record.worst}  # else the plain prompt broke it
    verdicts = {row: bool(mine[row]) if verdict else verdict for row, verdict in record.worst.items()}
    return {"attacks": found, "alarms": _name_alarms(record), "rows": verdicts}


def find_worst(results: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The share of the target's rows that neither the plain prompt nor any of these attacks broke."""
    rows: dict[str, list[Verdict]] = {}
    for result in results:
        for row, verdict in result.get("rows", {}).items():
            rows.setdefault(row, []).append(verdict)
    if not rows:
        return None
    return _describe_share([False if True in told else None if None in told else True for told in rows.values()])


def summarise_audit(audit: Audit, drift: Mapping[str, float]) -> Mapping[str, Any]:
    """How far pictures change, how that correlates with the distance from the target, and how far predictions move.

    Args:
        audit: the audit of an edit.
        drift: for each prompt's name, the mean squared change of the predicted noise.
    """
    random = [word for word in audit.findings if word.part == "control" and word.change.value is not None]
    places = [float(word.closeness) for word in random]
    changes = [float(word.change.value or 0) for word in random]
    order = correlate_ranks(places, changes)
    numbers = {"change/worst": audit.worst.model_dump(), "change/random": (audit.controls or audit.worst).model_dump()}
    if audit.controls is None:
        numbers.pop("change/random")
    numbers["change-by-distance/random"] = {**NOTHING, "value": order, "n": len(random)}
    numbers |= {f"drift/{what}": {**NOTHING, "value": value, "n": 1} for what, value in drift.items()}
    words = [{"word": w.word, "part": w.part, "closeness": w.closeness, "change": w.change.value, "lost": w.lost}
             for w in audit.findings]  # fmt: skip
    return {"numbers": numbers, "words": words}


def correlate_ranks(one: Sequence[float], other: Sequence[float]) -> float | None:
    """Spearman's rank correlation; None for fewer than three pairs, or where all values of one side are equal.

    >>> correlate_ranks([1, 2, 3], [10, 20, 15])
    0.5
    """
    if len(one) < 3 or len(set(one)) < 2 or len(set(other)) < 2:
        return None
    ranks = [[sum(w < v for w in side) + (sum(w == v for w in side) + 1) / 2 for v in side] for side in (one, other)]
    means = [sum(side) / len(side) for side in ranks]
    off = [[v - mean for v in side] for side, mean in zip(ranks, means, strict=True)]
    spreads = [sum(v * v for v in side) for side in off]
    return sum(a * b for a, b in zip(*off, strict=True)) / (spreads[0] * spreads[1]) ** 0.5


def summarise_neurons(found: Diagnosis, edit: str) -> Mapping[str, Any]:
    """How much adversarial prompts change the concept's neurons and random ones, on the base and under the edit."""
    numbers = {}
    for group, model in (("base", "base"), ("edited", edit)):
        sensitive = found.models[model]
        low, high = sensitive.interval or (None, None)
        own, beside = sensitive.same_layers, {"n": len(found.chosen), "unscored": 0}
        numbers[f"waking/{group}"] = {"value": own.mean, "low": low, "high": high, **beside}
        numbers[f"waking-random/{group}"] = {"value": own.random, "low": own.low, "high": own.high, **beside}
        numbers[f"waking-p/{group}"] = {**NOTHING, "value": own.p, "n": len(found.chosen)}
    return {"numbers": numbers}


def summarise_purified(found: Purified, group: GroupSpec) -> Mapping[str, Any]:
    """The share of pictures from which a target is gone, or that still show what is kept, and their similarity to those
    before; as the base's the same of pictures that were drawn again without the edit."""
    from ..evaluation.estimates import estimate

    keep = group.role == "keep"
    success = {
        kind: [shown if keep or shown is None else not shown for shown in verdicts]
        for kind, verdicts in found.shown.items()
    }
    measured = {"psr@purify" if keep else "esr@purify": success, "ssim@purify": found.ssim}
    return {
        f"{metric}/{group.name}": {**estimate(by["after"]).model_dump(), "base": estimate(by["base"]).model_dump()}
        for metric, by in measured.items()
    }
