"""What a method is: hyper-parameters that can fit an Edit."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from ..concept import Erasure
from ..functional.schedules import Space
from ..models.base import Model
from .edit import Edit
from .loop import Game
from .protocols import Balance, Term, Update


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Hyper-parameters that can fit an Edit; the traits say what of a request it can use."""

    uses_anchor: ClassVar[bool] = False
    uses_keep: ClassVar[bool] = False

    @abstractmethod
    def fit(
        self,
        model: Model,
        erasure: Erasure,
        *,
        progress: Callable[..., None] | None = None,
        checkpoint: str | Path | None = None,
    ) -> Edit:
        """An Edit that erases; the model is left bit for bit as it was.

        Args:
            progress: called as progress(turn, of, player=…, loss=…) after each turn.
            checkpoint: a file to resume from where it exists, and to save to meanwhile; removed at the end.
        """

    def check(self, erasure: Erasure) -> None:
        """Raises ValueError where the request holds what the method cannot use."""
        name = type(self).__name__
        if erasure.keep and not self.uses_keep:
            raise ValueError(f"{name} has no use for concepts to keep ({', '.join(erasure.keep)}); EAP preserves them")
        if erasure.anchor and not self.uses_anchor:
            raise ValueError(f"{name} has no use for an anchor ({erasure.anchor!r}); leave it out")


@dataclass(frozen=True, kw_only=True)
class Trained(Method):
    """A method that plays the game: an answer on each axis, and the loop's own settings."""

    weights: str = "xattn"
    """Which weights may move: subsets or regular expressions, comma-separated."""
    steps: int = 1000
    """Updates of the weights."""
    lr: float = 1e-5
    """Adam's learning rate for the weights."""
    batch: int = 1
    """Rows of each term in an update."""
    eta: float = 1.0
    """How far to the other side of the unconditional prediction the target is pushed."""
    space: Space = "eps"
    """Where squared errors are measured; sets how much noisy timesteps weigh."""
    source: Literal["student", "frozen"] = "student"
    """Whose trajectories: a fresh one of the model in training for each update, or a stored draw of the frozen one."""
    draw_steps: int = 50
    """Sampling steps of a trajectory."""
    guidance: float = 3.0
    """Guidance of a trajectory."""
    paths: int = 32
    """Stored trajectories a concept, where the source is frozen."""
    refresh: int = 0
    """Turns after which the stored trajectories are drawn anew; 0 is never."""
    templates: tuple[str, ...] = ("{}",)
    """Prompts around the concept, of which a row takes one at random."""
    seed: int = 0
    """Seed of everything random."""
    micro_batch: int = 0
    """Rows at once in the student's pass, to save memory at the same gradients; 0 is all."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "draw_steps", "paths"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for template in self.templates or ("",):
            if template.count("{}") != 1:
                raise ValueError(f"a template holds the concept as {{}}, once; got {template!r}")

    @abstractmethod
    def terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        """The objective and the preservation."""

    @abstractmethod
    def update(self) -> Update:
        """How the weights move."""

    @abstractmethod
    def balance(self) -> Balance:
        """How the losses become one step."""

    def fit(
        self,
        model: Model,
        erasure: Erasure,
        *,
        progress: Callable[..., None] | None = None,
        checkpoint: str | Path | None = None,
    ) -> Edit:
        """Plays the game to its end."""
        self.check(erasure)
        game = Game(
            model,
            erasure,
            name=type(self).__name__,
            settings=dataclasses.asdict(self),
            terms=self.terms(model, erasure),
            update=self.update(),
            balance=self.balance(),
        )
        return game.play(progress, checkpoint)
