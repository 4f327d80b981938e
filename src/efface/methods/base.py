"""What a method is: a set of hyper-parameters that can fit an Edit, for a model and a request."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..concept import Erasure, check_phrases, check_templates
from ..edits.edit import Edit
from ..edits.provenance import provenance
from ..functional.schedules import Space
from ..models.architectures import expand
from ..models.base import Model
from ..planning.plan import build_for_planning
from ..training.config import TrainConfig
from ..training.interfaces import Balance, Term, Update
from ..training.trainer import Trainer

Kind = Literal["trained", "closed form", "inference time", "in stages"]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """Hyper-parameters that can fit an Edit.

    The class variables say which architectures it serves and what of a request it can use; they are read from the
    source without importing it, so each must be a plain constant. Most methods subclass `Trained`, `ClosedForm` or
    `Guided`, which write `train`. This one writes it itself, and sets a weight to zero:

        @final
        @dataclass(frozen=True, kw_only=True)
        class Zero(Method):
            name: str = "unet.conv_out.weight"

            def train(self, model, erasure, built, progress, checkpoint):
                record = self.record(model, erasure)
                values = {self.name: torch.zeros_like(model.weights[self.name], device="cpu")}
                return Edit(values, {**record, "versions": versions(), "notes": {}})
    """

    kind: ClassVar[Kind] = "closed form"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "pixart", "flow")
    """Architectures and groups of them, as `models.architectures` names them."""
    unserved: ClassVar[Mapping[str, str]] = {}
    """Why it does not serve an architecture, by its name or its group's, where there is more to say."""
    needs_uncond: ClassVar[bool] = False
    """Whether it moves a prediction relative to the unconditional one, which models with distilled guidance lack."""
    uses_anchor: ClassVar[bool] = False
    needs_anchor: ClassVar[bool] = False
    uses_keep: ClassVar[bool] = False
    several: ClassVar[bool] = True
    by_choice: ClassVar[bool] = False
    """Whether what it uses depends on its settings; the other class variables are then those of the defaults."""

    def fit(
        self,
        model: Model,
        erasure: Erasure,
        *,
        progress: Callable[..., None] | None = None,
        checkpoint: str | Path | None = None,
        estimate: Callable[[Trainer | None], None] | None = None,
    ) -> Edit:
        """An Edit that erases the request's targets: check, build, estimate, train, finish.

        The model is left bit for bit as it was. The same model, request and hyper-parameters give the same Edit, also
        after a resumption.

        Args:
            progress: called as progress(step, of, **more) after each step, steps counted from 1. Trainings add
                learner=…, the name of what took the step, and loss=…, the losses by role.
            checkpoint: a file to resume from where it exists, and to save to meanwhile; removed at the end.
            estimate: called with what was built, None where the method builds no training, when all that is known to be
                wrong has been refused and before the work starts; what it raises refuses the run.

        Raises:
            ValueError: the method cannot serve the request or the model; says what would work, before any work.
            Diverged: the training left the numbers; holds the last good state.
        """
        self.check(erasure, model)
        built = self.build(model, erasure)
        if estimate:
            estimate(built)
        return self.finish(self.train(model, erasure, built, progress, checkpoint), erasure)

    def build(self, model: Model, erasure: Erasure) -> Trainer | None:
        """The training, set up and not begun; None for a method that has none to plan."""
        return None

    @abstractmethod
    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Trainer | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Does the work that the Edit is the result of; `built` is what `build` returned, the rest as in `fit`."""

    def finish(self, edit: Edit, erasure: Erasure) -> Edit:
        """The method's Edit, from that of its training: the same one, unless the method adds to it or refuses it."""
        return edit

    def record(self, model: Model, erasure: Erasure) -> dict[str, Any]:
        """The record of an Edit by this method, in JSON's types; to be made while the base's weights are in place."""
        return provenance(model, erasure, type(self).__name__, dataclasses.asdict(self))

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Raises ValueError where the method cannot use what the request holds, or cannot serve the model."""
        name = type(self).__name__
        if model is not None and model.architecture not in (served := expand(self.architectures)):
            reasons = {kind: why for group, why in self.unserved.items() for kind in expand([group])}
            why = reasons.get(model.architecture)
            raise ValueError(
                f"{name} does not work on {model.name}, a model of the kind {model.architecture}"
                f"{f', because {why}' if why else ''}; it serves "
                f"{', '.join(served)}, and `efface list methods` says which methods serve which"
            )
        if model is not None:
            self.check_guidance(model, erasure)
            named = (*getattr(model, "classes", ()), *getattr(model, "own_words", ()))
            check_phrases(erasure.targets, "target", named)
            check_phrases(erasure.keep, "keep", named)
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

    def relies_on_uncond(self, erasure: Erasure) -> bool:
        """Whether this request needs an unconditional prediction; by default as `needs_uncond` says."""
        return self.needs_uncond

    def check_guidance(self, model: Model, erasure: Erasure) -> None:
        """Raises ValueError where the method needs a guidance that the model does not have."""
        name = type(self).__name__
        if self.relies_on_uncond(erasure) and not model.has_uncond:
            raise ValueError(
                f"{name} moves a prediction relative to the unconditional one, and {model.name} has none: its guidance "
                "was distilled away. ac, gem with an anchor, age and erasediff train on what it predicts itself; or "
                "erase on the model that it was distilled from"
            )
        if not model.has_uncond and getattr(self, "guidance", 1.0) != 1:
            raise ValueError(
                f"{model.name} draws without guidance, so {name} must too: give guidance 1 ({name} has it "
                f"at {getattr(self, 'guidance', 1.0):g})"
            )


@dataclass(frozen=True, kw_only=True)
class Trained(Method):
    """A method that trains: an answer on each axis, and the settings of the training loop.

    A subclass writes `terms`, `update` and `balance`; CONTRIBUTING.md has a whole one.
    """

    kind: ClassVar[Kind] = "trained"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "pixart", "ddpm", "flow")
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
        """The objective and the preservation, and a cost where the update has one; each a new object at every call.

        For example `(NegativeGuidance(source, self.eta, self.space), NoPreservation())`. Two terms that are given one
        `Shared` source are evaluated at the same states.
        """

    @abstractmethod
    def update(self) -> Update:
        """Which weights may change and in which form, for example `Dense(self.weights, self.lr)`; a new object."""

    @abstractmethod
    def balance(self) -> Balance:
        """How the losses become one step, for example `Sum(keep=2.0)`."""

    def fit_update(self, update: Update, terms: Sequence[Term]) -> Update:
        """The update that is to be trained by these terms: the same one, unless it needs something of theirs."""
        return update

    def build(self, model: Model, erasure: Erasure) -> Trainer:
        """The training, set up and not begun; DoesNotFit where there is no room for what learns."""
        return build_for_planning(lambda: self.build_trainer(model, erasure), model.device)

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Trainer | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Trains to the end."""
        return (built or self.build_trainer(model, erasure)).train(progress, checkpoint)

    def train_config(self) -> TrainConfig:
        """The fields that the training loop, the terms and the update read."""
        return TrainConfig(
            steps=self.steps,
            batch=self.batch,
            draw_steps=self.draw_steps,
            templates=self.templates,
            seed=self.seed,
            micro_batch=self.micro_batch,
            moments=self.moments,
        )

    def build_trainer(self, model: Model, erasure: Erasure) -> Trainer:
        """The training, prepared, before its first step."""
        self.check(erasure, model)
        # Made before the terms, which may read folders, as these refuse impossible settings at once.
        update, balance = self.update(), self.balance()
        terms = self.terms(model, erasure)
        return Trainer(
            model,
            erasure,
            name=type(self).__name__,
            arguments=dataclasses.asdict(self),
            config=self.train_config(),
            terms=terms,
            update=self.fit_update(update, terms),
            balance=balance,
        )


@dataclass(frozen=True, kw_only=True)
class TrajectoryMethod(Trained):
    """A method whose states lie on sampling trajectories."""

    source: Literal["student", "frozen"] = "student"
    """Whose trajectories: the model's in training, fresh for each update unless refresh says how long they are stored,
    or a stored draw of the frozen one."""
    paths: int = 32
    """Stored trajectories, shared out among the targets, but at least 4 of each."""
    sampler: Literal["ddim", "dpm", "unipc"] = "ddim"
    """How trajectories are drawn; with dpm or unipc fewer draw_steps do."""
    refresh: int = 0
    """Steps after which stored trajectories are drawn anew; 0 is never, and has the student's not stored at all."""


@dataclass(frozen=True, kw_only=True)
class ImageMethod(Trained):
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
