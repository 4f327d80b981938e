"""The interface of scorers, which give a score to each picture, or one score to a whole set of pictures.

A scorer declares what its number is (`title`, `unit`, `better`, `share`); nothing else decides how the report shows the
number. If a scorer's question is in `JUDGED`, its labels count: they are the verdicts behind ESR, PSR and NER. For any
other scorer the mean of `Score.value` over each group of rows is reported, under the scorer's kind.
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
"""Questions whose scorers are judges: it counts whether their labels, or detections, contain what was asked for."""
DECLARED = ("title", "unit", "better", "share")
"""The attributes by which a scorer's class declares its number."""
Better = Literal["higher", "lower"]
T = TypeVar("T")


@dataclass(frozen=True)
class Score:
    """A scorer's result for one picture."""

    value: float | None
    """The number, or None where the picture could not be judged."""
    answer: tuple[str, ...] = ()
    """The scorer's answers in words, best first."""
    explanation: str = ""
    """The reason, for a person to read."""
    confidence: tuple[float, ...] = ()
    """The confidence of each answer, in [0, 1], if the scorer gives it."""


@runtime_checkable
class Scorer(Protocol):
    """A frozen dataclass with settings and a `score`; it owns its networks and never uses those of the edited model.

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

            def identify(self) -> dict[str, str]:
                return {"scorer": "brightness", "version": self.version}

            def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
                return [Score(float(image.double().mean())) for image in images]
    """

    version: ClassVar[str]
    title: ClassVar[str]
    """What the number is, for a person to read."""
    unit: ClassVar[str]
    """The unit of the number."""
    better: ClassVar[Better]
    """Whether a higher or a lower number is better for a picture of something to keep."""
    share: ClassVar[bool]
    """Whether the number is 1 or 0 for each picture, so that its mean is a share of pictures."""

    @property
    def name(self) -> str:
        """The name of the column; two scorers of one evaluation may not share it."""
        ...

    @property
    def question(self) -> str:
        """The question that it answers.

        "object", "style" and "nudity": what is seen, in labels; "background" and "match": how the picture fits its
        prompt; "change": how far it is from the base's; "artefact": whether it is a picture at all. Any other word
        is a question of the scorer's own.
        """
        ...

    def identify(self) -> dict[str, str]:
        """Everything on which its answers depend (version, weights, settings): scores are cached under it.

        "scorer" is the kind of scorer, under which the report lists its number.
        """
        ...

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        """Gives one score for each picture; the value of a picture that can't be judged is None, never a number.

        Args:
            images: uint8 [n, 3, h, w].
            rows: the rows of the pictures, which say what each should show.
            before: the untouched base's pictures of the same rows, uint8 [n, 3, h, w], for scorers of changes.
        """
        ...


@runtime_checkable
class Detector(Protocol):
    """A scorer whose answers are detections, each of which counts above some confidence."""

    threshold: float
    """The confidence above which detections decide a picture's verdict."""
    thresholds: ClassVar[tuple[float, ...]]
    """The confidences at each of which the report counts detections."""


@runtime_checkable
class Checked(Protocol):
    """A scorer that knows before anything is drawn whether it will be able to judge."""

    def check(self, rows: Sequence[Row]) -> None:
        """Raises ValueError or OSError where a package, a network, or a label that the rows ask for is missing.

        Args:
            rows: all rows that it will score; for a scorer of sets, the largest set.
        """
        ...


@runtime_checkable
class Selective(Protocol):
    """A scorer for some rows only."""

    def concerns(self, row: Row) -> bool:
        """Whether pictures of this row count in the scorer's number; other pictures are left out, not unscored."""
        ...


class TooFew(ValueError):
    """A set scorer got fewer pictures than it needs."""


@dataclass(frozen=True)
class Spread:
    """The number of a set of pictures, with its 95 % interval; `value` is None where it could not be computed."""

    value: float | None
    low: float
    high: float
    n: int
    """The number of pictures behind it."""


class Network(Protocol):
    """A feature network, by whose features sets of pictures are compared."""

    @property
    def name(self) -> str:
        """The name beside every number that was computed with it."""
        ...

    def identify(self) -> dict[str, str]:
        """Everything on which the features depend; they are cached under it and shared by scorers."""
        ...

    def extract_features(self, images: Tensor) -> Tensor:
        """The features, float [n, d], of pictures, uint8 [n, 3, h, w]."""
        ...


@runtime_checkable
class SetScorer(Protocol):
    """Scores all pictures of a group at once: how the edited set differs from the base's, or how varied each set is."""

    version: ClassVar[str]
    title: ClassVar[str]
    """What its number is, for a person to read."""
    unit: ClassVar[str]
    """The unit of the number."""
    better: ClassVar[Better]
    """Whether a higher or a lower number is better for a set of pictures of things to keep."""
    share: ClassVar[bool]
    """Always False, because the number of a set is no count of single pictures."""

    @property
    def name(self) -> str: ...

    @property
    def question(self) -> str:
        """Always "set"."""
        ...

    @property
    def network(self) -> Network: ...

    def identify(self) -> dict[str, str]:
        """Everything on which its numbers depend, including the feature network."""
        ...

    def compare(self, base: Tensor, edited: Tensor, rows: Sequence[Row], side: int) -> tuple[Spread, Spread] | None:
        """The numbers of the base's and of the edited set; None where there are too few pictures.

        For a distance from the base's pictures (KID), the base's number is the distance between two halves of them.

        Args:
            base: features [n, d] of the base's pictures, by `network`.
            edited: features [n, d] of the edited model's pictures of the same n rows.
            side: pixels a side of these pictures.
        """
        ...


def name_kind(scorer: "Scorer | SetScorer") -> str:
    """The name under which the report lists a scorer's number, which is that of the scorer's file."""
    return scorer.identify().get("scorer", scorer.name)


def require_declared(scorer: Any) -> None:
    """Raises ValueError where a scorer does not declare what its number is."""
    name = getattr(scorer, "name", type(scorer).__name__)
    if missing := ", ".join(field for field in DECLARED if not hasattr(scorer, field)):
        how = 'as class attributes: title = "…", unit = "…", better = "higher" or "lower", share = True or False'
        raise ValueError(f"scorer {name} does not declare {missing}, so its numbers could not be shown; set them {how}")
    if scorer.better not in ("higher", "lower"):
        raise ValueError(f"scorer {name}: better is {scorer.better!r}; it is 'higher' or 'lower'")
    if not isinstance(scorer, Scorer | SetScorer):
        raise ValueError(
            f"scorer {name} has neither a `score` of single pictures nor a `compare` of sets (with `version`, "
            "`question` and `identify`), so its numbers could not be shown"
        )
    if not isinstance(said := scorer.identify(), dict):
        raise ValueError(f'scorer {name}: identify returns a dict such as {{"scorer": "{name}"}}, not {said!r}')


@functools.cache
def digest_weights(folder: str) -> str:
    """The sha256 of the names and contents of a folder, such as a network's; for a hub id, the id with its commit.

    A hub id that is not in the cache is returned as it is.
    """
    place = Path(folder)
    if not place.is_dir():
        cached = try_to_load_from_cache(folder, "config.json") if folder.count("/") < 2 else None
        return f"{folder}@{Path(cached).parent.name}" if isinstance(cached, str) else folder
    total = hashlib.sha256()
    for file in sorted(p for p in place.rglob("*") if p.is_file()):
        total.update(f"{file.relative_to(place).as_posix()} {hash_file(file)}\n".encode())
    return total.hexdigest()


def digest_file(file: str) -> str:
    """The sha256 of a file."""
    return hash_file(file)


def require_package(scorer: str, package: str, install: str) -> None:
    """Raises ValueError, which says what to `pip install`, where a package that a scorer needs is missing."""
    if importlib.util.find_spec(package) is None:
        raise ValueError(f"scorer {scorer} needs {package}, which is not installed: pip install '{install}'")


_chosen: list[torch.device] = []


def judge_on(device: torch.device) -> None:
    """Sets the device on which judges' networks work from now on: the model's, which `--device` chose."""
    _chosen[:] = [device]


def pick_device() -> torch.device:
    """The device of judges' networks: the one from `judge_on`, else a GPU if there is one."""
    return _chosen[0] if _chosen else torch.device("cuda" if torch.cuda.is_available() else "cpu")


def cache_by_device(load: Callable[..., T]) -> Callable[..., T]:
    """Caches what a function loads, separately for each device of judges; `cache_clear` empties the cache."""

    @functools.cache
    def kept(_device: torch.device, *args: Any) -> T:
        return load(*args)

    @functools.wraps(load)
    def found(*args: Any) -> T:
        return kept(pick_device(), *args)

    setattr(found, "cache_clear", kept.cache_clear)  # noqa: B010
    return found


def prepare_images(processor: Any, images: Tensor) -> Any:
    """Prepares uint8 pictures [n, 3, h, w] by a network's processor; too small ones are enlarged first."""
    side = 0 if getattr(processor, "do_resize", True) else processor.size.get("shortest_edge") or 0  # timm's has none
    if images.shape[-2] < side:
        big = torch.nn.functional.interpolate(images.float(), size=(side, side), mode="bicubic", antialias=True)
        images = big.round().clamp(0, 255).to(torch.uint8)
    return processor(images=list(images), return_tensors="pt").to(pick_device())
