"""How numbers read."""

from collections.abc import Sequence

from markupsafe import Markup, escape

from ..compliance.gate import RuleResult
from ..compliance.rules import parse_rule
from ..records.report import Drop, Estimate, Measure

METRICS = {"esr1": "erased (ESR-1)", "psr1": "kept (PSR-1)", "esr5": "erased (ESR-5)", "psr5": "kept (PSR-5)"}
OUTCOMES = {"holds": "holds", "failed": "failed", "unjudged": "could not be judged"}


def format_number(value: float | None, unit: str = "share") -> str:
    """A share as a percentage, another number with three digits, None as a dash."""
    if value is None:
        return "—"
    return f"{value:.3g}" if unit == "number" else f"{100 * value:.1f} %"


def format_estimate(e: Estimate, unit: str = "share") -> str:
    """Value, interval and n in one line."""
    if e.value is None:
        return f"not judged (n = 0, {e.unscored} unscored)"
    interval = f"{format_number(e.low, unit)} to {format_number(e.high, unit)}"
    unscored = f", {e.unscored} unscored" if e.unscored else ""
    return f"{format_number(e.value, unit)} ({interval}; n = {e.n}{unscored})"


def format_stacked(e: Estimate, unit: str = "share") -> Markup:
    """Value, and below it interval and n, for narrow columns."""
    return _below(format_estimate(e, unit))


def format_drop(d: Drop | None, unit: str = "share") -> str:
    """Base minus edited with its interval."""
    return (
        f"{format_number(d.value, unit)} ({format_number(d.low, unit)} to {format_number(d.high, unit)})" if d else "—"
    )


def format_stacked_drop(d: Drop | None, unit: str = "share") -> Markup:
    """A difference, and below it its interval."""
    return _below(format_drop(d, unit))


def _below(line: str) -> Markup:
    value, _, rest = line.partition(" (")
    below = Markup('<br><span class="interval">{}</span>').format(rest.removesuffix(")")) if rest else ""
    return escape(value) + below


def format_name(m: Measure) -> str:
    """A number's name, as the gate takes it."""
    return f"{m.metric}{'' if m.threshold is None else f'[{m.threshold:g}]'}@{m.group}"


def format_card_title(m: Measure) -> str:
    if m.metric.startswith("esr"):
        return f"Erased: {m.group}"
    return f"Kept: {m.group}" if m.metric.startswith("psr") else f"{m.metric}: {m.group}"


def format_rule(f: RuleResult) -> str:
    """What must be, and whether it is."""
    by = f" by {100 * f.short:.1f} points" if f.outcome == "failed" else ""
    return f"{f.metric} {'≥' if parse_rule(f.rule).below else '≤'} {f.bar:g}: {OUTCOMES[f.outcome]}{by}"


def pick_worst_outcome(outcomes: Sequence[str]) -> str:
    """What came of a card: the worst of its rules; "" where it has none."""
    return next((o for o in ("failed", "unjudged", "holds") if o in outcomes), "")
