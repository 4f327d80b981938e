"""What a method is: hyper-parameters that can fit an Edit."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..concept import Erasure, check_templates
from ..edits.edit import Edit
from ..edits.provenance import provenance
from ..functional.schedules import Space
from ..models.base import Model
from ..planning.plan import prepared
from ..training.interfaces import Balance, Term, Update
from ..training.trainer import Game

Kind = Literal["trained", "closed form", "inference time", "in stages"]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Hyper-parameters that can fit an Edit; the traits say what it works on, and what of a request it can use."""

    kind: ClassVar[Kind] = "closed form"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl")
    uses_anchor: ClassVar[bool] = False
    needs_anchor: ClassVar[bool] = False
    uses_keep: ClassVar[bool] = False
    several: ClassVar[bool] = True
    by_choice: ClassVar[bool] = False
    """What it uses depends on its settings; the traits are then those of the defaults."""

    def fit(
        self,
        model: Model,
        erasure: Erasure,
        *,
        progress: Callable[..., None] | None = None,
        checkpoint: str | Path | None = None,
        estimate: Callable[[Game | None], None] | None = None,
    ) -> Edit:
        """An Edit that erases: check, build, estimate, train, finish. The model is left bit for bit as it was.

        Args:
            progress: called as progress(turn, of, player=…, loss=…) after each turn.
            checkpoint: a file to resume from where it exists, and to save to meanwhile; removed at the end.
            estimate: called with what was built, None where the method builds no training, when all that is known to be
                wrong has been refused and before the work starts; what it raises refuses the run.

        Raises:
            ValueError: the request, the model or an argument is one that the method cannot work with.
            Diverged: the training left the numbers; holds the last good state.
        """
        self.check(erasure, model)
        built = self.build(model, erasure)
        if estimate:
            estimate(built)
        return self.finish(self.train(model, erasure, built, progress, checkpoint), erasure)

    def build(self, model: Model, erasure: Erasure) -> Game | None:
        """The training, set up and not begun; None for a method that has none to plan."""
        return None

    @abstractmethod
    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Game | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Does the work that the Edit is the result of; `built` is what `build` returned, the rest as in `fit`."""

    def finish(self, edit: Edit, erasure: Erasure) -> Edit:
        """The Edit of the method, from that of its training: the same, unless the method adds to it."""
        return edit

    def record(self, model: Model, erasure: Erasure) -> dict[str, Any]:
        """How an Edit by this method comes about; to be asked before any weight is swapped in."""
        return provenance(model, erasure, type(self).__name__, dataclasses.asdict(self))

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Raises ValueError where the request holds what the method cannot use, or where it cannot serve the model."""
        name = type(self).__name__
        if model is not None and model.architecture not in self.architectures:
            raise ValueError(
                f"{name} does not work on {model.name}, a model of the kind {model.architecture}; it serves "
                f"{', '.join(self.architectures)}, and `efface list methods` says which methods serve which"
            )
        if len(erasure.targets) > 1 and not self.several:
            raise ValueError(
                f"{name} erases one concept at a time, got {', '.join(erasure.targets)}; make an Edit each"
            )
        if erasure.keep and not self.uses_keep:
            raise ValueError(f"{name} has no use for concepts to keep ({', '.join(erasure.keep)}); EAP preserves them")
        if erasure.anchor and not self.uses_anchor:
            raise ValueError(f"{name} has no use for an anchor ({erasure.anchor!r}); leave it out")
        if self.needs_anchor and not erasure.anchor:
            raise ValueError(f"{name} turns a target into an anchor; name one, for example --anchor 'a painting'")


@dataclass(frozen=True, kw_only=True)
class Trained(Method):
    """A method that plays the game: an answer on each axis, and the loop's own settings."""

    kind: ClassVar[Kind] = "trained"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "ddpm")
    weights: str = "xattn"
    """Which weights may move: subsets or regular expressions, comma-separated."""
    steps: int = 1000
    """Updates of the weights."""
    lr: float = 1e-5
    """Adam's learning rate for the weights."""
    batch: int = 1
    """Rows of each term in an update."""
    space: Space = "eps"
    """Where squared errors are measured; sets how much noisy timesteps weigh."""
    draw_steps: int = 50
    """Sampling steps of what the model draws to train on: trajectories, pictures."""
    guidance: float = 3.0
    """Guidance of that drawing."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around the concept, of which a row takes one at random."""
    seed: int = 0
    """Seed of everything random."""
    micro_batch: int = 0
    """Rows at once in the student's pass, to save memory at the same gradients; 0 is all."""
    moments: Literal[32, 8] = 32
    """Bits of each of Adam's two moments of what learns; 8 rounds them and takes a quarter of their memory."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "draw_steps", "paths", "pictures"):
            if getattr(self, name, 1) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("micro_batch", "refresh"):
            if getattr(self, name, 0) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        check_templates(self.templates)

    @abstractmethod
    def terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        """The objective and the preservation."""

    @abstractmethod
    def update(self) -> Update:
        """How the weights move."""

    @abstractmethod
    def balance(self) -> Balance:
        """How the losses become one step."""

    def build(self, model: Model, erasure: Erasure) -> Game:
        """The training, set up and not begun; DoesNotFit where there is no room for what learns."""
        return prepared(lambda: self.game(model, erasure), model.device)

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Game | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Trains to the end."""
        return (built or self.game(model, erasure)).play(progress, checkpoint)

    def game(self, model: Model, erasure: Erasure) -> Game:
        """The training, set up and not begun."""
        self.check(erasure, model)
        # Before the terms, which may read folders: they refuse settings that cannot be.
        update, balance = self.update(), self.balance()
        return Game(
            model,
            erasure,
            name=type(self).__name__,
            settings=dataclasses.asdict(self),
            terms=self.terms(model, erasure),
            update=update,
            balance=balance,
        )


@dataclass(frozen=True, kw_only=True)
class OnTrajectories(Trained):
    """A method whose states lie on sampling trajectories."""

    source: Literal["student", "frozen"] = "student"
    """Whose trajectories: the model's in training, fresh for each update unless refresh says how long they are stored,
    or a stored draw of the frozen one."""
    paths: int = 32
    """Stored trajectories a concept."""
    sampler: Literal["ddim", "dpm", "unipc"] = "ddim"
    """How trajectories are drawn; with dpm or unipc fewer draw_steps do."""
    refresh: int = 0
    """Turns after which stored trajectories are drawn anew; 0 is never, and has the student's not stored at all."""


@dataclass(frozen=True, kw_only=True)
class OnPictures(Trained):
    """A method whose states are noised pictures: of what is to be forgotten, of what is to remain."""

    uses_keep: ClassVar[bool] = True
    forget_images: str = ""
    """Folder with pictures of the target, with captions where there are several; by default the model draws them."""
    remain_images: str = ""
    """Folder with pictures to remain, captioned by metadata.jsonl or subfolder; by default the model draws them."""
    pictures: int = 800
    """Pictures to forget, and as many that remain, where the model draws them; shared out among the prompts."""
    remain_words: int = 100
    """Words of the model's vocabulary whose pictures remain, where neither folder nor concepts to keep are given."""
    antithetic: bool = False
    """Draw timesteps in pairs t, T - 1 - t."""
