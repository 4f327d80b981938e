"""Measures the memory of a step from the shapes of its tensors alone: nothing is computed, and no memory is used.

The same losses and gradients as in training run with PyTorch's fake tensors, which have a shape, a dtype and a device
but no numbers; the tracker counts the bytes that their storages would have. This is used where trial steps would take
longer than a tenth of the run that they plan. An operation that needs numbers raises RuntimeError.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, final

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from ..models.base import Model
from ..models.cond import Cond
from ..training.interfaces import Context, Query, Step, Term
from ..training.loss_scale import compute_gradients
from ..training.trainer import Trainer
from .probe_steps import (
    Asked,
    Moments,
    PeakFit,
    choose_whole_sizes,
    count_student_rows,
    find_least_rows,
    find_peak,
    list_tensors,
    replace_sources,
)
from .tracker import AllocationTracker, count_bytes

SHARE = 0.1
"""The largest cost of trial steps, as a share of the run that they plan."""


@final
class Replayed(Term):
    """A term with known queries, so that its loss can be computed again without new queries."""

    def __init__(self, term: Term, queries: Mapping[str, Query]) -> None:
        self.term, self.given, self.role = term, queries, term.role

    def build_queries(self, context: Context, step: Step) -> Mapping[str, Query] | None:
        return self.given

    @property
    def least_rows(self) -> int:
        return self.term.least_rows

    def compute_loss(self, context: Context, queries: Mapping[str, Query], predictions: Mapping[str, Tensor]) -> Tensor:
        return self.term.compute_loss(context, queries, predictions)


@final
@dataclass(frozen=True)
class ShapeCost:
    """Bytes that a step and drawing add, measured from shapes."""

    each: int
    """Number of rows in the student's largest pass for one row of each term."""
    step_peak: PeakFit
    """Bytes that a step adds, by the number of rows at once in the student's pass."""
    waiting: float
    """Bytes of each further row while it waits."""
    apart: int
    """Further bytes where rows are read piece by piece: the gradients of two pieces, which are summed."""
    drawing: PeakFit
    """Bytes that a sampling step adds, by the number of pictures."""


def is_trial_cheap(trainer: Trainer) -> bool:
    """Whether the trial steps cost at most `SHARE` of the run's steps, both counted in forward passes of one row.

    A row of the student counts 3, or 4 if its activations are recomputed; a row of the teacher or of drawing counts 1.
    The run's own drawing is left out, so that its cost is not overestimated.
    """
    config, (_, _, asked) = trainer.config, ask_terms(trainer, 1)
    student, each = _count_rows(asked, "student"), max(1, count_student_rows(trainer, asked))
    teacher, n = _count_rows(asked, "teacher"), min(2, config.batch)
    rows = each * config.batch
    micro = min(rows, config.micro_batch or rows)
    by_pieces = 3 * n + (2 * n if 1 < micro < rows else 0)
    whole = sum(choose_whole_sizes(trainer)) if micro == rows else 0
    trial = by_pieces * (4 * student + teacher) + whole * (3 * student + teacher) + 6
    return trial <= SHARE * config.steps * config.batch * (3 * student + teacher)


def measure_shapes(trainer: Trainer, progress: Callable[[int, int], None], drawing: PeakFit | None = None) -> ShapeCost:
    """Measures the run's steps and its drawing without a pass of the network.

    Args:
        progress: called as progress(done, of) before each part and at the end.
        drawing: what `fit_drawing` found of the model, which is measured here if it is missing.

    Raises:
        RuntimeError: a term, a network or a kernel needs numbers where there are shapes alone.
    """
    progress(0, 3)
    n = find_least_rows(trainer)
    few, rows = measure_step_shapes(trainer, n)
    each = max(1, rows // n)
    progress(1, 3)
    alone = each * trainer.config.batch == 1
    more = few if alone else measure_step_shapes(trainer, 2 * n)[0]
    step_peak = PeakFit.from_size(find_peak(few)) if alone else PeakFit.through(few, more, n * each)
    progress(2, 3)
    drawing = drawing or fit_drawing(trainer.model)
    progress(3, 3)
    _, _, asked = ask_terms(trainer, 1)
    hardened = any(query.prefix is not None for _, queries in asked for query in queries.values())
    # An attack reads all rows at once.
    waiting = step_peak.steepest if hardened else _count_waiting(trainer, asked) / each
    return ShapeCost(each, step_peak, waiting, count_bytes(trainer.update.list_params()), drawing)


def measure_step_shapes(trainer: Trainer, n: int, micro: int = 0) -> tuple[Moments, int]:
    """The moments of a step of the weights with n rows of each term, and the rows in the student's largest pass."""
    small, step, asked = ask_terms(trainer, n, micro)
    small.terms = [Replayed(term, queries) for term, queries in asked]
    held = []
    with shapes_alone(trainer.model, list_tensors(trainer)) as tracker:
        for roles in trainer.balance.passes:
            with small.compute_losses(step, *roles) as losses:
                if losses:
                    total = torch.stack(list(losses.values())).sum()
                    held.append(compute_gradients(step.learner.list_params(), total))  # type: ignore[attr-defined]
    states = count_bytes(_list_states(asked))
    return [(made, live + states) for made, live in tracker.moments], count_student_rows(trainer, asked)


def fit_drawing(model: Model) -> PeakFit:
    """Bytes that a sampling step adds, by the number of pictures: one for all trainings of a model."""
    return PeakFit.through(measure_drawing_shapes(model, 1), measure_drawing_shapes(model, 2))


def measure_drawing_shapes(model: Model, n: int) -> Moments:
    """The moments of one guided sampling step of n pictures."""
    uncond = model.encode([""])
    with torch.no_grad(), shapes_alone(model, list(model.weights.values())) as tracker:
        x = torch.zeros(n, *model.latent_shape, device=model.device, dtype=model.state_dtype)
        model.predict(x, 1, uncond.expand(n), uncond.expand(n))
    return tracker.moments


def ask_terms(trainer: Trainer, n: int, micro: int = 0) -> tuple[Trainer, Step, Asked]:
    """A copy of the training with n rows of each term, a step, and the terms' queries in it, without the network."""
    small = trainer.resize(n, micro)
    model = copy.copy(trainer.model)
    setattr(model, "predict", _predict_nothing)  # noqa: B010  (a term may attack the network before its queries)
    asking = copy.copy(small)
    asking.context = replace(small.context, model=model)
    with replace_sources(trainer.terms):
        step = small.make_auxiliary_step(0, stream=1)
        asked = asking.collect_queries(step)
    return small, step, asked


@contextmanager
def shapes_alone(model: Model, known: list[Tensor]) -> Iterator[AllocationTracker]:
    """Gives tensors shapes without numbers inside the block and counts all but the `known`; nothing runs compiled."""
    given = [tensor.fake_mode for tensor in known if isinstance(tensor, FakeTensor)]  # a model that has shapes alone
    mode = given[0] if given else FakeTensorMode(allow_non_fake_inputs=True)
    tracker = AllocationTracker([t if isinstance(t, FakeTensor) else mode.from_tensor(t) for t in known])
    steady, model.steady = model.steady, None
    try:
        with warnings.catch_warnings(), torch.compiler.set_stance("force_eager"), mode, tracker:
            warnings.filterwarnings("ignore", message="The .grad attribute of a Tensor that is not a leaf")
            yield tracker
    finally:
        model.steady = steady


def _predict_nothing(x: Tensor, t: Any, *conds: Cond) -> tuple[Tensor, ...]:
    """Replaces `Model.predict` by zeros of its shape that have a gradient to the conditions."""
    return tuple(
        torch.zeros_like(x) + torch.stack([part.float().abs().mean() for part in cond.tensors.values()]).sum().to(x)
        for cond in conds
    )


def _count_rows(asked: Asked, role: str) -> int:
    """Number of rows that the student or the teacher predicts, without those whose prediction is known."""
    queries = {
        (id(query.states), id(query.cond)): query for _, some in asked for query in some.values() if query.role == role
    }
    return sum(len(query.states.x) for query in queries.values() if query.known not in query.states.known)


def _list_states(asked: Asked) -> list[Tensor]:
    """The states and conditions of the queries."""
    queries = [query for _, some in asked for query in some.values()]
    return [
        tensor
        for query in queries
        for tensor in (query.states.x, query.states.t, *query.states.known.values(), *query.cond.tensors.values())
    ]


def _count_waiting(trainer: Trainer, asked: Asked) -> float:
    """Bytes of one row of each term while it waits: its states, and the inputs and outputs of the pass."""
    students = [query for _, some in asked for query in some.values() if query.role == "student"]
    passed = [tensor for query in students for tensor in (query.states.x, *query.cond.tensors.values())]
    predictions = [query.states.x for query in students]
    return count_bytes(_list_states(asked)) + count_bytes(passed) + 3 * count_bytes(predictions)
