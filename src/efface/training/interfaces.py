"""The pieces of a game. An erasure is one answer on each axis: objective, preservation, balance, update, source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor

from ..models.cond import Cond

if TYPE_CHECKING:
    from .trainer import Trainer

LossRole = Literal["erase", "keep", "cost"]


@dataclass(frozen=True)
class States:
    """n states to evaluate a term at."""

    x: Tensor
    """[n, c, h, w]: noisy latents."""
    t: Tensor
    """[n]: their timesteps."""
    known: Mapping[str, Tensor] = field(default_factory=dict)
    """[n, c, h, w] each, in the model's own space: frozen predictions already made here, "eps_c" under the rows' own
    condition and "eps_0" under ""; "noise", what a perfect denoiser would say of pictures that were noised."""


@dataclass(frozen=True)
class Query:
    """A question to the model: what do you predict at these rows, under these conditions?"""

    states: States
    cond: Cond
    role: Literal["student", "teacher"]
    known: str = ""
    """The key of `states.known` that answers a frozen ask for nothing, where it is there."""
    prompts: Sequence[str] = ()
    """What `cond` encodes. A student whose text encoder learns reads these anew, with a gradient."""
    prefix: Tensor | None = None
    """[n, k, d]: token embeddings put before the words of `prompts` (an attack's), read as `prompts` are."""


@dataclass(frozen=True)
class Step:
    """One move: who moves, and the random choices that all terms share in it."""

    index: int
    learner: Learner
    generator: torch.Generator
    """On the CPU, seeded by the game's seed and the index alone, so that a resumed game draws the same."""
    targets: Sequence[int]
    """[n]: which concept is erased in each row."""
    templates: Sequence[int]
    """[n]: under which template."""
    noise: Sequence[int]
    """[n]: seeds of the start noise."""
    points: Sequence[int]
    """[n]: how far down the trajectory, 0 is pure noise."""


class Checkpointable:
    """A part of a game that may know what a resumed game needs; by itself it knows nothing."""

    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed game needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""


class Learner(Checkpointable, ABC):
    """Anything optimised on its own clock: weights, EAP's choice of a concept."""

    steps_per_round: int
    """Moves a round."""

    @abstractmethod
    def params(self) -> list[Tensor]:
        """The tensors whose gradients `step` wants."""

    def learning(self) -> list[Tensor]:
        """The tensors that its optimiser moves: those of `params`, or their masters."""
        return self.params()

    @abstractmethod
    def step(self, grads: Sequence[Tensor]) -> None:
        """One move, given the gradient of the loss for each of `params`."""

    @abstractmethod
    def state_dict(self) -> dict[str, Tensor]:
        """All that a resumed game needs."""

    @abstractmethod
    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """The inverse of `state`."""


class Update(Learner):
    """The player that moves weights: which, and how they may move."""

    @abstractmethod
    def prepare(self, trainer: Trainer) -> None:
        """Chooses the weights and sets them up at the base."""

    def ready(self, trainer: Trainer) -> None:
        """Work that needs the terms prepared, such as finding salient weights."""

    @abstractmethod
    def changed_names(self) -> Sequence[str]:
        """Checkpoint names of the weights that may move."""

    @abstractmethod
    def swapped_in(self) -> AbstractContextManager[None]:
        """Within, the module holds the student's weights."""

    @abstractmethod
    def deltas(self) -> dict[str, Tensor]:
        """What an Edit holds: new values, masks or factors by checkpoint name."""

    def metadata(self) -> dict[str, Any]:
        """What it found out, in JSON's types, for the Edit's record."""
        return {}


@dataclass(frozen=True)
class MemoryFootprint:
    """What a source's drawing takes."""

    images_at_once: int = 0
    """Drawn at once."""
    trace_bytes: int = 0
    """Bytes that are recorded of these meanwhile, where the network is."""
    cache_bytes: int = 0
    """Bytes that are recorded of all that is expected; beyond the store's bound they go to disk."""
    image_bytes: int = 0
    """Bytes of pictures, which stay in memory."""


class Source(Checkpointable, ABC):
    """Where states come from."""

    @abstractmethod
    def sample_states(self, trainer: Trainer, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        """A state for each row of the turn, on trajectories under the row's condition, which `prompts` name."""

    def expect(self, prompts: Sequence[str]) -> None:
        """Prompts that rows will be asked for: what is kept of them may be made together."""

    def estimate_footprint(self, trainer: Trainer) -> MemoryFootprint:
        """What its drawing will take."""
        return MemoryFootprint()


class Term(Checkpointable, ABC):
    """A part of the loss: an objective or a preservation."""

    role: LossRole

    def prepare(self, trainer: Trainer) -> None:
        """Work before the first turn."""

    def searches(self) -> Sequence[Learner]:
        """Players of the term's own, beside the update."""
        return ()

    def sources(self) -> dict[str, Source]:
        """Its sources, by the names of their attributes."""
        return {name: value for name, value in vars(self).items() if isinstance(value, Source)}

    @abstractmethod
    def queries(self, trainer: Trainer, step: Step) -> Mapping[str, Query] | None:
        """What it wants to know this turn, by names of its choosing; None when the turn is not its business."""

    @abstractmethod
    def loss(self, trainer: Trainer, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        """A scalar from the replies to its asks."""

    def metadata(self) -> dict[str, Any]:
        """What it found out, in JSON's types, for the Edit's record."""
        return {}


GradOf = Callable[[Mapping[LossRole, float]], tuple[Mapping[LossRole, float], Sequence[Tensor]]]


class Balance(ABC):
    """How the losses by role become one step of the update."""

    inner: int = 0
    """Steps on the erasing loss alone, on a scratch copy, by which its reachable minimum is judged; 0 asks for none."""
    needs: ClassVar[tuple[LossRole, ...]] = ()
    """Roles without which there is no step."""
    passes: ClassVar[tuple[tuple[LossRole, ...], ...]] = (("erase", "keep", "cost"),)
    """Roles that it has differentiated together, pass by pass: what is planned for."""

    @abstractmethod
    def __call__(self, grad_of: GradOf, floor: float | None) -> Sequence[Tensor]:
        """The gradients for the update's params.

        Args:
            grad_of: the losses of the roles that it is given a share of, and the gradient of their weighted sum. A pass
                for each call; erasing goes first.
            floor: the erasing loss after the inner steps; None where there were none.
        """
