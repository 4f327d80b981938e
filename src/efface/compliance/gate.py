"""The gate: holds an evaluation against rules, by the unfavourable bound of each interval.

A rule says what must not be: "esr1<0.95". Of the number's interval, the bound that is nearer to the forbidden side is
compared with the bar. There are three outcomes:

- holds: the whole interval is on the right side of the bar;
- failed: it is not;
- undecided: over 2 % of the pictures have no score; or nothing was measured; or a mean is of one picture; or the
  interval is too wide, that is, the bar lies inside and it is wider than `widest`, so that more pictures could still
  decide. A narrower interval with the bar inside has failed: what was asked for has not been shown.

A bootstrap of equal differences has no width, however few they are. Therefore a drop of a rate counts as no more
certain than a share of 0 in n: each of its bounds is at least as far from it as Wilson's bound of 0 in n is from 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ..evaluation.alarms import UNSCORED
from ..functional.rates import wilson
from ..plurals import write_apart
from ..records.attacks import AttackRecord
from ..records.report import Estimate, Measure, Part, Record
from .doubts import doubt_attacks, doubt_groups, list_attack_doubts, list_open_ends, tell_left_out
from .rules import Rule

WIDEST = 0.05
EXIT = {"holds": 0, "failed": 1, "unjudged": 3}
RuleOutcome = Literal["holds", "failed", "unjudged"]


class RuleResult(Part):
    """The result of one rule on one number of the report."""

    rule: str
    metric: str
    group: str
    judge: str
    outcome: RuleOutcome
    value: float | None
    low: float
    high: float
    n: int
    unscored: int
    bar: float
    short: float
    """The distance of the unfavourable bound from the bar on its wrong side; 0 where it is on the right side."""
    says: str


class GateResult(Part):
    """What came of all rules: failed if one failed, else not judged if one could not be, else holds."""

    outcome: RuleOutcome
    findings: tuple[RuleResult, ...]
    remarks: tuple[str, ...] = ()
    """Remarks on attacks that were interrupted, ended in an error or were left out, whatever the rules are about."""

    @property
    def exit_code(self) -> int:
        return EXIT[self.outcome]


@dataclass(frozen=True)
class Number:
    """The number that a rule compares with its bar."""

    measure: Measure
    value: float | None
    low: float
    high: float
    n: int
    unscored: int


def verify(
    record: Record,
    rules: Sequence[Rule],
    policy: Sequence[Rule] = (),
    widest: float = WIDEST,
    attacks: AttackRecord | None = None,
) -> GateResult:
    """Judges an evaluation, and the attacks made beside it.

    A rule on attacks that would hold is undecided where an attack that it speaks of was interrupted or ended in
    an error: what that would have broken is not known. A policy's rule on kept things is undecided where groups
    of them were left out, one on the target where a target was not tested, and one on attacks where they say little
    of the request (`doubts.list_attack_doubts`).

    Args:
        rules: those that someone set for this evaluation: one on something that was not measured is an error.
        policy: the rules of a policy: one on something that was not measured is undecided.
        widest: an interval with the bar inside that is wider than this does not decide.
        attacks: the attacks that belong to the evaluation, as `basis.read_evaluation` returns them.

    Raises:
        ValueError: there is no rule, a rule is about something that was not measured, or no share can reach a bar.
    """
    if not rules and not policy:
        raise ValueError("no rule was given; --fail-on 'esr1<0.95' sets one, --policy default a set of them")
    record, beside = add_attack_measures(record, attacks), list_attack_doubts(record, attacks)
    findings: list[RuleResult] = []
    for rule in rules:
        if not (numbers := select_numbers(record, rule)):
            raise ValueError(f"{rule.text!r}: {_explain_missing(record, rule)}")
        findings += [judge_rule(rule, number, widest) for number in numbers]
    for rule in policy:
        numbers = select_numbers(record, rule)
        doubt = "" if rule.group else doubt_groups(rule.name, record)
        doubt = next(iter(beside), "") if rule.name.partition("_")[0] in ("robust", "asr") else doubt
        judged = [_doubt(judge_rule(rule, n, widest), doubt) for n in numbers]
        findings += judged or [_report_absent(rule, _explain_missing(record, rule))]
    open_ends = list_open_ends(attacks)
    findings = [_doubt(f, doubt_attacks(f.metric, f.group, open_ends)) for f in findings]
    outcomes = {f.outcome for f in findings}
    worst: RuleOutcome = "failed" if "failed" in outcomes else "unjudged" if "unjudged" in outcomes else "holds"
    remarks = (*(f"attack {name} {why}" for name, why in open_ends.items()), *tell_left_out(attacks), *beside)
    return GateResult(outcome=worst, findings=tuple(findings), remarks=remarks)


def _doubt(finding: RuleResult, why: str) -> RuleResult:
    """A finding, which is undecided where it would hold and something speaks against that."""
    if finding.outcome != "holds" or not why:
        return finding
    says = f"{finding.says.removesuffix('holds')}undecided: {why}"
    return finding.model_copy(update={"outcome": "unjudged", "says": says})


def add_attack_measures(record: Record, attacks: AttackRecord | None) -> Record:
    """Adds the numbers of its attacks to a report: `robust@attacks`, and `asr@NAME` for each attack.

    `robust` has no value for the base; that of `asr` is the same attack on the untouched base, with the name removed.
    """
    if attacks is None:
        return record
    unknown = Estimate(value=None, low=0.0, high=1.0, n=0, unscored=0)
    told = [("robust", "attacks", "rows that nothing broke", unknown, attacks.robust)]
    for measure in attacks.measures:
        if measure.condition == "target":
            control = attacks.find(measure.attack, "control-base")
            base = control.after if control and not control.missing else unknown
            after = unknown if measure.missing else measure.after
            told.append(("asr", measure.attack, f"attack success rate of {measure.attack}", base, after))
    made = {group for _, group, *_ in told}
    for name in dict.fromkeys(i.attack for i in attacks.interrupted if i.condition == "target"):
        if name not in made:
            told.append(("asr", name, f"attack success rate of {name}, which was interrupted", unknown, unknown))
    measures = [
        Measure(metric=metric, title=title, group=group, judge="all", base=base, edited=edited, drop=None)
        for metric, group, title, base, edited in told
    ]
    return record.model_copy(update={"measures": (*record.measures, *measures)})


def select_numbers(record: Record, rule: Rule) -> list[Number]:
    """The numbers that a rule is about: by all judges together where the report has that, else by each."""
    metric, part = _split(record, rule.name)
    found = [m for m in record.measures if m.metric == metric]
    if rule.threshold is not None:
        found = [m for m in found if m.threshold is not None and abs(m.threshold - rule.threshold) < 1e-9]
    heads = [m for m in record.list_headlines() if m.metric == metric]
    if rule.group not in ("", "all"):
        found = [m for m in found if m.group == rule.group]
    elif rule.group == "" and heads:
        groups, cuts = {m.group for m in heads}, {(m.group, m.threshold) for m in heads}
        found = [m for m in found if (m.group in groups if rule.threshold else (m.group, m.threshold) in cuts)]
    together = {(m.group, m.threshold) for m in found if m.judge == "all"}
    found = [m for m in found if m.judge == "all" or (m.group, m.threshold) not in together]
    if found and found[0].unit == "share" and not -1 <= rule.bar <= 1:
        raise ValueError(f"{rule.text!r}: {metric} is a share, from 0 to 1; write {rule.bar / 100:g} or {rule.bar:g}%")
    if found and found[0].unit == "share" and _holds_always(rule, part):
        raise ValueError(f"{rule.text!r} can't fail: {metric} is a share, from 0 to 1; give a bar inside")
    return [_read_number(m, part) for m in found]


def _holds_always(rule: Rule, part: str) -> bool:
    """Whether no share could be on the wrong side of the bar."""
    least = -1 if part == "drop" else 0
    return rule.bar <= least if rule.below else rule.bar >= 1


def judge_rule(rule: Rule, number: Number, widest: float = WIDEST) -> RuleResult:
    """Compares one number with its bar."""
    bad, good = (number.low, number.high) if rule.below else (number.high, number.low)
    short = max(0.0, rule.bar - bad if rule.below else bad - rule.bar)
    lost = number.unscored / (number.n + number.unscored) if number.n + number.unscored else 0.0
    inside = good >= rule.bar if rule.below else good <= rule.bar
    outcome: RuleOutcome = "unjudged"
    if lost > UNSCORED:
        what = "rows are not known" if number.measure.metric in ("robust", "asr") else "pictures have no score"
        why = f"undecided: {write_apart(100 * lost, 100 * UNSCORED, digits=1)}% of the {what} (over {UNSCORED:.0%})"
    elif number.value is None:
        why = "undecided: nothing was measured"
    elif number.measure.unit == "number" and number.n == 1:
        why = "undecided: the mean of one picture has no interval"
    elif short == 0:
        outcome, why = "holds", "holds"
    elif inside and number.high - number.low > widest + 1e-9:
        why = (
            f"undecided: the interval is {number.high - number.low:.3g} wide (over {widest:g}) and has the "
            "bar inside; more pictures, or more concepts, could decide"
        )
    else:
        outcome = "failed"
        why = f"failed: the {'lower' if rule.below else 'upper'} bound misses the bar by {short:.3g}"
    m = number.measure
    name = f"{rule.name}{'' if m.threshold is None else f'[{m.threshold:g}]'}@{m.group}"
    name += "" if m.judge == "all" else f" ({m.judge})"
    seen = "" if number.value is None else f" is {number.value:.3f} ({number.low:.3f} to {number.high:.3f})"
    return RuleResult(
        rule=rule.text,
        metric=rule.name,
        group=m.group,
        judge=m.judge,
        outcome=outcome,
        value=number.value,
        low=number.low,
        high=number.high,
        n=number.n,
        unscored=number.unscored,
        bar=rule.bar,
        short=short,
        says=f"{name}{seen}, n = {number.n}; bar {rule.text}: {why}",
    )


def _split(record: Record, name: str) -> tuple[str, str]:
    """The metric that a rule's name means, and which of its values."""
    metrics = {m.metric for m in record.measures}
    for part in ("drop", "base"):
        if name not in metrics and name.endswith(f"_{part}"):
            return name.removesuffix(f"_{part}"), part
    return name, "edited"


def _read_number(m: Measure, part: str) -> Number:
    unscored = max(m.base.unscored, m.edited.unscored)
    if part != "drop":
        e = m.base if part == "base" else m.edited
        return Number(m, e.value, e.low, e.high, e.n, e.unscored)
    n = min(m.base.n, m.edited.n)
    if m.drop is None:
        return Number(m, None, -1.0, 1.0, n, unscored)
    slack = wilson(0, n)[1] if m.unit == "share" else 0.0
    low, high = min(m.drop.low, m.drop.value - slack), max(m.drop.high, m.drop.value + slack)
    return Number(m, m.drop.value, low, high, n, unscored)


def _explain_missing(record: Record, rule: Rule) -> str:
    """The reason why a rule matches nothing, and what it could have named."""
    metric, _ = _split(record, rule.name)
    have = [m for m in record.measures if m.metric == metric]
    if not have:
        if metric in ("robust", "asr"):
            return "no attack was made in this folder; `efface attack` makes some, with this folder as its --out"
        there = ", ".join(dict.fromkeys(m.metric for m in record.measures))
        return f"{metric} was not measured; the report has {there}"
    groups = ", ".join(dict.fromkeys(m.group for m in have))
    cuts = ", ".join(dict.fromkeys(f"{m.threshold:g}" for m in have if m.threshold is not None))
    return f"{metric} was measured on {groups}" + (f" at thresholds {cuts}" if cuts else "")


def _report_absent(rule: Rule, why: str) -> RuleResult:
    return RuleResult(
        rule=rule.text,
        metric=rule.name,
        group=rule.group,
        judge="all",
        outcome="unjudged",
        value=None,
        low=0.0,
        high=0.0,
        n=0,
        unscored=0,
        bar=rule.bar,
        short=0.0,
        says=f"{rule.text}: undecided: {why}",
    )
