"""Scorers, one file each; importing this module loads no network and no transformers."""

from collections.abc import Sequence
from pathlib import Path

from ..suites.world import judged_by
from .base import Score, Scorer

__all__ = ["Score", "Scorer", "names", "panel"]


def names() -> list[str]:
    """The scorers there are, read from the folder."""
    return sorted(p.stem for p in Path(__file__).parent.glob("*.py") if p.stem not in ("__init__", "base"))


def panel(bundle: Path, backgrounds: dict[str, tuple[int, int, int]], only: Sequence[str] = ()) -> list[Scorer]:
    """The scorers that come with a glyphs model: two judges for objects, two for styles, backgrounds, and a CLIP.

    Args:
        bundle: folder with a world.json, and `judges/{object,style}-*` and `clip` there or where that says.
        only: names of those wanted ("object-resnet", "clip" …); all when empty.

    Raises:
        FileNotFoundError: the folder holds no judges.
        ValueError: a name in `only` that is not among them.
    """
    from .background import Background
    from .classifier import Classifier
    from .clip import Clip

    bundle = judged_by(bundle)
    folders = sorted((bundle / "judges").glob("*-*"))
    if not folders:
        raise FileNotFoundError(f"no judges in {bundle / 'judges'}; expected folders like object-resnet, style-resnet")
    found: list[Scorer] = [Classifier(str(f), asks=f.name.split("-")[0], name=f.name) for f in folders]
    if backgrounds:
        found.append(Background(tuple(backgrounds.items())))
    if (bundle / "clip").is_dir():
        found.append(Clip(str(bundle / "clip")))
    known = [s.name for s in found]
    if unknown := [n for n in only if n not in known]:
        raise ValueError(f"there is no scorer {unknown[0]!r} here; there are {', '.join(known)}")
    return [s for s in found if not only or s.name in only]
