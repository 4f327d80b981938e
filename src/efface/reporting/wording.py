"""Writes numbers and names for pages."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup, escape

from ..plurals import write_apart, write_count
from ..records.report import Drop, Estimate, Measure

METRICS = {"esr1": "erased (ESR-1)", "psr1": "kept (PSR-1)", "esr5": "erased (ESR-5)", "psr5": "kept (PSR-5)"}
OUTCOMES = {"holds": "holds", "failed": "failed", "unjudged": "undecided"}
GROUPS = {
    "neighbour": "near neighbours",
    "seen": "other things",
    "unseen": "things that fitting never saw",
    "style": "other styles",
    "unrelated": "unrelated things",
}
"""The words for a group's things in a sentence; other groups have the suite's title."""
METHODS = {"PESD": "P-ESD", "PAC": "P-AC"}
"""The papers' names of methods whose classes are called otherwise; records hold the name of the class."""


def name_method(method: str) -> str:
    """The name of a method by the name of its class."""
    return METHODS.get(method, method)


def format_number(value: float | None, unit: str = "share") -> str:
    """Writes a share as a percentage, another number with at least three digits, and None as a dash.

    A share has a digit after the point, and more where it would else be written as none or all: "0.02 %", "99.98 %".
    """
    if value is None:
        return "—"
    if unit != "number":
        return f"{write_apart(100 * value, 0, 100, digits=1)} %"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def format_fact(fact: Any) -> str:
    """Writes an argument or a setting of any kind: names with their values, and lists, without Python's brackets."""
    if isinstance(fact, Mapping):
        return "; ".join(f"{str(name).replace('_', ' ')}: {format_fact(value)}" for name, value in fact.items())
    if isinstance(fact, list | tuple):
        return ", ".join(format_fact(each) for each in fact) or "none"
    if fact is None or fact == "":
        return "none"
    return ("yes" if fact else "no") if isinstance(fact, bool) else str(fact)


def format_estimate(e: Estimate, unit: str = "share") -> str:
    """Writes value, interval and n in one line."""
    if e.value is None:
        return f"not judged (n = 0, {e.unscored} unscored)"
    interval = f"{format_number(e.low, unit)} to {format_number(e.high, unit)}"
    if unit == "number" and e.n == 1:
        interval = "one number has no interval"
    unscored = f", {e.unscored} unscored" if e.unscored else ""
    return f"{format_number(e.value, unit)} ({interval}; n = {e.n}{unscored})"


def format_stacked(e: Estimate, unit: str = "share") -> Markup:
    """Writes the value, and below it interval and n, for narrow columns."""
    return _format_below(format_estimate(e, unit))


def format_drop(d: Drop | None, unit: str = "share") -> str:
    """Writes the loss or gain from base to edited model, with its interval.

    Of a share: "39.1 points lost (29.7 to 43.8)", "76.6 points gained (64.1 to 87.5)", "3.6 points lost (2.0 gained to
    9.4 lost)".  Of any other number: "fell by 0.239 (0.197 to 0.280)", "rose by …".
    """
    if d is None:
        return "—"
    mixed = d.low < 0 < d.high
    ends = (d.low, d.high) if mixed else sorted((d.low, d.high), key=abs)
    if unit == "number":
        low, high = (f"{-v if mixed and d.value < 0 else v if mixed else abs(v):.3g}" for v in ends)
        return f"{'fell' if d.value >= 0 else 'rose'} by {abs(d.value):.3g} ({low} to {high})"
    low, high = (f"{100 * abs(v):.1f}{_name_direction(v) if mixed else ''}" for v in ends)
    return f"{100 * abs(d.value):.1f} points{_name_direction(d.value)} ({low} to {high})"


def _name_direction(lost: float) -> str:
    return " gained" if lost < 0 else " lost"


def format_stacked_drop(d: Drop | None, unit: str = "share") -> Markup:
    """Writes the loss, and below it the interval."""
    return _format_below(format_drop(d, unit))


def format_stacked_lift(d: Drop | None) -> Markup:
    """Writes by how many points an attack's success rate exceeds that of random prefixes, and below it the interval."""
    text = "—" if d is None else f"{100 * d.value:+.1f} points ({100 * d.low:+.1f} to {100 * d.high:+.1f})"
    return _format_below(text)


def _format_below(line: str) -> Markup:
    value, _, rest = line.partition(" (")
    below = Markup(' <br><span class="interval">{}</span>').format(rest.removesuffix(")")) if rest else ""
    return escape(value) + below


def format_name(m: Measure) -> str:
    """A number's name, as the gate reads it."""
    return f"{m.metric}{'' if m.threshold is None else f'[{m.threshold:g}]'}@{m.group}"


def format_card_title(m: Measure) -> str:
    """What a headline is about, with the number of labels that count if that is not one, and a detector's threshold."""
    if found := re.fullmatch(r"(esr|psr)(\d+)", m.metric):
        about = f"Erased: {m.group}" if found[1] == "esr" else f"Kept: {GROUPS.get(m.group, m.group)}"
        return about if found[2] == "1" else f"{about}, first {found[2]} answers"
    return f"{m.metric}{'' if m.threshold is None else f' over {m.threshold:g}'}: {m.group}"


def format_title(m: Measure) -> str:
    """What a number counts, in words: "no judge sees it: the target"; other titles as they are."""
    found = re.fullmatch(r"(gone from|shown in) top (\d+): (.*)", m.title)
    if found is None:
        return m.title
    gone, k = found[1] == "gone from", int(found[2])
    who = ("no judge" if gone else "every judge") if m.judge == "all" else "the judge"
    sees = "does not see it" if gone and m.judge != "all" else "sees it"
    among = f" among its first {k} answers" if k > 1 else ""
    return f"{who} {sees}{among}: {found[3]}"


def format_more(pictures: int) -> str:
    """Writes an estimated number of pictures with two digits: "about 280 more pictures"."""
    unit = 10 ** max(0, len(str(pictures)) - 2)
    return "about " + write_count(-(-pictures // unit) * unit, "more picture")


def format_targets(targets: Sequence[str]) -> str:
    """Writes concepts in quotation marks: “cat” or “tiger”."""
    quoted = [f"“{t}”" for t in targets[:3]]
    more = f" or {len(targets) - 3} more" if len(targets) > 3 else ""
    return " or ".join(quoted) + more


def format_group(group: str, titles: Mapping[str, str]) -> str:
    """The words for the things of a group of rows in a sentence, in the plural."""
    return GROUPS.get(group) or (f"“{titles[group]}”" if group in titles else group)


def format_brief(share: float, *bars: float) -> str:
    """Writes a share for a sentence: "62 %", "3.6 %", "0.4 %", and as none, all or a limit only what is just that."""
    return f"{_shorten(100 * share, 100, *(100 * bar for bar in bars))} %"


def format_bar(share: float) -> str:
    """Writes a limit as a percentage without needless digits."""
    return f"{round(100 * share, 6):g} %"


def format_points(share: float, *bars: float) -> str:
    """Writes a difference of shares in points: "27 points", "1 point", and as a limit only what is just that."""
    text = _shorten(100 * share, *(100 * bar for bar in bars))
    return f"{text} {'point' if text == '1' else 'points'}"


def _shorten(number: float, *bars: float) -> str:
    text = write_apart(number, 0, *bars, digits=0 if abs(number) >= 10 else 1)
    return text.rstrip("0").rstrip(".") if "." in text else text


def pick_worst_outcome(outcomes: Sequence[str]) -> str:
    """The outcome of a card: the worst of its rules; "" where it has none."""
    return next((o for o in ("failed", "unjudged", "holds") if o in outcomes), "")
