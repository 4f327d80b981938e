"""Published results beside the report's own: the same number from every source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..evaluation.published import Published
from ..records.report import Estimate, Record
from .svg import Curve, Series, draw_curve, format_metric


@dataclass(frozen=True)
class Beside:
    """One number of one source."""

    name: str
    source: str
    ours: bool
    title: str
    estimate: Estimate
    unit: str


def list_beside(published: Sequence[Published], records: Sequence[tuple[str, Record]]) -> list[Beside]:
    """Every number of the published files, each followed by the report's own of the same name under the edits."""
    out = []
    metrics = list(dict.fromkeys(r.metric for p in published for r in p.rates))
    numbers = {(r.metric, r.threshold) for p in published for r in p.rates}
    for metric, threshold in sorted(numbers, key=lambda pair: (metrics.index(pair[0]), pair[1] or 0.0)):
        name = metric if threshold is None else f"{metric}[{threshold:g}]"
        for p in published:
            if rate := p.find(metric, threshold):
                out.append(Beside(name, p.name, False, rate.title, rate.estimate, rate.unit))
        for title, record in records:
            for m in record.measures:
                alone = m.judge == "all" or not record.find(metric, m.group)
                if (m.metric, m.threshold) == (metric, threshold) and alone:
                    out.append(Beside(name, title, True, m.title, m.edited, m.unit))
    return out


def plot_published(published: Sequence[Published]) -> list[Curve]:
    """A plot for each number that files have at several thresholds, with a line for each file."""
    out = []
    for metric in dict.fromkeys(r.metric for p in published for r in p.rates if r.threshold is not None):
        lines = []
        for p in published:
            taken = sorted((r.threshold, r) for r in p.rates if r.metric == metric and r.threshold is not None)
            if len(taken) > 1:
                lines.append(Series(p.name, "edit", [(t, r.estimate) for t, r in taken]))
        if lines:
            share = metric != "detections"
            out.append(Curve(f"{format_metric(metric)} by threshold", draw_curve(lines, metric, share)))
    return out
