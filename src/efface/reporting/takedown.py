"""Renders the takedown record as one page to print."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..compliance.takedown import Finding, Result, Takedown
from ..evaluation.evaluate import find_image_store
from ..evaluation.rows_table import read_rows
from .clauses import list_clauses
from .gallery import describe_outcome, make_thumbnail
from .template import make_environment
from .verdict import ReportVerdict

SHOWN = 3
"""The number of pairs of pictures on the page."""


def build_result(verdict: ReportVerdict) -> Result:
    """Converts a verdict to the form in a record."""
    rules = tuple(Finding(claim=r.claim, found=r.found, outcome=r.outcome) for r in verdict.rules)
    return Result(policy=verdict.policy, outcome=verdict.outcome, sentence=verdict.sentence, rules=rules)


def pick_pictures(folder: Path, count: int = SHOWN) -> list[tuple[str, str, str, str]]:
    """The first pairs of the target that the base shows: prompt, outcome, and both pictures as WebP in base64.

    Args:
        folder: the evaluation's folder.
        count: the number of pairs.
    """
    lines, store = read_rows(folder), find_image_store(folder)
    after = {line["id"]: line for line in lines if line["variant"] == "edited"}
    asked = [line for line in lines if line["variant"] == "base" and line["role"] == "erase"]
    shown = [line for line in asked if line["success"] is False] or asked
    found = []
    for line in shown[:count]:
        other = after[line["id"]]
        word = describe_outcome(line["role"], line["success"], other["success"])
        pictures = [make_thumbnail(store / each["picture"]) for each in (line, other)]
        found.append((line["prompt"], word, pictures[0], pictures[1]))
    return found


def render_takedown(takedown: Takedown, pictures: Sequence[tuple[str, str, str, str]] = ()) -> str:
    """Renders the page, which needs no network; `pictures` come from `pick_pictures`."""
    heads = {tuple(h.split("/")[:2]) for h in takedown.headlines}
    first = [m for m in takedown.rates if (m.metric, m.group) in heads]
    shown = first + [m for m in takedown.rates if m not in first and m.metric in ("esr1", "psr1", "robust", "asr")]
    page = make_environment().get_template("takedown.html")
    return page.render(t=takedown, rates=shown, pictures=pictures, clauses=list_clauses(takedown))
