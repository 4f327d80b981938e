"""The training loop: every method's, without special cases.

One copy of the weights serves teacher and student: the student's tensors of the trained subset are swapped into the
module by reference for its pass, and stay there until the gradients are taken.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint as recomputed

from ..concept import Erasure
from ..edits.edit import Edit
from ..edits.provenance import check_same_run, provenance, versions
from ..files import check_writable, read_tensors, write_tensors
from ..functional.schedules import Space, space_weight
from ..models.base import Model
from ..models.cond import Cond
from .config import TrainConfig
from .distributed import process_group
from .interfaces import Balance, Checkpointable, Learner, LossRole, Query, Source, Step, Term, Update

SAVE_EVERY = 25
"""Turns after which the state is kept: as a checkpoint where there is to be one, and as the last good Edit."""


class Diverged(ArithmeticError):
    """A loss or gradient is no longer a number, and the step before may be to blame.

    `edit` is the last state that was kept of those whose losses and gradients were numbers.
    """

    def __init__(self, message: str, edit: Edit) -> None:
        ArithmeticError.__init__(self, message)
        self.edit = edit


@final
@dataclass
class Trainer:
    """One erasure in training."""

    model: Model
    erasure: Erasure
    name: str
    """The method's, for the record."""
    arguments: Mapping[str, Any]
    """The method's arguments, for the record."""
    config: TrainConfig
    terms: Sequence[Term]
    update: Update
    balance: Balance

    def __post_init__(self) -> None:
        self.base = self.model.fingerprint()
        self.uncond = self.model.encode([""])
        if not {*self.balance.needs} <= {term.role for term in self.terms}:
            raise ValueError(f"{self.name} needs something to {' and something to '.join(self.balance.needs)}")
        self.update.prepare(self)
        self.live = any(not name.startswith("unet.") for name in self.update.changed_names())
        for term in self.terms:
            term.prepare(self)
        if self.live and self.model.parked:
            raise ValueError(f"{self.name} trains a text encoder, which must stay on the device: leave out --offload")
        self.update.ready(self)
        self.learners: list[Learner] = [self.update, *(p for term in self.terms for p in term.searches())]
        self.good: Edit | None = None

    def train(self, progress: Callable[..., None] | None = None, checkpoint: str | Path | None = None) -> Edit:
        """All turns, from the start or from where the checkpoint stands.

        Raises:
            Diverged: it left the numbers; no checkpoint is left of the state in which it did.
        """
        order = list(self._clock())
        file = check_writable(checkpoint) if checkpoint else None
        saved = first = self._resume(file) if file and file.exists() else 0
        for index in range(first, len(order)):
            try:
                losses = self.step(self.make_step(index, order[index]))
            except Diverged:
                if file and saved == index and process_group().is_main:
                    file.unlink(missing_ok=True)
                raise
            except OSError:  # the player has not moved yet
                if file:
                    with suppress(OSError):  # no room for it either: then the one before stands
                        self._save(file, index)
                raise
            done = index + 1
            if file and done % SAVE_EVERY == 0:
                self._save(file, done)
                saved = done
            if progress:
                progress(done, len(order), learner=type(order[index]).__name__, loss=losses)
        if file and process_group().is_main:
            file.unlink(missing_ok=True)
        self.good = None
        return self.edit()

    def edit(self) -> Edit:
        """The state of the game as an Edit."""
        notes = {key: value for part in (*self.terms, self.update) for key, value in part.metadata().items()}
        return Edit(self.update.deltas(), {**self._record(), "versions": versions(), "notes": notes})

    def prompts(self, step: Step, concepts: Sequence[str]) -> list[str]:
        """The row's concept under the row's template, for each row of the turn."""
        templates = self.config.templates
        return [templates[i].format(concept) for i, concept in zip(step.templates, concepts, strict=True)]

    def targets(self) -> list[str]:
        """Every target under every template."""
        return [form.format(target) for target in self.erasure.targets for form in self.config.templates]

    def weight(self, t: Tensor, space: Space) -> Tensor:
        """Weight [n] that turns squared errors in the model's own space into those in `space`, at t [n]."""
        return space_weight(self.model.alpha_bar(t), self.model.space, space)

    def sources(self) -> list[Source]:
        """Of all terms; what two of them share counts once."""
        return list({id(source): source for term in self.terms for source in term.sources().values()}.values())

    # The parts of a turn.

    def _clock(self) -> Iterator[Learner]:
        for _ in range(self.config.steps):
            for learner in self.learners:
                for _ in range(learner.steps_per_round):
                    yield learner

    def make_step(self, index: int, learner: Learner, stream: int = 0) -> Step:
        """The turn's random choices; `salt` gives others at the same index, for looks aside."""
        rng = torch.Generator().manual_seed((self.config.seed * 1_000_003 + index) * 1_009 + stream)
        n = self.config.batch
        bounds = (len(self.erasure.targets), len(self.config.templates), 2**31, self.config.draw_steps)
        choices = [torch.randint(bound, (n,), generator=rng).tolist() for bound in bounds]
        return Step(index, learner, rng, *choices)

    def step(self, step: Step) -> dict[str, float]:
        """One step of the turn's player; the losses by role."""
        ours = step.learner is self.update
        floor = self._floor(step) if ours and self.balance.inner else None
        values: dict[LossRole, float] = {}

        def grad_of(shares: Mapping[LossRole, float]) -> tuple[Mapping[LossRole, float], Sequence[Tensor]]:
            found, grads = self.gradient(step, shares)
            values.update(found)
            return found, grads

        grads = self.balance(grad_of, floor) if ours else grad_of({"erase": 1.0, "keep": 1.0, "cost": 1.0})[1]
        norms = torch.stack([grad.float().norm() for grad in grads])
        self._demand_finite(step, norms, f"gradient, at loss {values}")
        if self.good is None or step.index % SAVE_EVERY == 0:
            self.good = None  # the old one goes first: each is as large as what learns
            self.good = self.edit()
        step.learner.step(grads)
        return {str(role): value for role, value in values.items()}

    def gradient(
        self, step: Step, shares: Mapping[LossRole, float]
    ) -> tuple[Mapping[LossRole, float], Sequence[Tensor]]:
        """These roles' losses, and the gradient of their weighted sum for the params of the turn's player.

        One pass for all of them, whose activations are gone after it. A role that has nothing to say this turn is left
        out of the losses.
        """
        with self.losses(step, *shares) as losses:
            values: dict[LossRole, float] = {role: loss.item() for role, loss in losses.items()}
            self._demand_finite(step, torch.tensor(list(values.values())), f"loss {values}")
            total = torch.stack([shares[role] * loss for role, loss in losses.items()]).sum()
            return values, gradients(step.learner.params(), total)

    @contextmanager
    def losses(self, step: Step, *roles: LossRole) -> Iterator[dict[LossRole, Tensor]]:
        """The losses of all terms, or of these roles'; differentiate them within, where the student is in place."""
        asked = self.collect_queries(step, *roles)
        flat = [query for _, queries in asked for query in queries.values()]
        frozen = self.predict_teacher([query for query in flat if query.role == "teacher"])
        with _still(self.model), self.update.swapped_in():
            predictions = frozen | self._predict([a for a in flat if a.role == "student"], self.config.micro_batch)
            losses: dict[LossRole, Tensor] = {}
            for term, queries in asked:
                loss = term.loss(self, queries, {key: predictions[id(query)] for key, query in queries.items()})
                losses[term.role] = losses[term.role] + loss if term.role in losses else loss
            yield losses

    def collect_queries(self, step: Step, *roles: LossRole) -> list[tuple[Term, Mapping[str, Query]]]:
        """What all terms ask, or those of these roles; those that have nothing to say this turn are left out.

        Erasing asks first: asked alone, at the same turn, it then draws the same.
        """
        terms = sorted((t for t in self.terms if not roles or t.role in roles), key=lambda term: term.role != "erase")
        return [(term, queries) for term in terms if (queries := term.queries(self, step)) is not None]

    def _floor(self, step: Step) -> float:
        """The erasing loss of this turn after the balance's inner steps on it alone; the update is put back."""
        before = self.update.state_dict()
        for k in range(self.balance.inner):
            with self.losses(self.auxiliary_step(step.index, stream=1 + k), "erase") as losses:
                grads = gradients(self.update.params(), losses["erase"])
            self.update.step(grads)
        # Not the turn itself: its generator would have moved on, and the step would meet other states than the floor.
        with torch.no_grad(), self.losses(self.auxiliary_step(step.index, stream=0), "erase") as losses:
            floor = losses["erase"].item()
        self.update.load_state_dict(before)
        return floor

    def auxiliary_step(self, index: int, stream: int) -> Step:
        """A turn of the update aside from the game, with random choices of its own."""
        return self.make_step(index, self.update, stream)

    def predict_teacher(self, queries: Sequence[Query]) -> dict[int, Tensor]:
        """Replies by id of the ask: what is known already for nothing, the rest in one call."""
        predictions = {
            id(query): query.states.known[query.known] for query in queries if query.known in query.states.known
        }
        with torch.no_grad():
            return predictions | self._predict([query for query in queries if id(query) not in predictions])

    def _predict(self, queries: Sequence[Query], rows_at_once: int = 0) -> dict[int, Tensor]:
        """One batched prediction for all asks; in pieces whose activations are recomputed, where that is wanted.

        The same states under the same condition are predicted once, however many terms ask.
        """
        if not queries:
            return {}
        asked, queries = queries, list({(id(query.states), id(query.cond)): query for query in queries}.values())
        x, t = torch.cat([query.states.x for query in queries]), torch.cat([query.states.t for query in queries])
        cond = Cond.cat([self._cond(query).expand(len(query.states.x)) for query in queries])
        out = process_group().shard_apply(lambda own: self._pieces(x[own], t[own], cond[own], rows_at_once), len(x))
        parts = out.split([len(query.states.x) for query in queries])
        predictions = {(id(query.states), id(query.cond)): part for query, part in zip(queries, parts, strict=True)}
        return {id(query): predictions[id(query.states), id(query.cond)] for query in asked}

    def _pieces(self, x: Tensor, t: Tensor, cond: Cond, rows_at_once: int) -> Tensor:
        if not 0 < rows_at_once < len(x):
            return self._network(x, t, cond)
        pieces = [slice(i, i + rows_at_once) for i in range(0, len(x), rows_at_once)]
        return torch.cat(
            [
                recomputed(self._network, x[p], t[p], cond[p], use_reentrant=False, determinism_check="none")
                for p in pieces
            ]  # type: ignore[list-item]
        )

    def _network(self, x: Tensor, t: Tensor, cond: Cond) -> Tensor:
        return self.model.predict(x, t, cond)[0]

    def _cond(self, query: Query) -> Cond:
        """The ask's condition; read anew, with a gradient, where the student's text encoder learns."""
        if query.role == "student" and query.prompts and (self.live or query.prefix is not None):
            return self.model.read(query.prompts, query.prefix)
        return query.cond

    def _demand_finite(self, step: Step, values: Tensor, what: str) -> None:
        if not values.isfinite().all():
            learner = type(step.learner).__name__
            message = f"{self.name} diverged at step {step.index + 1} ({learner}): {what}; a smaller lr may help"
            raise Diverged(message, self.good or self.edit())

    # Checkpoints.

    def _record(self) -> dict[str, Any]:
        return provenance(self.model, self.erasure, self.name, self.arguments, self.base)

    def _checkpointed(self) -> list[Checkpointable]:
        """What a checkpoint holds the state of."""
        return [*self.learners, *self.terms, *self.sources()]

    def _save(self, file: Path, done: int) -> None:
        if not process_group().is_main:
            return
        parts = enumerate(self._checkpointed())
        tensors = {f"{i}/{key}": value for i, part in parts for key, value in part.state_dict().items()}
        write_tensors(file, tensors, {**self._record(), "kind": "checkpoint", "done": done})

    def _resume(self, file: Path) -> int:
        tensors, meta = read_tensors(file)
        check_same_run(file, meta, {**self._record(), "kind": "checkpoint"})
        for i, part in enumerate(self._checkpointed()):
            prefix = f"{i}/"
            part.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        return meta["done"]


@contextmanager
def _still(model: Model) -> Iterator[None]:
    """Within, no weight in place asks for a gradient: what does not learn then keeps no activations for one."""
    asking = [tensor for tensor in model.weights.values() if tensor.requires_grad and tensor.is_leaf]
    try:
        for tensor in asking:
            tensor.requires_grad_(False)
        yield
    finally:
        for tensor in asking:
            tensor.requires_grad_(True)


def gradients(params: Sequence[Tensor], loss: Tensor) -> Sequence[Tensor]:
    """A scalar, differentiated by these; zero where it does not depend on one. Activations go on its way."""
    grads = torch.autograd.grad(loss, params, allow_unused=True)
    return process_group().all_reduce_mean(
        [torch.zeros_like(p) if g is None else g for p, g in zip(params, grads, strict=True)]
    )
