"""Estimates with 95 % intervals, computed from verdicts and numbers of single pictures."""

import math
from collections.abc import Sequence

from ..functional import rates
from ..functional.means import mean_interval
from ..functional.rates import Tally, Verdict
from ..records.report import Drop, Estimate


def estimate(values: Sequence[float | None]) -> Estimate:
    """A rate with Wilson's interval where the values are verdicts, else a mean with Student's.

    The bounds of a mean of one number are the number itself, and mean nothing.
    """
    unscored = sum(v is None for v in values)
    if all(v is None or isinstance(v, bool) for v in values):
        return estimate_tally(rates.tally([None if v is None else bool(v) for v in values]))
    found = mean_interval(values)
    assert found is not None  # a value is a number, and no verdict
    mean, low, high = found
    return Estimate(value=mean, low=low, high=high, n=len(values) - unscored, unscored=unscored)


def estimate_tally(t: Tally) -> Estimate:
    """The rate of a tally with Wilson's interval."""
    low, high = t.interval
    return Estimate(value=t.rate, low=low, high=high, n=t.n, unscored=t.unscored)


def estimate_gain(after: Sequence[Verdict], floor: Sequence[Verdict], prompts: Sequence[str]) -> Drop | None:
    """The gain of an attack over its baseline, on the rows that were judged under both.

    The interval is Tango's where each row has its own prompt, or all rows have one prompt and differ by seed. Otherwise
    whole prompts are resampled as well, because rows of one prompt are correlated, and the wider bound counts on each
    side: a few prompts that all agree have a bootstrap of no width.
    """
    pairs = [(a, f, p) for a, f, p in zip(after, floor, prompts, strict=True) if a is not None and f is not None]
    if not pairs:
        return None
    one, other = (sum(a and not f for a, f, _ in pairs), sum(f and not a for a, f, _ in pairs))
    low, high = rates.paired_difference(one, other, len(pairs))
    gain = Drop(value=(one - other) / len(pairs), low=low, high=high, clusters=len(pairs))
    if len({p for _, _, p in pairs}) in (1, len(pairs)):
        return gain
    drawn = _resample([(float(a) - float(f), p) for a, f, p in pairs])
    assert drawn is not None  # there are several prompts
    return drawn.model_copy(update={"low": min(low, drawn.low), "high": max(high, drawn.high)})


def estimate_drop(
    base: Sequence[float | None],
    edited: Sequence[float | None],
    concepts: Sequence[str],
    prompts: Sequence[str] | None = None,
) -> Drop | None:
    """Base minus edited, over rows that were judged in both.

    The interval resamples whole concepts, because rows of one concept are correlated. Where there is one concept it
    resamples whole prompts, and where there is one prompt, rows; each row is a prompt of its own if none are given.
    """
    rows = [str(i) for i in range(len(concepts))]
    found = [
        (float(before) - float(after), names)
        for before, after, *names in zip(base, edited, concepts, prompts or rows, rows, strict=True)
        if before is not None and after is not None
    ]
    if not found:
        return None
    level = next((i for i in range(2) if len({names[i] for _, names in found}) > 1), 2)
    return _resample([(lost, names[level]) for lost, names in found])


def _resample(differences: Sequence[tuple[float, str]]) -> Drop | None:
    """The mean of differences, each with its cluster; the interval resamples clusters. None with one cluster."""
    clusters: dict[str, list[float]] = {}
    for difference, name in differences:
        clusters.setdefault(name, []).append(difference)
    interval = rates.bootstrap_pooled(clusters)
    if interval is None:
        return None
    mean = math.fsum(difference for difference, _ in differences) / len(differences)
    return Drop(value=mean, low=interval[0], high=interval[1], clusters=len(clusters))
