"""The training loop, which is the same for every method.

One copy of the weights serves as teacher and as student: for the student's pass, its tensors of the trained subset are
swapped into the module by reference, and they stay there until the gradients are computed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from math import isfinite
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor

from ..concept import Erasure
from ..edits.edit import Edit
from ..edits.provenance import check_same_run, describe_run, read_done, read_versions
from ..files import check_file, read_tensors, refusing, write_tensors
from ..models.base import Model
from ..origin import describe_origins
from .checking import check_gradient, check_loss, check_queries, require_asked
from .config import TrainConfig
from .data import LossRole, Query
from .distributed import find_process_group
from .diverged import Diverged
from .interfaces import Balance, Checkpointable, Context, Learner, Source, Step, Term, Update
from .loss_log import LossLog
from .loss_scale import LossScale, compute_gradients
from .predictor import Predictor
from .seeds import APART, NOISE_SEEDS

SAVE_EVERY = 25
"""Number of steps after which the state is saved, in the checkpoint if there is one, and as the last good Edit."""


@final
@dataclass
class Trainer:
    """The training of one erasure; a new one is prepared and has taken no step."""

    model: Model
    erasure: Erasure
    name: str
    """The method's name, for the record and for error messages."""
    arguments: Mapping[str, Any]
    """The method's arguments, for the record."""
    config: TrainConfig
    terms: Sequence[Term]
    update: Update
    balance: Balance
    origin: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The modules of other packages that it uses, for the record."""

    def __post_init__(self) -> None:
        self.origin = {**self.origin, **describe_origins(*map(type, (*self.terms, self.update, self.balance)))}
        self.model.forget_encodings()
        base, uncond = self.model.fingerprint(), self.model.encode([""])
        if not {*self.balance.needs} <= {term.role for term in self.terms}:
            raise ValueError(f"{self.name} needs something to {' and something to '.join(self.balance.needs)}")
        self.context = Context(self.model, self.erasure, self.config, self.update, uncond, self.name, base)
        self.update.prepare(self.context)
        self.predictor = Predictor(self.context, self.context.trains_text_encoder)
        for term in self.terms:
            term.prepare(self.context)
        if self.predictor.trains_text_encoder and self.model.parked:
            raise ValueError(f"{self.name} trains a text encoder, which must stay on the device: leave out --offload")
        self.learners: list[Learner] = [self.update, *(p for term in self.terms for p in term.list_searches())]
        self.good: Edit | None = None
        self.loss_scale, self.loss_log = LossScale(self.model.loss_factor), LossLog()
        self.update.begin(partial(self.compute_erase_gradient, 0))

    def tell_drawing(self, on_drawn: Callable[[int, int], None]) -> None:
        """Sets `on_drawn(done, total)`, which is called while trajectories and pictures to train on are drawn."""
        self.context = replace(self.context, on_drawn=on_drawn)

    def train(self, progress: Callable[..., None] | None = None, checkpoint: str | Path | None = None) -> Edit:
        """Takes all steps, from the first one or from the checkpoint on.

        Args:
            progress: called as progress(step, of, learner=…, loss=…) after each step, steps counted from 1.
            checkpoint: a file to resume from if it exists, and to save to every `SAVE_EVERY` steps; it is removed at
                the end.

        Raises:
            Diverged: a loss or gradient is not finite; a checkpoint of the very state that led to it is removed.
            OSError: the disk is full; the checkpoint is then of the step that failed, or the one before.
            ValueError: the checkpoint belongs to another run; the message says what differs.
        """
        self.model.forget_encodings()  # A memory plan may have encoded prompts in other batches.
        order = list(self.schedule())
        file = check_file(checkpoint) if checkpoint else None
        saved = first = self._resume(file) if file and file.exists() else 0
        for index in range(first, len(order)):
            try:
                losses = self.step(self.make_step(index, order[index]))
            except Diverged:
                if file and saved == index and find_process_group().is_main:
                    file.unlink(missing_ok=True)
                raise
            except OSError:  # the learner has not taken its step yet
                if file:
                    with suppress(OSError):  # no room for a checkpoint either, so the one before stays
                        self.save_checkpoint(file, index)
                raise
            done = index + 1
            if order[index] is self.update:
                self.loss_log.add(done, losses)
            if file and done % SAVE_EVERY == 0:
                self.save_checkpoint(file, done)
                saved = done
            if progress:
                progress(done, len(order), learner=type(order[index]).__name__, loss=losses)
        if file and find_process_group().is_main:
            file.unlink(missing_ok=True)
        self.good = None
        return self.build_edit()

    def build_edit(self) -> Edit:
        """The present state as an Edit."""
        noting = (*self.terms, self.update, self.loss_scale, self.loss_log)
        notes = {key: value for part in noting for key, value in part.collect_metadata().items()}
        return Edit(self.update.compute_deltas(), {**self._build_record(), "versions": read_versions(), "notes": notes})

    def list_sources(self) -> list[Source]:
        """The sources of all terms; one that two terms share is listed once."""
        return list({id(source): source for term in self.terms for source in term.list_sources().values()}.values())

    def resize(self, batch: int, micro_batch: int) -> Trainer:
        """A copy of this training with other numbers of rows in a step, which shares all parts; for measurements."""
        small = copy.copy(self)
        small.config = replace(self.config, batch=batch, micro_batch=micro_batch)
        small.context = replace(self.context, config=small.config)
        small.predictor = replace(self.predictor, context=small.context)
        return small

    # The steps.

    def schedule(self) -> Iterator[Learner]:
        """The learner of each step, in order: in each round first the weights, then the searches."""
        for _ in range(self.config.steps):
            for learner in self.learners:
                for _ in range(learner.steps_per_round):
                    yield learner

    def make_step(self, index: int, learner: Learner, stream: int = 0) -> Step:
        """The step of this index, whose random choices depend on the seed, the index and the stream alone.

        Steps of the schedule have stream 0; another stream gives other choices at the same index.
        """
        rng = torch.Generator().manual_seed((self.config.seed * APART + index) * 1_009 + stream)
        n = self.config.batch
        bounds = (len(self.erasure.targets), len(self.config.templates), NOISE_SEEDS, self.config.draw_steps)
        choices = [torch.randint(bound, (n,), generator=rng).tolist() for bound in bounds]
        per_round = sum(each.steps_per_round for each in self.learners)
        return Step(index, learner, rng, *choices, round=index // per_round)

    def make_auxiliary_step(self, index: int, stream: int) -> Step:
        """A step of the update outside the schedule, at which losses are evaluated."""
        return self.make_step(index, self.update, stream)

    def step(self, step: Step) -> dict[str, float]:
        """Takes one step: evaluates the losses and lets the step's learner step. Returns the losses by role.

        Raises:
            Diverged: a loss or gradient is not finite; the learner takes no step. In fp16 a gradient alone is no
                divergence yet: the step is skipped, and the factor before the loss is halved (`LossScale`).
        """
        of_update = step.learner is self.update
        floor = self.compute_erase_floor(step.index) if of_update and self.balance.inner else None
        values: dict[LossRole, Tensor] = {}

        def grad_of(shares: Mapping[LossRole, float]) -> tuple[Mapping[LossRole, Tensor], Sequence[Tensor]]:
            found, grads = self.compute_gradient(step, shares)
            values.update(found)
            return found, grads

        grads = self.balance(grad_of, floor) if of_update else grad_of({"erase": 1.0, "keep": 1.0, "cost": 1.0})[1]
        losses, finite = self._read(step, values, grads)
        if self.good is None or step.index % SAVE_EVERY == 0:
            self.good = None  # the old one is freed first: each is as large as the trained tensors
            self.good = self.build_edit()
        if self.loss_scale.accepts(finite):
            step.learner.step(grads)
        return losses

    def compute_gradient(
        self, step: Step, shares: Mapping[LossRole, float]
    ) -> tuple[Mapping[LossRole, Tensor], Sequence[Tensor]]:
        """The losses of some roles, and the gradient of their weighted sum for each param of the step's learner.

        One pass serves all roles, and its activations are freed afterwards. A role whose terms have no part in this
        step is left out of the losses.

        Args:
            shares: the weight of each role.
        """
        with self.compute_losses(step, *shares) as losses:
            total = torch.stack([shares[role] * loss for role, loss in losses.items()]).sum()
            check_gradient(total, [term for term in self.terms if term.role in losses])
            grads = compute_gradients(step.learner.list_params(), total, self.loss_scale.factor)
            return {role: loss.detach() for role, loss in losses.items()}, grads

    @contextmanager
    def compute_losses(self, step: Step, *roles: LossRole) -> Iterator[dict[LossRole, Tensor]]:
        """The losses by role, of all roles or of these; differentiate them inside the block, where the student is."""
        asked = self.collect_queries(step, *roles)
        require_asked([term for term in self.terms if not roles or term.role in roles], asked, step)
        flat = [query for _, queries in asked for query in queries.values()]
        predictions = self.predictor.predict_teacher([query for query in flat if query.role == "teacher"])
        with self.model.frozen(), self.update.swapped_in():
            predictions |= self.predictor.predict_student([query for query in flat if query.role == "student"])
            losses: dict[LossRole, Tensor] = {}
            for term, queries in asked:
                loss = term.compute_loss(
                    self.context, queries, {key: predictions[id(query)] for key, query in queries.items()}
                )
                check_loss(term, loss)
                losses[term.role] = losses[term.role] + loss if term.role in losses else loss
            yield losses

    def collect_queries(self, step: Step, *roles: LossRole) -> list[tuple[Term, Mapping[str, Query]]]:
        """The queries of all terms, or of those of some roles; terms that have no part in this step are left out.

        Erasure terms draw from the step's generator before preservation terms, so that a step which evaluates the
        erasing loss alone samples the same states.
        """
        terms = sorted((t for t in self.terms if not roles or t.role in roles), key=lambda term: term.role != "erase")
        found = [(term, check_queries(term, term.build_queries(self.context, step))) for term in terms]
        return [(term, queries) for term, queries in found if queries is not None]

    def compute_erase_gradient(self, index: int, stream: int) -> Sequence[Tensor]:
        """The gradient of the erasing loss for each param of the update, in an auxiliary step."""
        with self.compute_losses(self.make_auxiliary_step(index, stream), "erase") as losses:
            return compute_gradients(self.update.list_params(), losses["erase"], self.loss_scale.factor)

    def compute_erase_floor(self, index: int) -> float:
        """The erasing loss of the step of this index after the balance's inner steps on it; the update is restored."""
        before = self.update.state_dict()
        for k in range(self.balance.inner):
            self.update.step(self.compute_erase_gradient(index, 1 + k))
        # A step that is made again has a fresh generator, so that the floor is evaluated at the step's own states.
        with torch.no_grad(), self.compute_losses(self.make_auxiliary_step(index, stream=0), "erase") as losses:
            floor = losses["erase"].item()
        self.update.load_state_dict(before)
        return floor

    def _read(
        self, step: Step, losses: Mapping[LossRole, Tensor], grads: Sequence[Tensor]
    ) -> tuple[dict[str, float], bool]:
        """The losses as numbers, and whether the gradients are finite; read together, because each read waits.

        Raises:
            Diverged: a loss is not finite, or a gradient is not and no factor before the loss can be the cause.
        """
        norms = [grad.float().norm() for grad in grads]
        read = torch.stack([*(loss.to(norms[0]) for loss in losses.values()), *norms])
        numbers = read.tolist()
        values = {str(role): value for role, value in zip(losses, numbers, strict=False)}
        finite = all(map(isfinite, numbers[len(losses) :]))
        what = "" if all(map(isfinite, values.values())) else f"loss {values}"
        if not finite and (self.loss_scale.exhausted or not self.loss_scale.active):
            what = what or f"gradient, at loss {values}"
        if what:
            learner = type(step.learner).__name__
            message = f"{self.name} diverged at step {step.index + 1} ({learner}): {what}; a smaller lr may help"
            raise Diverged(message, self.good or self.build_edit())
        return values, finite

    # The checkpoints.

    def _build_record(self) -> dict[str, Any]:
        return describe_run(self.model, self.erasure, self.name, self.arguments, self.context.base, self.origin)

    def _list_checkpointed(self) -> list[Checkpointable]:
        """The parts whose state a checkpoint holds, in the order in which it numbers them."""
        return [*self.learners, *self.terms, *self.list_sources(), self.loss_scale, self.loss_log]

    def save_checkpoint(self, file: Path, done: int) -> None:
        """Writes all that a training needs to go on after `done` steps; only the main process writes."""
        if not find_process_group().is_main:
            return
        parts = enumerate(self._list_checkpointed())
        tensors = {f"{i}/{key}": value for i, part in parts for key, value in part.state_dict().items()}
        write_tensors(file, tensors, {**self._build_record(), "kind": "checkpoint", "done": done})

    def _resume(self, file: Path) -> int:
        """Restores the checkpoint's state; returns the number of steps taken."""
        tensors, meta = read_tensors(file)
        check_same_run(file, meta, {**self._build_record(), "kind": "checkpoint"})
        with refusing(file, "damaged", "remove it to start afresh"):
            for i, part in enumerate(self._list_checkpointed()):
                part.load_state_dict({k.removeprefix(f"{i}/"): v for k, v in tensors.items() if k.startswith(f"{i}/")})
            return read_done(meta, sum(1 for _ in self.schedule()))
