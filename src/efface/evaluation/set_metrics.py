"""Scores of sets of pictures (KID, FID, precision, recall, diversity), for each group and each pool of groups.

Features are computed chunk by chunk and stored, so that scorers with the same network share them, and an interrupted
evaluation continues. A picture whose features could not be computed is left out with its counterpart, and counted.
"""

import dataclasses
import json
import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..files import read_json, read_tensors, write_tensors, write_whole
from ..origin import identify
from ..plurals import write_count
from ..records.report import Estimate, Measure
from ..scorers import Judge
from ..scorers.base import Network, SetScorer, Spread, name_kind
from ..suites.spec import Row, Suite
from .asking import ScorerWatch
from .images import VARIANTS, ImageSet, digest, is_lost
from .protocols import Pool

Features = Mapping[str, Mapping[str, Tensor]]
"""The features [d] of each picture, by variant and row id."""


@dataclass(frozen=True)
class Portion:
    """A group of rows, or a pool of groups, for which one number is computed."""

    name: str
    title: str
    rows: Sequence[Row]


def measure_sets(
    scorers: Sequence[Judge],
    images: ImageSet,
    portions: Sequence[Portion],
    cache: Path,
    on_progress: Callable[[int, int], None] | None = None,
    watch: ScorerWatch | None = None,
) -> list[Measure]:
    """Every number of the report that is about sets of pictures; groups with too few pictures have none.

    Args:
        scorers: the scorers, of which those of sets are used.
        images: the pictures.
        portions: the groups and pools.
        cache: the folder of features and numbers.
        on_progress: called with the number of pictures whose features are done, and their total.
        watch: ends calls that take too long; by default one with the usual limit.
    """
    watch = watch or ScorerWatch()
    wanted = [s for s in scorers if isinstance(s, SetScorer)]
    networks = {digest(identify(s.network)): s.network for s in wanted}
    total, done = len(networks) * len(VARIANTS) * len(images.rows), 0
    seen: dict[str, Features] = {}
    for key, network in networks.items():
        found: dict[str, dict[str, Tensor]] = {}
        failed: list[Exception] = []
        for variant in VARIANTS:
            found[variant] = _compute_features(network, images, variant, cache / f"features-{key[:12]}", watch, failed)
            done += len(images.rows)
            if on_progress:
                on_progress(done, total)
        _tell(network, failed)
        seen[key] = found
    measured = [
        _measure(scorer, portion, seen[digest(identify(scorer.network))], images, cache)
        for portion in portions
        for scorer in wanted
    ]
    return [m for m in measured if m is not None]


def list_portions(suite: Suite, pools: Sequence[Pool] = ()) -> list[Portion]:
    """The suite's groups that have rows, then the pools."""
    groups = [Portion(g.name, g.title, suite.select_group(g.name)) for g in suite.spec.groups]
    joined = [Portion(p.name, p.title, [r for r in suite.rows if r.group in p.groups]) for p in pools]
    return [p for p in (*groups, *joined) if p.rows]


def _compute_features(
    network: Network, images: ImageSet, variant: str, folder: Path, watch: ScorerWatch, failed: list[Exception]
) -> dict[str, Tensor]:
    """Finite features [d] by row id, without those of pictures on which the network failed."""
    out: dict[str, Tensor] = {}
    for part in images.split_chunks():
        file = folder / f"{digest(images.list_paths(variant, part))}.safetensors"
        found = _read_kept(file)
        if found is None:
            found = _compute_guarded(network, images.load(variant, part), watch, failed)
            if len(found) == len(part):
                write_tensors(file, {"features": torch.stack(list(found.values()))}, {"kind": "features"})
        whole = [not is_lost(path) for path in images.list_paths(variant, part)]
        out |= {part[i].id: feature for i, feature in found.items() if whole[i]}
    return out


def _read_kept(file: Path) -> dict[int, Tensor] | None:
    try:
        return dict(enumerate(read_tensors(file)[0]["features"]))
    except (OSError, ValueError, KeyError):
        return None


def _compute_guarded(
    network: Network, images: Tensor, watch: ScorerWatch, failed: list[Exception]
) -> dict[int, Tensor]:
    """Features [d] by index, of all pictures at once, or one by one where that fails."""

    def see(part: Tensor) -> Tensor:
        return watch.call(network.name, lambda: network.extract_features(part))

    try:
        return _keep_finite(see(images), range(len(images)))
    except Exception:
        pass
    found: dict[int, Tensor] = {}
    for i in range(len(images)):
        try:
            found |= _keep_finite(see(images[i : i + 1]), [i])
        except Exception as error:
            failed.append(error)
    return found


def _tell(network: Network, failed: Sequence[Exception]) -> None:
    """Warns where a network failed, because the report only counts pictures without features."""
    if failed:
        said = f"{type(failed[0]).__name__}: {failed[0]}"
        warnings.warn(
            f"{network.name} gave no features of {write_count(len(failed), 'picture')}; the first: {said}", stacklevel=2
        )


def _keep_finite(features: Tensor, places: Sequence[int]) -> dict[int, Tensor]:
    return {i: f for i, f in zip(places, features, strict=True) if f.isfinite().all()}


def _measure(scorer: SetScorer, portion: Portion, seen: Features, images: ImageSet, cache: Path) -> Measure | None:
    """The scorer's number for a portion, or None where it has too few pictures."""
    rows = [r for r in portion.rows if all(r.id in seen[variant] for variant in VARIANTS)]
    lost, failure = len(portion.rows) - len(rows), ""
    asked = [[images.paths[variant][r.id] for variant in VARIANTS] for r in rows], [dataclasses.asdict(r) for r in rows]
    file = cache / f"{scorer.name}-{digest(identify(scorer))[:12]}" / f"{digest(asked)}.json"
    try:
        found = _read_remembered(file)
        if found is None and rows:
            base, edited = (torch.stack([seen[variant][r.id] for r in rows]) for variant in VARIANTS)
            found = scorer.compare(base, edited, rows, images.resolution)
            if found and not _is_finite(found):
                raise ArithmeticError("its numbers are NaN or infinite")
            if found:
                write_whole(file, json.dumps([dataclasses.asdict(s) for s in found]))
    except Exception as error:
        found, failure, lost = None, f" (failed: {type(error).__name__}: {error})", len(portion.rows)
    if found is None and not lost:
        return None
    before, after = found or (Spread(None, 0.0, 0.0, 0),) * 2
    # A set may have half of the pictures: what is unscored is in the same proportion to the set as to the portion.
    lost = math.ceil(lost * before.n / len(rows)) if found else lost
    return Measure(
        metric=name_kind(scorer),
        title=f"{scorer.title}: {portion.title}{failure}",
        group=portion.name,
        judge=scorer.network.name,
        base=Estimate(value=before.value, low=before.low, high=before.high, n=before.n, unscored=lost),
        edited=Estimate(value=after.value, low=after.low, high=after.high, n=after.n, unscored=lost),
        drop=None,
        unit="share" if scorer.share else "number",
    )


def _read_remembered(file: Path) -> tuple[Spread, Spread] | None:
    try:
        before, after = [Spread(**s) for s in read_json(file)]
        whole = _is_finite((before, after))
    except (OSError, ValueError, TypeError):
        return None
    return (before, after) if whole else None


def _is_finite(found: tuple[Spread, Spread]) -> bool:
    return all(math.isfinite(x) for s in found for x in (s.value, s.low, s.high) if x is not None)
