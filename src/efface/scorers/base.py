"""What every scorer is: something that looks at pictures and says one thing of each, or one thing of a whole set.

A scorer declares what its number is (`title`, `unit`, `better`, `share`); nothing else decides how the number stands in
the report. Of a scorer whose question is in `JUDGED` the labels count: they make the verdicts behind ESR, PSR and NER.
Of any other the mean of `Score.value` over each group of rows is reported, under the scorer's kind.
"""

import functools
import hashlib
import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeVar, runtime_checkable

import torch
from huggingface_hub import try_to_load_from_cache
from torch import Tensor

from ..files import hash_file
from ..suites.spec import Row

JUDGED = ("object", "style", "nudity")
"""Questions whose scorers are judges: what counts is whether their labels, or detections, hold what was asked for."""
DECLARED = ("title", "unit", "better", "share")
"""What a scorer's class says of its number."""
Better = Literal["higher", "lower"]
T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """What one scorer says of one picture."""

    value: float | None
    """The number, or None where the picture could not be judged."""
    answer: tuple[str, ...] = ()
    """The scorer's answers in words, best first."""
    explanation: str = ""
    """Why, for a person to read."""
    confidence: tuple[float, ...] = ()
    """How sure it is of each answer, in [0, 1], where it says."""


@runtime_checkable
class Scorer(Protocol):
    """A frozen dataclass with settings and a `score`; it owns its networks and never uses those being edited.

    A whole scorer, which reports how bright pictures are:

        @dataclass(frozen=True)
        class Brightness:
            version: ClassVar[str] = "1"
            title: ClassVar[str] = "brightness"
            unit: ClassVar[str] = "of 255"
            better: ClassVar[Better] = "higher"
            share: ClassVar[bool] = False
            question: ClassVar[str] = "brightness"
            name: str = "brightness"

            def identity(self) -> dict[str, str]:
                return {"scorer": "brightness", "version": self.version}

            def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
                return [Score(float(image.double().mean())) for image in images]
    """

    version: ClassVar[str]
    title: ClassVar[str]
    """What the number is, for a person to read."""
    unit: ClassVar[str]
    """What the number is counted in."""
    better: ClassVar[Better]
    """Whether a higher or a lower number speaks for a picture of something that was to stay."""
    share: ClassVar[bool]
    """Whether the number is 1 or 0 for each picture, so that its mean is a share of pictures."""

    @property
    def name(self) -> str:
        """Names the column; two scorers of one evaluation may not share it."""
        ...

    @property
    def question(self) -> str:
        """The question that it answers.

        "object", "style" and "nudity": what is seen, in labels; "background" and "match": how the picture fits its
        prompt; "change": how far it is from the base's; "artefact": whether it is a picture at all. Any other word
        is a question of the scorer's own.
        """
        ...

    def identity(self) -> dict[str, str]:
        """Everything on which its answers depend (version, weights, settings): scores are cached under it.

        "scorer" is the kind of scorer, under which the report lists its number.
        """
        ...

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        """One score per picture; of a picture that can't be judged the value is None, never a number.

        Args:
            images: uint8 [n, 3, h, w].
            rows: what each was asked to show.
            before: the untouched base's pictures of the same rows, for scorers that measure what changed.
        """
        ...


@runtime_checkable
class Detector(Protocol):
    """A scorer whose answers are detections, each of which counts from some confidence on."""

    threshold: float
    """From which a picture's verdict counts them."""
    thresholds: ClassVar[tuple[float, ...]]
    """At each of which the report counts them."""


@runtime_checkable
class Checked(Protocol):
    """A scorer that knows before anything is drawn whether it will be able to judge."""

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError or OSError where a package, a network, or a label that the rows ask for is missing.

        Args:
            rows: all that it will be asked of; of a scorer of sets, the largest set.
        """
        ...


@runtime_checkable
class Selective(Protocol):
    """A scorer that has something to say of some rows only."""

    def concerns(self, row: Row) -> bool:
        """Whether pictures of this row count in the scorer's number; those of others are left out, not unscored."""
        ...


class TooFew(ValueError):
    """A set scorer was asked of fewer pictures than it takes."""


@dataclass(frozen=True)
class Spread:
    """A number of a whole set of pictures, with its 95 % interval; `value` is None where it could not be taken."""

    value: float | None
    low: float
    high: float
    n: int
    """Pictures that it rests on."""


class Network(Protocol):
    """What pictures are seen through before sets of them are compared."""

    @property
    def name(self) -> str:
        """Stands beside every number that was made with it."""
        ...

    def identity(self) -> dict[str, str]:
        """Everything on which the features depend: they are cached under it, and shared by the scorers that use it."""
        ...

    def features(self, images: Tensor) -> Tensor:
        """float [n, d] of uint8 [n, 3, h, w]."""
        ...


@runtime_checkable
class SetScorer(Protocol):
    """Looks at all pictures of a group at once: how the edited set differs from the base's, or how varied each is."""

    version: ClassVar[str]
    title: ClassVar[str]
    """What its number is, for a person to read."""
    unit: ClassVar[str]
    """What the number is counted in."""
    better: ClassVar[Better]
    """Whether a higher or a lower number speaks for a set of pictures of things that were to stay."""
    share: ClassVar[bool]
    """Always False: a number of a set is no count of single pictures."""

    @property
    def name(self) -> str: ...

    @property
    def question(self) -> str:
        """Always "set"."""
        ...

    @property
    def network(self) -> Network: ...

    def identity(self) -> dict[str, str]:
        """Everything on which its numbers depend, the feature network among it."""
        ...

    def compare(self, base: Tensor, edited: Tensor, rows: Sequence[Row], side: int) -> tuple[Spread, Spread] | None:
        """The number of the base and of the edited set; None where these are too few pictures for it.

        A distance from the base's pictures (KID) has as the base's number what two halves of the base's own differ by.

        Args:
            base: features [n, d] of the base's pictures, by `network`.
            edited: of the edited model's, of the same rows.
            side: pixels a side of those pictures.
        """
        ...


def kind_of(scorer: "Scorer | SetScorer") -> str:
    """The name under which the report lists a scorer's number: that of its file."""
    return scorer.identity().get("scorer", scorer.name)


def require_declared(scorer: Any) -> None:
    """Raises ValueError where a scorer does not say what its number is: nobody could read the report."""
    name = getattr(scorer, "name", type(scorer).__name__)
    if missing := [field for field in DECLARED if not hasattr(scorer, field)]:
        raise ValueError(
            f"scorer {name} does not declare {', '.join(missing)}, so its numbers could not be shown; set them as "
            'class attributes: title = "…", unit = "…", better = "higher" or "lower", share = True or False'
        )
    if scorer.better not in ("higher", "lower"):
        raise ValueError(f"scorer {name}: better is {scorer.better!r}; it is 'higher' or 'lower'")
    if not isinstance(scorer, Scorer | SetScorer):
        raise ValueError(
            f"scorer {name} has neither a `score` of single pictures nor a `compare` of sets (with `version`, "
            "`question` and `identity`), so its numbers could not be shown"
        )


@functools.cache
def weights_digest(folder: str) -> str:
    """sha256 over the names and contents of a folder, a network's for example; a hub id is named with its commit.

    A hub id that is not in the cache stands for itself.
    """
    place = Path(folder)
    if not place.is_dir():
        cached = try_to_load_from_cache(folder, "config.json") if folder.count("/") < 2 else None
        return f"{folder}@{Path(cached).parent.name}" if isinstance(cached, str) else folder
    total = hashlib.sha256()
    for file in sorted(p for p in place.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(place).as_posix()} {hash_file(file)}\n".encode())
    return total.hexdigest()


def file_digest(file: str) -> str:
    """sha256 of a file."""
    return hash_file(file)


def require_package(scorer: str, package: str, extra: str) -> None:
    """ValueError, with what would bring it, where a package that a scorer stands on is not installed."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"scorer {scorer} needs {package}, which is not installed: pip install 'efface[{extra}]'")


_chosen: list[torch.device] = []


def judge_on(device: torch.device) -> None:
    """From now on, networks that judge work on this device: the model's, which `--device` chose."""
    _chosen[:] = [device]


def pick_device() -> torch.device:
    """Where networks that judge work: where `judge_on` said, else a GPU where there is one."""
    return _chosen[0] if _chosen else torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cached_by_device(load: Callable[..., T]) -> Callable[..., T]:
    """Keeps what a function loaded, for each device that networks judge on by itself; `cache_clear` forgets all."""

    @functools.cache
    def kept(_device: torch.device, *args: Any) -> T:
        return load(*args)

    @functools.wraps(load)
    def found(*args: Any) -> T:
        return kept(pick_device(), *args)

    setattr(found, "cache_clear", kept.cache_clear)  # noqa: B010
    return found


def prepare_images(processor: Any, images: Tensor) -> Any:
    """uint8 pictures [n, 3, h, w] as a network's processor hands them to it; too small ones are enlarged first."""
    side = 0 if processor.do_resize else processor.size.get("shortest_edge") or 0
    if images.shape[-2] < side:
        big = torch.nn.functional.interpolate(images.float(), size=(side, side), mode="bicubic", antialias=True)
        images = big.round().clamp(0, 255).to(torch.uint8)
    return processor(images=list(images), return_tensors="pt").to(pick_device())
