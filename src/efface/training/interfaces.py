"""The parts of a training: the classes that an answer on an axis subclasses, and what they are given.

An erasure answers five axes: objective, preservation, source of states, balance and update. In each step of `Trainer`
the terms (objective and preservation) say as queries which predictions they need; the trainer makes them in a few
batches, hands them back, and differentiates the losses.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, final

import torch
from torch import Tensor

from ..concept import Erasure
from ..functional.schedules import Space, space_weight
from ..models.base import Model
from ..models.cond import Cond
from .config import TrainConfig
from .data import GradOf, LossRole, MemoryFootprint, Query, States


@dataclass(frozen=True)
class Step:
    """One step of one learner, and the random choices of its n rows, which all terms share."""

    index: int
    """Which step of the training it is, from 0, whoever learns."""
    learner: Learner
    generator: torch.Generator
    """On the CPU, seeded by the training's seed and the index alone, so that a resumed training draws the same."""
    targets: Sequence[int]
    """[n]: which target each row erases, as an index into the request's targets."""
    templates: Sequence[int]
    """[n]: under which template."""
    noise: Sequence[int]
    """[n]: seeds of the start noise."""
    points: Sequence[int]
    """[n]: how far down the trajectory, from 0 (pure noise) to `draw_steps` - 1."""
    round: int = 0
    """How many rounds came before; in each the weights take one step, and other learners theirs."""


@final
@dataclass(frozen=True, eq=False)
class Context:
    """What terms, sources and updates know of their training; it can be made without a `Trainer`, to test a term:

    update = Dense("xattn", lr=1e-5)
    config = TrainConfig(steps=1, batch=2, draw_steps=4)
    context = Context(model, Erasure(("cat",)), config, update, model.encode([""]))
    update.prepare(context)
    queries = term.queries(context, Step(0, update, torch.Generator(), [0, 0], [0, 0], [7, 8], [1, 2]))
    """

    model: Model
    erasure: Erasure
    config: TrainConfig
    update: Update
    uncond: Cond
    """The empty prompt's condition, one row."""
    method: str = "the method"
    """The method's name, for error messages."""
    base: Mapping[str, str] = field(default_factory=dict)
    """The fingerprint of the base's weights."""
    on_drawn: Callable[[int, int], None] = lambda done, total: None
    """Called with how much of what is trained on is drawn, and of how much."""

    @property
    def trains_text_encoder(self) -> bool:
        """Whether weights outside the denoiser may change; known once the update is prepared."""
        return any(not name.startswith(f"{self.model.denoiser}.") for name in self.update.changed_names())

    def fill_templates(self, step: Step, concepts: Sequence[str]) -> list[str]:
        """The prompt of each of the n rows: its concept under its template."""
        templates = self.config.templates
        return [templates[i].format(concept) for i, concept in zip(step.templates, concepts, strict=True)]

    def target_prompts(self, step: Step) -> list[str]:
        """The prompt of each of the n rows: its target under its template."""
        return self.fill_templates(step, [self.erasure.targets[i] for i in step.targets])

    def all_target_prompts(self) -> list[str]:
        """Every target under every template."""
        return [form.format(target) for target in self.erasure.targets for form in self.config.templates]

    def loss_weight(self, t: Tensor, space: Space) -> Tensor:
        """Weight [n] that turns squared errors in the model's own space into those in `space`, at timesteps t [n]."""
        return space_weight(self.model.noise_level(t), self.model.space, space)


class Checkpointable:
    """A part of a training that may have a state to resume from; by default it has none."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed training needs, by names of the part's choosing."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state that `state_dict` gave, perhaps in another process."""


class Learner(Checkpointable, ABC):
    """Something that gradients train: the weights (`Update`), or a search over words."""

    steps_per_round: int
    """Steps that it takes in every round, in which all learners take theirs, one after the other."""
    about: str = ""
    """What people are told of it before a training, once it is prepared: how many words are searched."""
    adds_factors: ClassVar[bool] = False
    """Whether weights stay as they are and factors are added, as a base in 4 or 8 bits needs it."""
    held_bytes: int = 0
    """Bytes that lie on the device beside what learns, such as a table of embeddings; known once it is prepared."""

    @abstractmethod
    def params(self) -> list[Tensor]:
        """The leaf tensors that losses are differentiated by; the same ones, in the same order, at every call."""

    def learning(self) -> list[Tensor]:
        """The tensors that the optimiser moves: `params`, or their fp32 masters where `params` are narrower copies."""
        return self.params()

    @abstractmethod
    def step(self, grads: Sequence[Tensor]) -> None:
        """Takes one step, given the gradient of the loss for each of `params`."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the params and of the optimiser's moments, and all else that a resumed training needs."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Takes over a state that `state_dict` gave; the steps after it are bit for bit those of an unbroken run."""


class Update(Learner):
    """Which weights may change, and in which form: by their values, a low-rank product, or a mask.

    The base's tensors are never written to; the student exists only within `swapped_in`:

        with update.swapped_in():
            student = model.predict(x, t, cond)[0]      # depends on update.params()
        teacher = model.predict(x, t, cond)[0]          # the base again, bit for bit
    """

    @abstractmethod
    def prepare(self, context: Context) -> None:
        """Chooses the weights and sets up what learns, so that the student starts as the base.

        Called once, before any term is prepared.

        Raises:
            ValueError: the selection matches no weight that this update can change; says what would work.
        """

    def ready(self, erase_gradient: Callable[[int], Sequence[Tensor]]) -> None:
        """Called once, after all terms are prepared.

        Args:
            erase_gradient: gives the gradient of the erasing loss for each of `params`, on a batch of its own for each
                number (the stream of its random choices). May be called at any time until the first step.
        """

    @abstractmethod
    def changed_names(self) -> Sequence[str]:
        """Checkpoint names of the weights that may change, such as "unet.down_blocks.0…weight"."""

    @abstractmethod
    def swapped_in(self) -> AbstractContextManager[None]:
        """Within, the module holds the student's weights, which carry gradients to `params`; afterwards the base's."""

    @abstractmethod
    def deltas(self) -> dict[str, Tensor]:
        """What an Edit holds of the present state, on the CPU: new values, masks or factors, as in `edits.deltas`."""

    def metadata(self) -> dict[str, Any]:
        """What it found out, in JSON's types, for the Edit's record."""
        return {}


class Source(Checkpointable, ABC):
    """Where the states come from: trajectories of the student or the teacher, or noised pictures.

    For example pure noise at the last timestep:

        class Gaussian(Source):
            def sample_states(self, context, step, prompts, cond):
                x = torch.randn(len(prompts), *context.model.latent_shape, generator=step.generator)
                return States(x, torch.full((len(prompts),), 999))
    """

    @abstractmethod
    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        """One state for each of the n rows of the step, on the model's device; everything random comes from the step.

        Args:
            prompts: the n rows' prompts, by which what is drawn is stored.
            cond: what they encode, n rows; a gradient to it is not to reach the states.
        """

    def expect(self, prompts: Sequence[str]) -> None:
        """Announces prompts that states will be sampled for, so that their trajectories are drawn together."""

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        """The memory that its drawing will take, estimated without drawing."""
        return MemoryFootprint()


class Term(Checkpointable, ABC):
    """A part of the loss: an objective (role "erase"), a preservation ("keep") or a price of the update ("cost").

    For example a term that pulls the student's prediction for the target to the teacher's for the empty prompt:

        class Neutral(Term):
            role = "erase"

            def __init__(self, source):
                self.source = source

            def queries(self, context, step):
                if step.learner is not context.update:
                    return None
                prompts = context.target_prompts(step)
                cond = context.model.encode(prompts)
                states = self.source.sample_states(context, step, prompts, cond)
                return {
                    "student": Query(states, cond, "student", prompts=prompts),
                    "eps_0": Query(states, context.uncond, "teacher", known="eps_0"),
                }

            def loss(self, context, queries, predictions):
                return (predictions["student"] - predictions["eps_0"]).square().mean()
    """

    role: LossRole

    def prepare(self, context: Context) -> None:
        """Work before the first step: candidates, checks, prompts that its source is to expect.

        Raises:
            ValueError: the term cannot work with this model, request or update; says what would.
        """

    def searches(self) -> Sequence[Learner]:
        """Learners of the term's own, which take steps beside the update."""
        return ()

    def sources(self) -> dict[str, Source]:
        """Its sources, by the names of their attributes."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Source)}

    @abstractmethod
    def queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        """The predictions that the loss needs in this step, by names of its choosing.

        None where the term has no part in steps of this learner. Random choices come from the step. Queries of several
        terms at the same `States` object under the same `Cond` object are predicted once.
        """

    @abstractmethod
    def loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        """The term's loss, a scalar.

        Args:
            queries: what `queries` gave in this step.
            predictions: the prediction [n, c, h, w] for each of them, by its name, in the model's own space. Those of
                the student carry a gradient to the learner's params, those of the teacher none.
        """

    def metadata(self) -> dict[str, Any]:
        """What it found out, in JSON's types, for the Edit's record."""
        return {}


class Balance(ABC):
    """How the losses of the roles become one step of the update.

    A `__call__` that weighs all alike: `return grad_of({"erase": 1.0, "keep": 1.0, "cost": 1.0})[1]`.
    """

    inner: int = 0
    """Steps on the erasing loss alone that give the floor; they start at the present weights and are undone."""
    needs: ClassVar[tuple[LossRole, ...]] = ()
    """Roles without which there is no step."""
    passes: ClassVar[tuple[tuple[LossRole, ...], ...]] = (("erase", "keep", "cost"),)
    """The roles of each call of `grad_of`, in order; the memory of a step is estimated by it."""

    @abstractmethod
    def __call__(self, grad_of: GradOf, floor: float | None) -> Sequence[Tensor]:
        """The gradient that the update steps by, one tensor for each of its params.

        Args:
            grad_of: makes one pass for the roles in its weights, and gives their losses and the weighted sum's
                gradient. Ask for erasing first. A role without a term is left out of the losses.
            floor: the erasing loss after the `inner` steps; None where `inner` is 0.
        """
