"""The verdict: one sentence that says whether an edit is ready by a policy's rules, and why; and each rule in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from ..attacks import BASELINE
from ..compliance import gate, rules
from ..compliance.deciding import count_deciding
from ..compliance.gate import RuleResult
from ..compliance.rules import parse_rule
from ..plurals import write_count
from ..records.attacks import AttackMeasure, AttackRecord
from ..records.report import Record
from . import wording
from .wording import format_bar, format_brief, format_group, format_more, format_points, format_targets

VerdictOutcome = Literal["ready", "not ready", "undecided"]
OUTCOMES: Mapping[str, VerdictOutcome] = {"holds": "ready", "failed": "not ready", "unjudged": "undecided"}
UNATTACKED = " No attack was made: whether it can be brought back is not known."
"""The end of the sentence where there are no attacks."""
UNRANKED = "which attack is strongest is not known, for each was made only on the prompts that none before it broke"
LEADS = {"ready": "Ready", "not ready": "Not ready", "undecided": "Undecided"}


@dataclass(frozen=True)
class RuleInWords:
    """A rule and its result, in words."""

    outcome: gate.RuleOutcome
    claim: str
    """What must hold: "“cat” appears in at most 5 % of pictures"."""
    found: str
    """What was found: "“cat” still appears in 20 % of pictures, 5 % allowed"."""
    more: int | None
    """The number of further pictures that would decide it, where it is open."""
    finding: RuleResult
    """The gate's result, with the interval."""


@dataclass(frozen=True)
class ReportVerdict:
    """Whether an edit is ready, in a sentence, with the rules."""

    outcome: VerdictOutcome
    policy: str
    sentence: str
    rules: tuple[RuleInWords, ...]


def build_verdict(record: Record, attacks: AttackRecord | None = None, policy: str = "") -> ReportVerdict:
    """Judges an evaluation, and the attacks beside it, by a policy, and says the result in words.

    Args:
        record: the evaluation's record.
        attacks: the record of the attacks beside it, if there are any.
        policy: the policy's name; "" means "attacked" where attacks were made, else "default".
    """
    named = policy or ("attacked" if attacks else "default")
    found = gate.verify(record, (), rules.find_policy(named).rules, attacks=attacks)
    described = tuple(describe_rule(f, record) for f in found.findings)
    outcome = OUTCOMES[found.outcome]
    lead = {"ready": _say_ready, "not ready": _say_failed, "undecided": lambda some: ""}[outcome](described)
    worst, left = describe_worst_attack(attacks), _say_open(described)
    parts = [*left, worst] if outcome == "undecided" else [lead, worst, *left]
    sentence = f"{LEADS[outcome]}: {'; '.join(part for part in parts if part)}."
    return ReportVerdict(outcome, named, sentence + _say_unknown(attacks), described)


def describe_rule(finding: RuleResult, record: Record) -> RuleInWords:
    """Says one rule in words; a metric without words of its own appears by its name."""
    metric, _, part = finding.metric.partition("_")
    targets = format_targets(record.targets)
    group = format_group(finding.group, record.suite.groups)
    if metric.startswith("esr") and part == "base":
        claim, found = _describe_drawn(finding, targets)
    elif metric.startswith("esr") and not part:
        claim, found = _describe_erased(finding, targets)
    elif metric.startswith("psr") and part == "drop":
        claim, found = _describe_kept(finding, group)
    elif metric == "robust":
        claim, found = _describe_robust(finding, targets)
    else:
        claim, found = _describe_plain(finding, group)
    if finding.value is None:
        found = f"nothing was measured that shows whether {claim}"
    return RuleInWords(finding.outcome, claim, found, count_deciding(finding), finding)


def format_rule(rule: RuleInWords) -> str:
    """Says what must be and whether it is; where that is open, also how many more pictures would decide it."""
    more = f"; {format_more(rule.more)} would decide" if rule.more else ""
    return f"{rule.claim}: {wording.OUTCOMES[rule.outcome]}{more}"


def find_worst_attack(attacks: AttackRecord | None) -> AttackMeasure | None:
    """The attack that brings the target back most often; None where none has a value over all of its rows.

    Attacks that were made only on the rows that none before them broke have rates over different rows.
    """
    made = [m for m in _list_made(attacks) if not m.worst_case]
    return max(made, key=lambda m: m.after.value or 0.0, default=None)


def _list_made(attacks: AttackRecord | None) -> list[AttackMeasure]:
    """The attacks on the target that have a value."""
    measures = attacks.measures if attacks else ()
    return [m for m in measures if m.made_on_target and m.after.value is not None and m.attack != BASELINE]


def describe_worst_attack(attacks: AttackRecord | None) -> str:
    """The strongest attack with its rate, beside that of the plain prompt; "" where none has a value."""
    worst = find_worst_attack(attacks)
    if worst is None:
        return UNRANKED if _list_made(attacks) else ""
    plain, now = worst.before.value or 0.0, worst.after.value or 0.0
    if now <= plain:
        return f"no attack shows it more often than the plain prompts, which show it in {format_brief(plain)}"
    name = worst.attack.replace("-", " ")
    prompts = write_count(worst.after.n, "prompt")
    return f"the strongest attack, “{name}”, brings it back in {format_brief(now)} of {prompts}"


def _say_failed(described: Sequence[RuleInWords]) -> str:
    return "; ".join(r.found for r in described if r.outcome == "failed")


def _say_ready(described: Sequence[RuleInWords]) -> str:
    return "; ".join(r.found for r in described)


def _say_open(described: Sequence[RuleInWords]) -> list[str]:
    """Says what is not decided, and how many more pictures would decide it."""
    left = [r for r in described if r.outcome == "unjudged"]
    countable, stuck = [r for r in left if r.more is not None], [r for r in left if r.more is None]
    more = format_more(max(r.more or 0 for r in countable)) if countable else ""
    found = [f"{more} would decide {_join_open(countable)}"] if countable else []
    return [*found, f"it is not known {_join_open(stuck)}"] if stuck else found


def _join_open(some: Sequence[RuleInWords]) -> str:
    """What is open: "whether A, whether B and whether C"."""
    *most, last = [f"whether {r.claim}" for r in some]
    return f"{', '.join(most)} and {last}" if most else last


def _say_unknown(attacks: AttackRecord | None) -> str:
    if attacks is None:
        return UNATTACKED
    stopped = sorted({each.attack for each in attacks.interrupted})
    return f" Attacks that were interrupted count as far as they went: {', '.join(stopped)}." if stopped else ""


def _describe_drawn(f: RuleResult, targets: str) -> tuple[str, str]:
    value = 1 - (f.value or 0.0)
    only = "only " if f.outcome == "failed" else ""
    claim = f"the untouched model draws {targets} in at least {format_bar(1 - f.bar)} of its pictures"
    return claim, f"the untouched model draws {targets} in {only}{format_brief(value, 1 - f.bar)} of its pictures"


def _describe_erased(f: RuleResult, targets: str) -> tuple[str, str]:
    allowed, shown, worst = 1 - f.bar, 1 - (f.value or 0.0), 1 - f.low
    claim = f"{targets} appears in at most {format_bar(allowed)} of pictures"
    if f.outcome == "failed" and shown <= allowed:
        return (
            claim,
            f"{targets} may appear in up to {format_brief(worst, allowed)} of pictures, {format_bar(allowed)} allowed",
        )
    still = "still " if f.outcome == "failed" else ""
    return (
        claim,
        f"{targets} {still}appears in {format_brief(shown, allowed)} of pictures, {format_bar(allowed)} allowed",
    )


def _describe_kept(f: RuleResult, group: str) -> tuple[str, str]:
    claim = f"{group} lose at most {format_points(f.bar)}"
    allowed = f"{format_points(f.bar).split()[0]} allowed"
    if f.outcome == "failed" and (f.value or 0.0) <= f.bar:
        return claim, f"{group} may lose up to {format_points(f.high, f.bar)}, {allowed}"
    if (f.value or 0.0) < 0:
        return claim, f"{group} lose nothing"
    return claim, f"{group} lose {format_points(f.value or 0.0, f.bar)}, {allowed}"


def _describe_robust(f: RuleResult, targets: str) -> tuple[str, str]:
    allowed, broken = 1 - f.bar, 1 - (f.value or 0.0)
    claim = f"{targets} is brought back in at most {format_bar(allowed)} of the attacked prompts"
    all_of_them = "plain prompts or attacks"
    if f.outcome == "failed" and broken <= allowed:
        worst = format_brief(1 - f.low, allowed)
        return claim, f"{all_of_them} may show {targets} in up to {worst} of prompts, {format_bar(allowed)} allowed"
    return (
        claim,
        f"{all_of_them} show {targets} in {format_brief(broken, allowed)} of prompts, {format_bar(allowed)} allowed",
    )


def _describe_plain(f: RuleResult, group: str) -> tuple[str, str]:
    below = parse_rule(f.rule).below
    name = f"{f.metric} of {group}" if f.group else f.metric
    bar = f"at {'least' if below else 'most'} {f.bar:g}"
    return f"{name} is {bar}", f"{name} is {0.0 if f.value is None else f.value:.3g}, {bar} wanted"
