"""Checks that every scorer works before anything is drawn, and that something was measured afterwards."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..origin import identify
from ..records.report import Measure
from ..scorers import Judge
from ..scorers.base import JUDGED, Scorer, SetScorer
from ..suites.spec import Row
from .asking import ScorerWatch
from .images import VARIANTS, digest
from .judging import ScoreTable, explain_failure, score_safely

TRIED = 8
"""The largest number of rows, one for each group, with which a scorer is tried; the first success is enough."""


class Unmeasured(RuntimeError):
    """An evaluation measured nothing, so that no report can be made."""


def try_scorers(
    scorers: Sequence[Judge],
    rows: Sequence[Row],
    side: int,
    cache: Path | None = None,
    watch: ScorerWatch | None = None,
) -> None:
    """Loads every scorer and tries it on a small picture, before any work that would be in vain.

    The picture is black; where a scorer fails on it, one of random colours is tried, so that only a scorer that fails
    on both is refused.

    Args:
        scorers: the scorers.
        rows: the rows that will be judged.
        side: pixels a side of the pictures that will be drawn.
        cache: the folder of scores; a scorer with scores there is not tried again.
        watch: ends calls that take too long; by default one with the usual limit.

    Raises:
        Unmeasured: a scorer fails for every picture, for example because its weights are damaged; the message has its
            own words.
    """
    watch = watch or ScorerWatch()
    random = torch.randint(256, (1, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pictures = (torch.zeros_like(random), random)
    networks = {digest(identify(s.network)): s for s in scorers if isinstance(s, SetScorer)}
    for scorer in [*(s for s in scorers if not isinstance(s, SetScorer)), *networks.values()]:
        if cache is not None and _has_answered(scorer, cache):
            continue
        if failure := _try(scorer, rows, pictures, watch):
            raise Unmeasured(f"nothing was drawn, because scorer {scorer.name} fails on every picture: {failure}")


def require_measured(table: ScoreTable, found: Sequence[Measure]) -> None:
    """Checks that an evaluation measured something.

    Raises:
        Unmeasured: there is no measure, or no judge of a question could judge any picture; the message has a judge's
            own words.
    """
    for question in dict.fromkeys(row.asks for row in table.rows if row.asks in JUDGED):
        asked = [i for i, row in enumerate(table.rows) if row.asks == question]
        judges = table.list_judges(question)
        if judges and all(table.successes[variant][i] is None for variant in VARIANTS for i in asked):
            said = [table.scores[variant][j][i].explanation for variant in VARIANTS for j in judges for i in asked]
            words = next((text for text in said if text), "the judges gave no reason")
            raise Unmeasured(
                f"no judge of {question!r} ({', '.join(judges)}) could judge any of {len(VARIANTS) * len(asked)} "
                f"pictures, so there is no report: {words}"
            )
    if not any(m.base.n or m.edited.n for m in found):
        why = next((f": {m.title}" for m in found if "failed" in m.title), "; ask others with --scorer")
        raise Unmeasured(f"the scorers gave no number for any picture, so there is no report{why}")


def _has_answered(scorer: Judge, cache: Path) -> bool:
    if isinstance(scorer, SetScorer):
        return any((cache / f"features-{digest(identify(scorer.network))[:12]}").glob("*.safetensors"))
    return any((cache / f"{scorer.name}-{digest(identify(scorer))[:12]}").glob("*.json"))


def _try(scorer: Judge, rows: Sequence[Row], pictures: Sequence[Tensor], watch: ScorerWatch) -> str:
    """The reason why a scorer fails on each of the pictures, [1, 3, h, w] each; "" where it scores one."""
    failure = ""
    for picture in pictures:
        if isinstance(scorer, SetScorer):
            found = _try_set(scorer, picture, watch)
        else:
            found = _try_rows(scorer, rows, picture, watch)
        if not found:
            return ""
        failure = failure or found
    return failure


def _try_rows(scorer: Scorer, rows: Sequence[Row], picture: Tensor, watch: ScorerWatch) -> str:
    """The reason why a scorer fails on a picture for each of a few rows of its question; "" where it scores one."""
    asked = [row for row in rows if row.asks == scorer.question] or rows
    failure = ""
    for row in list({row.group: row for row in reversed(asked)}.values())[:TRIED]:
        found, failed = score_safely(scorer, picture, [row], picture, watch)
        if not failed:
            return ""
        failure = failure or found[0].explanation
    return failure


def _try_set(scorer: SetScorer, picture: Tensor, watch: ScorerWatch) -> str:
    """The reason why the network of a set scorer fails; "" where it does not."""
    try:
        features = watch.call(scorer.network.name, lambda: scorer.network.extract_features(picture))
    except Exception as error:
        return explain_failure(scorer.network.name, error)
    return "" if features.isfinite().all() else f"{scorer.network.name} gives NaN or infinite features"
