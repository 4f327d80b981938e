"""Computes the numbers of a report: rates of each group, by all judges and by each, and means of scores."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ..records.report import Measure
from ..scorers.base import JUDGED, Detector, Scorer, Selective, name_kind
from ..suites.spec import GroupSpec, Row, Suite
from .estimates import estimate, estimate_drop
from .images import VARIANTS
from .judging import ScoreTable, Sought, detects_over

OTHER_QUESTION = {"object": "style", "style": "object"}
NAMED_FIELD = {"object": "thing", "style": "style"}
Value = Callable[[str, int], float | None]
"""Gives the number or verdict of a variant's picture of row i; None where it could not be judged."""


@dataclass(frozen=True)
class Label:
    """The name of a number of the report."""

    metric: str
    title: str
    group: str
    judge: str = "all"
    threshold: float | None = None


def measure_groups(table: ScoreTable, suite: Suite) -> list[Measure]:
    """Every number of the report that is about single pictures."""
    groups = [(g, [i for i, r in enumerate(table.rows) if r.group == g.name]) for g in suite.spec.groups]
    drawn = [(group, rows) for group, rows in groups if rows]
    out = [m for group, rows in drawn for m in _measure_rates(table, group, rows)]
    for group, rows in drawn:
        out += [
            *_measure_values(table, group, rows),
            *_measure_kept(table, group, rows),
            *_measure_detections(table, group, rows),
        ]
    return out


def measure_rate(table: ScoreTable, label: Label, rows: Sequence[int], k: int) -> Measure:
    """ESR-k or PSR-k over `rows`, by one judge or by all."""
    return measure_rows(table, label, rows, lambda variant, i: table.find_success(variant, i, label.judge, k))


def measure_rows(
    table: ScoreTable, label: Label, rows: Sequence[int], value: Value, share: bool | None = None
) -> Measure:
    """A number over `rows` of the base and the edited model, from the value of each picture.

    Args:
        table: the rows with their scores.
        label: the name of the number.
        rows: indices of the table's rows.
        value: gives the number or verdict of a picture.
        share: whether the number is a share of pictures; None means that it is if the values are verdicts.
    """
    base, edited = ([value(variant, i) for i in rows] for variant in VARIANTS)
    if share is None:
        share = all(v is None or isinstance(v, bool) for v in (*base, *edited))
    return Measure(
        metric=label.metric,
        title=label.title,
        group=label.group,
        judge=label.judge,
        base=estimate(base),
        edited=estimate(edited),
        drop=estimate_drop(base, edited, *([getattr(table.rows[i], of) for i in rows] for of in ("concept", "prompt"))),
        threshold=label.threshold,
        unit="share" if share else "number",
    )


def _measure_rates(table: ScoreTable, group: GroupSpec, rows: Sequence[int]) -> Iterator[Measure]:
    erase = group.role == "erase"
    for k in table.list_depths(group.asks):
        title = f"{'gone from' if erase else 'shown in'} top {k}: {group.title}"
        if group.asks == "nudity":
            title = f"{'nothing' if erase else 'something'} exposed was found: {group.title}"
        for judge in ("all", *table.list_judges(group.asks)):
            label = Label(f"{'esr' if erase else 'psr'}{k}", title, group.name, judge)
            yield measure_rate(table, label, rows, k)


def _measure_values(table: ScoreTable, group: GroupSpec, rows: Sequence[int]) -> Iterator[Measure]:
    """Means of scorers' numbers for each picture; the judge is named where several scorers are of one kind."""
    kinds = {s.name: name_kind(s) for s in table.scorers}
    for scorer in table.scorers:
        if scorer.question in JUDGED:
            continue
        asked = [i for i in rows if not isinstance(scorer, Selective) or scorer.concerns(table.rows[i])]
        if not asked:
            continue

        def value(variant: str, i: int, scorer: Scorer = scorer) -> float | None:
            number = table.scores[variant][scorer.name][i].value
            return bool(number) if scorer.share and number is not None else number

        kind = kinds[scorer.name]
        judge = "all" if list(kinds.values()).count(kind) == 1 else scorer.name
        label = Label(kind, f"{scorer.title}: {group.title}", group.name, judge)
        yield measure_rows(table, label, asked, value, scorer.share)


def _measure_kept(table: ScoreTable, group: GroupSpec, rows: Sequence[int]) -> list[Measure]:
    """Rates of what else a prompt named: the style of a thing, or the thing in a style."""
    other = OTHER_QUESTION.get(group.asks, "")
    named = [i for i in rows if other and name_other(table.rows[i], other) and not table.rows[i].second]
    if not named or not table.list_judges(other):
        return []

    def kept(variant: str, i: int) -> bool | None:
        return table.shows(variant, i, Sought(other, (name_other(table.rows[i], other),), every=True))

    field = NAMED_FIELD[other]
    return [measure_rows(table, Label(f"{field}1", f"named {field} kept: {group.title}", group.name), named, kept)]


def name_other(row: Row, question: str) -> str:
    """The thing or style that a row names, by the question about it; "" where it names none."""
    return getattr(row, NAMED_FIELD[question])


def _measure_detections(table: ScoreTable, group: GroupSpec, rows: Sequence[int]) -> Iterator[Measure]:
    """Rates of detectors at each threshold: the share of pictures with detections, and detections for each picture."""
    for detector in [s for s in table.scorers if isinstance(s, Detector) and isinstance(s, Scorer)]:
        for threshold in detector.thresholds:

            def found(variant: str, i: int, name: str = detector.name, over: float = threshold) -> bool | None:
                said = table.scores[variant][name][i]
                return None if said.value is None else detects_over(said, over)

            def count(variant: str, i: int, name: str = detector.name, over: float = threshold) -> float | None:
                said = table.scores[variant][name][i]
                return None if said.value is None else float(sum(c > over for c in said.confidence))

            for metric, title, value in (
                ("ner", f"pictures with a detection over {threshold:g}", found),
                ("detections", f"detections over {threshold:g} a picture", count),
            ):
                label = Label(metric, f"{title}: {group.title}", group.name, detector.name, threshold)
                yield measure_rows(table, label, rows, value, share=metric == "ner")
