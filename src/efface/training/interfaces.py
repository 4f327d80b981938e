"""The base classes of the parts of a training, and the data that these are given.

An erasure method chooses on five axes: objective, preservation, source of states, balance and update. In each step of
`Trainer` the terms (objective and preservation) return queries, which say which predictions they need; the trainer
makes these in a few batches, gives them to the terms, and differentiates the losses.
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
    """One step of one learner, with the random choices of its n rows, which all terms share."""

    index: int
    """The number of the step in the training, from 0, counted over all learners."""
    learner: Learner
    generator: torch.Generator
    """On the CPU, seeded by the training's seed and the index, so that a resumed training draws the same."""
    targets: Sequence[int]
    """[n]: the target that each row erases, as an index into the request's targets."""
    templates: Sequence[int]
    """[n]: the template of each row, as an index into `TrainConfig.templates`."""
    noise: Sequence[int]
    """[n]: the seed of each row's start noise."""
    points: Sequence[int]
    """[n]: each row's step of the trajectory, from 0 (pure noise) to `draw_steps` - 1."""
    round: int = 0
    """The number of rounds before this one; in a round the weights take one step, and other learners their steps."""


@final
@dataclass(frozen=True, eq=False)
class Context:
    """What terms, sources and updates know about their training; a test can make it without a `Trainer`:

    update = Dense("xattn", lr=1e-5)
    context = Context(model, Erasure(("cat",)), TrainConfig(steps=1, batch=2, draw_steps=4), update, model.encode([""]))
    update.prepare(context)
    queries = term.build_queries(context, Step(0, update, torch.Generator(), [0, 0], [0, 0], [7, 8], [1, 2]))
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
    """Called with the number of trajectories and pictures that are drawn, and the number that is needed."""

    @property
    def trains_text_encoder(self) -> bool:
        """Whether weights outside the denoiser may change; it is known once the update is prepared."""
        return any(not name.startswith(f"{self.model.denoiser}.") for name in self.update.list_changed_names())

    def fill_templates(self, step: Step, concepts: Sequence[str]) -> list[str]:
        """The prompts of the n rows: each row's concept in its template."""
        templates = self.config.templates
        return [templates[i].format(concept) for i, concept in zip(step.templates, concepts, strict=True)]

    def list_target_prompts(self, step: Step) -> list[str]:
        """The prompts of the n rows: each row's target in its template."""
        return self.fill_templates(step, [self.erasure.targets[i] for i in step.targets])

    def list_all_target_prompts(self) -> list[str]:
        """Every target in every template."""
        return [form.format(target) for target in self.erasure.targets for form in self.config.templates]

    def weigh_loss(self, t: Tensor, space: Space) -> Tensor:
        """Weight [n] that turns squared errors in the model's own space into those in `space`, at timesteps t [n]."""
        return space_weight(self.model.find_noise_level(t), self.model.space, space)


class Checkpointable:
    """A part of a training that may have a state in checkpoints; by default it has none."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed training needs of this part, by names that it chooses."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores a state from `state_dict`, perhaps of another process."""


class Learner(Checkpointable, ABC):
    """Something that gradients train: the weights (`Update`), or a search over words."""

    steps_per_round: int
    """Number of steps that it takes in every round, in which the learners take their steps one after the other."""
    about: str = ""
    """A line about it for the user before a training, known once it is prepared: how many words are searched."""
    adds_factors: ClassVar[bool] = False
    """Whether the weights stay as they are and factors are added, as a base in 4 or 8 bits needs."""
    held_bytes: int = 0
    """Bytes on the device beside the trained tensors, such as a table of embeddings; known once it is prepared."""

    @abstractmethod
    def list_params(self) -> list[Tensor]:
        """The leaf tensors by which losses are differentiated; every call returns the same ones in the same order."""

    def list_optimised(self) -> list[Tensor]:
        """The tensors that the optimiser changes: the params, or their fp32 masters if those are narrower copies."""
        return self.list_params()

    @abstractmethod
    def step(self, grads: Sequence[Tensor]) -> None:
        """Takes one step, given the gradient of the loss for each of the params."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the params, of the optimiser's moments, and of all else that a resumed training needs."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Restores a state from `state_dict`; the steps after it are bit-identical to those of an unbroken run."""


class Update(Learner):
    """Which weights may change, and in which form: by their values, a low-rank product, or a mask.

    The base's tensors are never written to; the student exists only within `swapped_in`:

        with update.swapped_in():
            student = model.predict(x, t, cond)[0]      # depends on update.list_params()
        teacher = model.predict(x, t, cond)[0]          # the base again, bit for bit
    """

    @abstractmethod
    def prepare(self, context: Context) -> None:
        """Chooses the weights and sets up the trained tensors, once, before any term; the student starts as the base.

        Raises:
            ValueError: the selection matches no weight that this update can change; the message says what would work.
        """

    def begin(self, erase_gradient: Callable[[int], Sequence[Tensor]]) -> None:
        """Is called once, after all terms are prepared.

        Until the first step, `erase_gradient(i)` gives the erasing loss's gradient for each param on the i-th batch.
        """

    @abstractmethod
    def list_changed_names(self) -> Sequence[str]:
        """Checkpoint names of the weights that may change, such as "unet.down_blocks.0…weight"."""

    @abstractmethod
    def swapped_in(self) -> AbstractContextManager[None]:
        """Puts the student's weights, which pass gradients to the params, into the module inside the `with` block."""

    @abstractmethod
    def compute_deltas(self) -> dict[str, Tensor]:
        """The present change of the weights, on the CPU, in an Edit's form (`edits.deltas`): values, masks, factors."""

    def collect_metadata(self) -> dict[str, Any]:
        """What it found out, in JSON's types, for the Edit's record."""
        return {}


class Source(Checkpointable, ABC):
    """Gives the states: points on trajectories of the student or the teacher, or noised pictures.

    For example, pure noise at the last timestep:

        class Gaussian(Source):
            def sample_states(self, context, step, prompts, cond):
                x = torch.randn(len(prompts), *context.model.latent_shape, generator=step.generator)
                return States(x, torch.full((len(prompts),), 999))
    """

    @abstractmethod
    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        """One state for each of the n rows of the step, on the model's device; everything random comes from the step.

        Args:
            prompts: the n rows' prompts, by which drawings are stored.
            cond: their conditions, n rows; the states must not depend on it by a gradient.
        """

    def expect(self, prompts: Sequence[str]) -> None:
        """Announces prompts of which states will be sampled, so that their trajectories are drawn together."""

    def estimate_footprint(self, context: Context) -> MemoryFootprint:
        """Estimates, without drawing, the memory that its drawing will take."""
        return MemoryFootprint()


class Term(Checkpointable, ABC):
    """A part of the loss: an objective (role "erase"), a preservation ("keep") or a price of the update ("cost").

    For example, a term that pulls the student's prediction for the target to the teacher's for the empty prompt:

        class Neutral(Term):
            role = "erase"

            def __init__(self, source):
                self.source = source

            def build_queries(self, context, step):
                if step.learner is not context.update:
                    return None
                prompts = context.list_target_prompts(step)
                cond = context.model.encode(prompts)
                states = self.source.sample_states(context, step, prompts, cond)
                return {
                    "student": Query(states, cond, "student", prompts=prompts),
                    "eps_0": Query(states, context.uncond, "teacher", known="eps_0"),
                }

            def compute_loss(self, context, queries, predictions):
                return (predictions["student"] - predictions["eps_0"]).square().mean()
    """

    role: LossRole

    @property
    def least_rows(self) -> int:
        """The fewest rows that the loss can be computed of."""
        return 1

    def prepare(self, context: Context) -> None:
        """Prepares the first step: makes checks, finds candidates, and announces prompts to its source.

        Raises:
            ValueError: the term cannot work with this model, request or update; the message says what would.
        """

    def list_searches(self) -> Sequence[Learner]:
        """The term's own learners, which take steps beside the update."""
        return ()

    def list_sources(self) -> dict[str, Source]:
        """The term's sources, by the names of their attributes."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Source)}

    @abstractmethod
    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        """The predictions that the loss needs in this step, by names that the term chooses.

        It returns None where the term has no part in steps of this learner. Random choices come from the step. Queries
        of several terms with the same `States` object and the same `Cond` object are predicted once.
        """

    @abstractmethod
    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        """The term's loss, a scalar.

        Args:
            queries: the result of `build_queries` in this step.
            predictions: the prediction [n, c, h, w] for each query, by its name, in the model's own space. Those of the
                student have a gradient to the learner's params, those of the teacher have none.
        """

    def collect_metadata(self) -> dict[str, Any]:
        """What it found out, in JSON's types, for the Edit's record."""
        return {}


class Balance(ABC):
    """Combines the losses of the roles into one step of the update.

    A `__call__` that weighs all roles alike: `return grad_of({"erase": 1.0, "keep": 1.0, "cost": 1.0})[1]`.
    """

    inner: int = 0
    """Number of steps on the erasing loss alone that give `floor`; they start at the present weights and are undone."""
    needs: ClassVar[tuple[LossRole, ...]] = ()
    """The roles that must have a term."""
    passes: ClassVar[tuple[tuple[LossRole, ...], ...]] = (("erase", "keep", "cost"),)
    """The roles of each call of `grad_of`, in order, from which the memory of a step is estimated."""

    @abstractmethod
    def __call__(self, grad_of: GradOf, floor: float | None) -> Sequence[Tensor]:
        """The gradient for the update's step, one tensor for each of its params.

        Args:
            grad_of: makes one pass for the roles in its weights, and gives their losses and the gradient of the
                weighted sum. Call it for erasing first. A role without a term is left out of the losses.
            floor: the erasing loss after the `inner` steps; None where `inner` is 0.
        """
