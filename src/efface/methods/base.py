"""The base class of methods: their hyper-parameters, with which they fit an Edit for a model and a request."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..concept import Erasure, check_choices, check_phrases, check_templates
from ..edits.edit import Edit
from ..edits.provenance import describe_run
from ..functional.schedules import Space
from ..models.architectures import expand
from ..models.base import Model
from ..models.quantised import refuse_dense
from ..origin import describe_origins
from ..planning.estimating import build_for_planning
from ..training.checking import check_terms, require_parts
from ..training.config import TrainConfig
from ..training.interfaces import Balance, Term, Update
from ..training.trainer import Trainer

Kind = Literal["trained", "closed form", "inference time", "in stages"]


@dataclass(frozen=True, kw_only=True)
class Method(ABC):
    """The hyper-parameters of a method, which can fit an Edit.

    The class variables say which architectures a method serves and which parts of a request it can use. They are read
    from the source without importing it, so each must be a plain constant. Most methods subclass `Trained`,
    `ClosedForm` or `Guided`, which define `train`. This example defines it itself, and sets a weight to zero:

        @final
        @dataclass(frozen=True, kw_only=True)
        class Zero(Method):
            name: str = "unet.conv_out.weight"

            def train(self, model, erasure, built, progress, checkpoint):
                values = {self.name: torch.zeros_like(model.weights[self.name], device="cpu")}
                return Edit(values, {**self.build_record(model, erasure), "versions": read_versions(), "notes": {}})
    """

    kind: ClassVar[Kind] = "closed form"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "pixart", "flow")
    """Architectures and groups of them, as `models.architectures` names them."""
    unserved: ClassVar[Mapping[str, str]] = {}
    """The reasons why the method does not serve an architecture, by the name of the architecture or its group."""
    needs_uncond: ClassVar[bool] = False
    """Whether it moves a prediction relative to the unconditional one, which models with distilled guidance lack."""
    uses_anchor: ClassVar[bool] = False
    needs_anchor: ClassVar[bool] = False
    uses_keep: ClassVar[bool] = False
    several: ClassVar[bool] = True
    """Whether one Edit can erase several targets."""
    by_choice: ClassVar[bool] = False
    """Whether what the method uses depends on its settings; the other class variables then hold for the defaults."""

    def fit(
        self,
        model: Model,
        erasure: Erasure,
        *,
        progress: Callable[..., None] | None = None,
        checkpoint: str | Path | None = None,
        estimate: Callable[[Trainer | None], None] | None = None,
    ) -> Edit:
        """Fits an Edit that erases the request's targets; the steps are check, build, estimate, train and finish.

        The model is left bit for bit as it was. The same model, request and hyper-parameters give the same Edit, also
        after a resumption.

        Args:
            progress: called as progress(step, of, **more) after each step, steps counted from 1. Trainings add
                learner=…, the name of what took the step, and loss=…, the losses by role.
            checkpoint: a file to resume from where it exists, and to save to meanwhile; removed at the end.
            estimate: called after all checks and before the work starts, with what was built (None if the method builds
                no training); an exception that it raises ends the run.

        Raises:
            ValueError: the method cannot serve the request or the model; says what would work, before any work.
            Diverged: a loss or gradient became NaN or infinite; its `edit` is the last good state.
        """
        self.check(erasure, model)
        built = self.build(model, erasure)
        if estimate:
            estimate(built)
        return self.finish(self.train(model, erasure, built, progress, checkpoint), erasure)

    def build(self, model: Model, erasure: Erasure) -> Trainer | None:
        """Sets up the training without beginning it; None for a method without a training that can be planned."""
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
        """Does the work of the method and returns its Edit; `built` is what `build` returned, the rest as in `fit`."""

    def finish(self, edit: Edit, erasure: Erasure) -> Edit:
        """Turns the Edit that `train` returned into the method's Edit; by default they are the same."""
        return edit

    def leaves_weights(self) -> bool:
        """Whether its Edit is a guide, which acts only while efface draws, so that other tools can't use it."""
        return False

    def build_record(self, model: Model, erasure: Erasure) -> dict[str, Any]:
        """The record of an Edit by this method, in JSON's types; it is made while the base's weights are in place."""
        return describe_run(model, erasure, type(self).__name__, asdict(self), origin=describe_origins(type(self)))

    def check(self, erasure: Erasure, model: Model | None = None) -> None:
        """Raises ValueError where the method cannot use a setting or what is requested, or cannot serve the model."""
        name = type(self).__name__
        check_choices(self)
        if model is not None and model.architecture not in (served := expand(self.architectures)):
            reasons = {kind: why for group, why in self.unserved.items() for kind in expand([group])}
            why = reasons.get(model.architecture)
            raise ValueError(
                f"{name} does not work on {model.name}, a model of the kind {model.architecture}"
                f"{f', because {why}' if why else ''}; it serves "
                f"{', '.join(served)}, and `efface list methods` says which methods serve which"
            )
        if model is not None:
            if model.quantised and self.kind in ("closed form", "in stages"):
                raise refuse_dense(name, model.quantised)
            self.check_guidance(model, erasure)
            named = (*getattr(model, "classes", ()), *getattr(model, "own_words", ()))
            check_phrases(erasure.targets, "target", named)
            check_phrases(erasure.keep, "keep", named)
        if len(erasure.targets) > 1 and not self.several:
            raise ValueError(
                f"{name} erases one concept at a time, got {', '.join(erasure.targets)}; make one Edit for each"
            )
        if erasure.keep and not self.uses_keep:
            raise ValueError(f"{name} has no use for concepts to keep ({', '.join(erasure.keep)}); EAP preserves them")
        if erasure.anchor and not self.uses_anchor:
            raise ValueError(f"{name} has no use for an anchor ({erasure.anchor!r}); leave it out")
        if self.needs_anchor and not erasure.anchor:
            raise ValueError(f"{name} replaces the target by an anchor; name one, for example --anchor 'a painting'")

    def relies_on_uncond(self, erasure: Erasure) -> bool:
        """Whether this request needs an unconditional prediction; by default as `needs_uncond` says."""
        return self.needs_uncond

    def check_guidance(self, model: Model, erasure: Erasure) -> None:
        """Raises ValueError where the method needs a guidance that the model does not have."""
        name = type(self).__name__
        if self.relies_on_uncond(erasure) and not model.has_uncond:
            raise ValueError(
                f"{name} moves a prediction relative to the unconditional one, and {model.name} has none: its guidance "
                "was distilled away. Use ac, gem with an anchor, age or erasediff, which need no such prediction; or "
                "erase on the model that it was distilled from"
            )
        if not model.has_uncond and getattr(self, "guidance", 1.0) != 1:
            raise ValueError(
                f"{model.name} draws without guidance, so {name} must too: give guidance 1 ({name} has it "
                f"at {getattr(self, 'guidance', 1.0):g})"
            )


@dataclass(frozen=True, kw_only=True)
class Trained(Method):
    """A method that trains: it has an answer on each axis, and the settings of the training loop.

    A subclass defines `build_terms`, `build_update` and `build_balance`; CONTRIBUTING.md has a complete example.
    """

    kind: ClassVar[Kind] = "trained"
    architectures: ClassVar[tuple[str, ...]] = ("sd", "sdxl", "pixart", "ddpm", "flow")
    weights: str = "xattn"
    """Which weights may change: subsets or regular expressions, comma-separated."""
    steps: int = 1000
    """Number of updates of the weights."""
    lr: float = 1e-5
    """Adam's learning rate for the weights."""
    batch: int = 1
    """Batch size: rows of each loss term in an update."""
    space: Space = "eps"
    """The space in which squared errors are measured, which decides how much noisy timesteps count."""
    draw_steps: int = 50
    """Sampling steps of the trajectories or pictures that the model draws to train on."""
    guidance: float = 3.0
    """Guidance of these trajectories or pictures."""
    templates: tuple[str, ...] = ("{}",)
    """Prompt templates with {} for the concept; each row takes one at random."""
    seed: int = 0
    """Seed of everything random."""
    micro_batch: int = 0
    """Number of rows in one pass of the student: fewer need less memory and give the same gradients; 0 means all."""
    moments: Literal[32, 8] = 32
    """Bits of each number in Adam's two moments; 8 rounds them and needs a quarter of their memory."""

    def __post_init__(self) -> None:
        least = {"steps": 1, "batch": 1, "draw_steps": 1, "paths": 1, "pictures": 1, "micro_batch": 0, "refresh": 0}
        for name, bound in least.items():
            if getattr(self, name, bound) < bound:
                raise ValueError(f"{name} must be at least {bound}, got {getattr(self, name)}")
        check_templates(self.templates)

    @abstractmethod
    def build_terms(self, model: Model, erasure: Erasure) -> Sequence[Term]:
        """The loss terms: the objective, the preservation, and a cost where the update has one; new objects at every
        call.

        For example `(NegativeGuidance(source, self.eta, self.space), NoPreservation())`. Two terms that are given one
        `Shared` source are evaluated at the same states.
        """

    @abstractmethod
    def build_update(self) -> Update:
        """Which weights may change and in which form, for example `Dense(self.weights, self.lr)`; a new object."""

    @abstractmethod
    def build_balance(self) -> Balance:
        """How the losses become one step, for example `Sum(keep=2.0)`."""

    def fit_update(self, update: Update, terms: Sequence[Term]) -> Update:
        """The update that these terms train: the given one, unless it depends on something in the terms."""
        return update

    def build(self, model: Model, erasure: Erasure) -> Trainer:
        """Sets up the training without beginning it; DoesNotFit where memory is too small for it."""
        return build_for_planning(lambda: self.build_trainer(model, erasure), model.device)

    def train(
        self,
        model: Model,
        erasure: Erasure,
        built: Trainer | None,
        progress: Callable[..., None] | None,
        checkpoint: str | Path | None,
    ) -> Edit:
        """Takes all steps of the training, and returns the Edit."""
        return (built or self.build_trainer(model, erasure)).train(progress, checkpoint)

    def build_config(self) -> TrainConfig:
        """The fields that the training loop, the terms and the update read."""
        return TrainConfig(**{field.name: getattr(self, field.name) for field in fields(TrainConfig)})

    def build_trainer(self, model: Model, erasure: Erasure) -> Trainer:
        """The prepared training, before its first step."""
        self.check(erasure, model)
        update, balance = require_parts(self, self.build_update(), self.build_balance())  # before folders are read
        if model.quantised and not update.adds_factors:
            raise refuse_dense(type(self).__name__, model.quantised)
        check_terms(type(self).__name__, terms := self.build_terms(model, erasure))
        return Trainer(
            model,
            erasure,
            name=type(self).__name__,
            arguments=asdict(self),
            config=self.build_config(),
            terms=terms,
            update=self.fit_update(update, terms),
            balance=balance,
            origin=describe_origins(type(self)),
        )


@dataclass(frozen=True, kw_only=True)
class TrajectoryMethod(Trained):
    """A method that trains at states on sampling trajectories."""

    source: Literal["student", "frozen"] = "student"
    """Whose trajectories are trained on: those of the model in training (student), drawn anew for each update unless
    --refresh says otherwise, or stored ones of the base (frozen)."""
    paths: int = 32
    """Number of stored trajectories, divided among the targets, with at least 4 of each."""
    sampler: Literal["ddim", "dpm", "unipc"] = "ddim"
    """The sampler of the trajectories; dpm and unipc need fewer --draw-steps."""
    refresh: int = 0
    """Number of steps after which stored trajectories are drawn anew; with 0 never, and then the student's are not
    stored at all."""


@dataclass(frozen=True, kw_only=True)
class ImageMethod(Trained):
    """A method that trains on noised pictures, of the target and of what is to remain."""

    uses_keep: ClassVar[bool] = True
    forget_images: str = ""
    """Folder with pictures of the target, captioned if there are several; by default the model draws them."""
    remain_images: str = ""
    """Folder with pictures of what is to remain, with captions (metadata.jsonl, .txt files or subfolders); by default
    the model draws them."""
    pictures: int = 800
    """Number of pictures of the target, and of those to remain, that the model draws for all prompts together."""
    remain_words: int = 100
    """Number of words of the model's vocabulary whose pictures are to remain, if neither a folder nor concepts to
    keep are given."""
    antithetic: bool = False
    """Sample timesteps in antithetic pairs t, T - 1 - t."""
