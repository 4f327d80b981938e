"""Builds the scorers of an evaluation: those that are asked for by name, or those that come with a model."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..catalog import SCORERS, did_you_mean
from ..suites.world import find_judges
from ._specs import ModelResources, build_scorer, names
from .base import Scorer, SetScorer

Judge = Scorer | SetScorer
OF_SETS = ("kid", "fid", "precision", "recall", "diversity")


def build_scorers(
    bundle: Path | None,
    backgrounds: Mapping[str, tuple[int, int, int]],
    only: Sequence[str] = (),
    labels: Mapping[str, Sequence[str]] | None = None,
) -> list[Judge]:
    """Builds the scorers that are asked for, or else those that come with a glyphs model.

    The latter are two judges for objects, two for styles, backgrounds, a CLIP, distances to the base's pictures,
    artefacts, and scorers of sets by the first object judge's features.

    Args:
        bundle: a folder with a world.json, and with `judges/{object,style}-*` and `clip` there or where that says; None
            for a model that comes without judges.
        backgrounds: the names and colours of backgrounds.
        only: the names of the wanted ones ("object-resnet", "clip" …), or words for others ("nudenet",
            "classifier:FOLDER"); when empty, all that come with the model.
        labels: the labels of a zero-shot choice, by question.

    Raises:
        FileNotFoundError: the folder holds no judges.
        ValueError: none is asked for and none comes with the model, or words describe no scorer.
    """
    palette = tuple(backgrounds.items())
    own = _build_own(find_judges(bundle), palette) if bundle else []
    if not only and not own:
        raise ValueError(
            "no judges come with this model: name a scorer, such as classifier:FOLDER_OR_HUB_ID, clip:FOLDER_OR_HUB_ID "
            f"or nudenet; there are {', '.join(names())}"
        )
    around = ModelResources(_find_folders(find_judges(bundle)) if bundle else {}, labels or {}, palette)
    known = {s.name: s for s in own}
    for kind in (n.partition(":")[0].partition(",")[0] for n in only if n not in known):
        if not SCORERS.holds(kind):
            here = list(dict.fromkeys([*known, *names()]))
            raise ValueError(f"there is no scorer {kind!r} here{did_you_mean(kind, here, show=len(here))}")
    return [known[n] if n in known else build_scorer(n, around) for n in only] or own


def _build_own(bundle: Path, palette: tuple[tuple[str, tuple[int, int, int]], ...]) -> list[Judge]:
    """The scorers that come with a glyphs model; without torchmetrics, those that need it are left out."""
    from .background import Background
    from .classifier import Classifier

    folders = sorted((bundle / "judges").glob("*-*"))
    if not folders:
        raise FileNotFoundError(f"no judges in {bundle / 'judges'}; expected folders like object-resnet, style-resnet")
    found: list[Judge] = [Classifier(str(f), question=f.name.split("-")[0], name=f.name) for f in folders]
    if palette:
        found.append(Background(palette))
    around = ModelResources(_find_folders(bundle))
    kinds = [*(["clip"] if "clip" in around.folders else []), "pixels", "artefact", "diversity"]
    if importlib.util.find_spec("torchmetrics"):
        kinds += ["ssim", "kid"]
    return found + [build_scorer(kind, around) for kind in kinds]


def _find_folders(bundle: Path) -> dict[str, str]:
    """The folders of the networks that come with a model, by the kind of scorer that uses them."""
    judge = min((bundle / "judges").glob("object-*"), default=None)
    clip = bundle / "clip"
    return ({kind: str(judge) for kind in OF_SETS} if judge else {}) | (
        {kind: str(clip) for kind in ("clip", "choice")} if clip.is_dir() else {}
    )
