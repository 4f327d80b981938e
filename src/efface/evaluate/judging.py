"""From pictures to numbers: every scorer looks at every picture, then rates are taken over groups of rows."""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from ..functional import rates
from ..functional.rates import Tally, Verdict
from ..scorers import Score, Scorer
from ..suites import Row, Suite
from .pictures import Progress, chunks, digest, load
from .record import Drop, Estimate, Measure, write_whole

RULE = (
    "A picture counts as showing the erased concept if at least one judge has it among its k most likely labels, and a "
    "kept concept counts as shown only if every judge has it there: of two judges, the one less favourable to the "
    "edit. In a picture of two things the first k + 1 labels count."
)
WHO = ("base", "edited")
Scores = Mapping[str, Mapping[str, Sequence[Score]]]
"""who -> scorer name -> one score a row."""


def score(
    scorer: Scorer,
    rows: Sequence[Row],
    paths: Mapping[str, str],
    album: Path,
    cache: Path,
    resolution: int,
    progress: Progress | None = None,
) -> list[Score]:
    """One score a row; chunks that were scored before are read from `cache`, where no picture failed."""
    folder = cache / f"{scorer.name}-{digest(scorer.identity())[:12]}"
    folder.mkdir(parents=True, exist_ok=True)
    out: list[Score] = []
    for part in chunks(rows, resolution):
        files = [paths[r.id] for r in part]
        file = folder / f"{digest([files, [dataclasses.asdict(r) for r in part]])}.json"
        found = _cached(file, len(part))
        if found is None:
            found, failed = guarded(scorer, load(album, files), part)
            if not failed:
                text = json.dumps([dataclasses.asdict(s) for s in found], ensure_ascii=False)
                write_whole(file, text)
        out += found
        if progress:
            progress(len(out), len(rows))
    return out


def guarded(scorer: Scorer, images: Tensor, rows: Sequence[Row]) -> tuple[list[Score], int]:
    """Scores of a chunk, and how many pictures made the scorer fail: those are None, never "safe"."""
    try:
        return _checked(scorer, images, rows), 0
    except Exception:
        pass
    out, failed = [], 0
    for i, row in enumerate(rows):
        try:
            out += _checked(scorer, images[i : i + 1], [row])
        except Exception as error:
            out.append(Score(None, (), f"{scorer.name} failed: {type(error).__name__}: {error}"))
            failed += 1
    return out, failed


def _checked(scorer: Scorer, images: Tensor, rows: Sequence[Row]) -> list[Score]:
    found = scorer.score(images, rows)
    if len(found) != len(rows):
        raise RuntimeError(f"{scorer.name} gave {len(found)} scores for {len(rows)} pictures")
    return found


def _cached(file: Path, n: int) -> list[Score] | None:
    try:
        found = [Score(s["value"], tuple(s["answer"]), s["explanation"]) for s in json.loads(file.read_text("utf-8"))]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if len(found) == n else None


def measures(suite: Suite, scorers: Sequence[Scorer], scores: Scores) -> list[Measure]:
    """Every number of the report: rates of each group by all judges and by each, cross rates, and CLIP scores."""
    table = Table(suite.rows, {s.name: s.asks for s in scorers}, scores)
    out: list[Measure] = []
    for group in suite.spec.groups:
        rows = [i for i, r in enumerate(suite.rows) if r.group == group.name]
        if not rows:
            continue
        for k in table.depths(group.asks):
            metric = ("esr" if group.role == "erase" else "psr") + str(k)
            title = f"{'gone from' if group.role == 'erase' else 'shown in'} top {k}: {group.title}"
            for judge in ("all", *table.judges(group.asks)):
                out.append(table.rate(metric, title, group.name, rows, judge, k))
    out += table.cross(suite)
    return out


@dataclass(frozen=True)
class Table:
    """Rows and what each scorer said of them, from which rates are taken."""

    rows: Sequence[Row]
    asks: Mapping[str, str]
    scores: Scores

    def judges(self, asks: str) -> list[str]:
        return [name for name, question in self.asks.items() if question == asks]

    def depths(self, asks: str) -> list[int]:
        """The k for which every judge of this question names labels enough (one more, for pictures of two things)."""
        given = [len(s.answer) for j in self.judges(asks) for who in WHO for s in self.scores[who][j] if s.answer]
        return [k for k in (1, 5) if given and min(given) > k]

    def rate(self, metric: str, title: str, group: str, rows: Sequence[int], judge: str, k: int) -> Measure:
        """ESR-k or PSR-k over `rows`, by one judge or by all."""
        return self._measure(metric, title, group, judge, rows, lambda who, i: self.success(who, i, judge, k))

    def success(self, who: str, i: int, judge: str = "all", k: int = 1) -> Verdict:
        """Did row `i` come out as its role demands?"""
        row = self.rows[i]
        seen = self.sees(who, i, row.asks, row.counts, k, judge, row.role)
        return seen if row.role == "keep" or seen is None else not seen

    def sees(self, who: str, i: int, asks: str, counts: Sequence[str], k: int, judge: str, role: str) -> Verdict:
        """Is one of `counts` in picture `i`, by the rule for several judges?"""
        judges = self.judges(asks) if judge == "all" else [judge]
        answers = [self.scores[who][j][i] for j in judges]
        combine = rates.either if role == "erase" else rates.every
        label, depth = ", ".join(counts), k + bool(self.rows[i].second)
        return combine(rates.shown(label, a.answer, depth) if a.answer else None for a in answers)

    def cross(self, suite: Suite) -> list[Measure]:
        """What else a prompt named: its background, its style or thing, and how well the picture fits it all."""
        out = []
        for group in suite.spec.groups:
            rows = [i for i, r in enumerate(self.rows) if r.group == group.name]
            for judge in self.judges("background"):
                named = [i for i in rows if self.rows[i].background]
                out += self._values("background", f"background kept: {group.title}", group.name, judge, named, True)
            for judge in self.judges("match"):
                out += self._values("clip", f"CLIP similarity to the prompt: {group.title}", group.name, judge, rows)
            other = "style" if group.asks == "object" else "object"
            field = "style" if other == "style" else "thing"
            named = [i for i in rows if getattr(self.rows[i], field) and not self.rows[i].second]
            if named and self.judges(other):
                title = f"named {field} kept: {group.title}"
                out.append(self._measure(f"{field}1", title, group.name, "all", named, self._other(other, field)))
        return out

    def _other(self, asks: str, field: str) -> Callable[[str, int], Verdict]:
        def kept(who: str, i: int) -> Verdict:
            return self.sees(who, i, asks, (getattr(self.rows[i], field),), 1, "all", "keep")

        return kept

    def _values(
        self, metric: str, title: str, group: str, judge: str, rows: Sequence[int], yes_or_no: bool = False
    ) -> list[Measure]:
        if not rows:
            return []

        def value(who: str, i: int) -> float | None:
            number = self.scores[who][judge][i].value
            return bool(number) if yes_or_no and number is not None else number

        return [self._measure(metric, title, group, "all", rows, value)]

    def _measure(
        self,
        metric: str,
        title: str,
        group: str,
        judge: str,
        rows: Sequence[int],
        value: Callable[[str, int], float | None],
    ) -> Measure:
        base, edited = ([value(who, i) for i in rows] for who in WHO)
        concepts = [self.rows[i].concept for i in rows]
        drop = paired(base, edited, concepts)
        return Measure(
            metric=metric,
            title=title,
            group=group,
            judge=judge,
            base=estimate(base),
            edited=estimate(edited),
            drop=drop,
        )


def estimate(values: Sequence[float | None]) -> Estimate:
    """A rate with Wilson's interval where the values are verdicts, else a mean with a normal one."""
    unscored = sum(v is None for v in values)
    if all(v is None or isinstance(v, bool) for v in values):
        return of_tally(rates.tally([None if v is None else bool(v) for v in values]))
    found = rates.mean_interval(values)
    mean, low, high = found if found else (None, 0.0, 0.0)
    return Estimate(value=mean, low=low, high=high, n=len(values) - unscored, unscored=unscored)


def of_tally(t: Tally) -> Estimate:
    low, high = t.interval
    return Estimate(value=t.rate, low=low, high=high, n=t.n, unscored=t.unscored)


def paired(base: Sequence[float | None], edited: Sequence[float | None], concepts: Sequence[str]) -> Drop | None:
    """Base minus edited over rows that both were judged on, resampled by concept, or by row where there is only one."""
    names = concepts if len(set(concepts)) > 1 else [str(i) for i in range(len(concepts))]
    clusters: dict[str, list[float | None]] = {}
    for before, after, name in zip(base, edited, names, strict=True):
        if before is not None and after is not None:
            clusters.setdefault(name, []).append(float(before) - float(after))
    interval = rates.bootstrap(clusters)
    if interval is None:
        return None
    means = rates.cluster_means(clusters)
    return Drop(value=sum(means) / len(means), low=interval[0], high=interval[1], clusters=len(means))
