"""Trial steps: small real passes whose memory is measured, at states of zeros, so that nothing has to be drawn."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import partial
from typing import Any, final

import torch
from torch import Tensor

from ..models.base import Model
from ..models.cond import Cond
from ..training.interfaces import Context, Query, Source, States, Step, Term
from ..training.trainer import Trainer
from .tracker import AllocationTracker

Moments = Sequence[tuple[Any, float]]
"""The operations of a pass that made tensors, each with the bytes alive after it, as in `AllocationTracker.moments`."""


@final
@dataclass(frozen=True)
class LinearFit:
    """Bytes that a pass adds, as a straight line in its rows."""

    fixed: float
    """Bytes that do not depend on the number of rows; a negative fit counts as 0."""
    each: float
    """Bytes for each row."""

    def __call__(self, rows: int) -> int:
        return round(max(0.0, self.fixed) + self.each * rows)

    @staticmethod
    def through(one: float, two: float, rows: int = 1) -> LinearFit:
        """The line through the bytes of a pass of `rows` rows (`one`) and of a pass of twice as many (`two`)."""
        return LinearFit(2 * one - two, (two - one) / rows)


@final
@dataclass(frozen=True)
class PeakFit:
    """Bytes that a pass adds at its peak: the largest of its moments, each of which is a straight line in its rows.

    The peak itself is no straight line. With few rows it may lie where gradients are combined, which does not depend on
    the rows, and with many rows where most activations are held.
    """

    lines: tuple[LinearFit, ...]
    """The lines of those moments that are the largest for some number of rows."""

    def __call__(self, rows: int) -> int:
        return max(line(rows) for line in self.lines)

    @property
    def steepest(self) -> float:
        """Bytes for each row, of the moment that grows most."""
        return max(line.each for line in self.lines)

    @staticmethod
    def from_size(size: float) -> PeakFit:
        """The same number of bytes for any number of rows."""
        return PeakFit((LinearFit(size, 0),))

    @staticmethod
    def through(one: Moments, two: Moments, rows: int = 1) -> PeakFit:
        """The lines through the moments of a pass of `rows` rows (`one`) and of a pass of twice as many (`two`)."""
        paired = {*_pair_moments(one, two), (find_peak(one), find_peak(two))}
        found = sorted((LinearFit.through(*pair, rows) for pair in paired), key=lambda line: (-line.each, -line.fixed))
        lines = found[:1]
        for line in found[1:]:
            if max(0.0, line.fixed) > max(0.0, lines[-1].fixed):  # less steep, and larger for few rows
                lines.append(line)
        return PeakFit(tuple(lines))


def find_peak(moments: Moments) -> float:
    """The most bytes of any moment, and 0 where nothing was made."""
    return max((live for _, live in moments), default=0)


def _pair_moments(one: Moments, two: Moments) -> Iterator[tuple[float, float]]:
    """Pairs the bytes of two passes by their operations, which differ here and there: one row needs fewer copies.

    Where they differ, the largest moment of the part that one pass has is paired with that of the other's part.
    """
    ones, twos = [0, *(live for _, live in one)], [0, *(live for _, live in two)]  # the 0 stands before any operation
    named = [operation for operation, _ in one], [operation for operation, _ in two]
    for kind, i, i_end, j, j_end in SequenceMatcher(None, *named, autojunk=False).get_opcodes():
        if kind == "equal":
            yield from zip(ones[i + 1 : i_end + 1], twos[j + 1 : j_end + 1], strict=True)
        else:  # with the moment before, as one of the parts may be empty
            yield max(ones[i : i_end + 1]), max(twos[j : j_end + 1])


def find_least_rows(trainer: Trainer) -> int:
    """The fewest rows of each term that a step can have."""
    return max((term.least_rows for term in trainer.terms), default=1)


def choose_whole_sizes(trainer: Trainer) -> tuple[int, ...]:
    """The rows of each term in trial steps that run whole: the fewest and twice as many, or all of a smaller run."""
    few, batch = find_least_rows(trainer), trainer.config.batch
    return (few, 2 * few) if 2 * few <= batch else (batch,)


@final
class ZeroStates(Source):
    """States of zeros, with all of the teacher's predictions known; all terms get the same object in a step."""

    def __init__(self) -> None:
        self.last: tuple[Step, tuple[str, ...], States] | None = None

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        asked = tuple(prompts)
        if self.last is None or self.last[0] is not step or self.last[1] != asked:
            x = torch.zeros(
                len(asked), *context.model.latent_shape, device=context.model.device, dtype=context.model.state_dtype
            )
            known = {name: torch.zeros_like(x) for name in ("eps_c", "eps_0", "noise")}
            middle = len(context.model.levels) // 2
            self.last = (step, asked, States(x, torch.full((len(asked),), middle), known))
        return self.last[2]


@contextmanager
def replace_sources(terms: Sequence[Term]) -> Iterator[None]:
    """Lets the terms read zeros, so that nothing is drawn; a source that two terms share stays shared."""
    before = [(term, term.list_sources()) for term in terms]
    zeros = {id(source): ZeroStates() for _, own in before for source in own.values()}
    try:
        for term, own in before:
            for name, source in own.items():
                setattr(term, name, zeros[id(source)])
        yield
    finally:
        for term, own in before:
            for name, source in own.items():
                setattr(term, name, source)


@dataclass(frozen=True)
class RowwiseCost:
    """The memory of steps whose rows the student reads one by one."""

    terms: int
    """Number of rows of each term in the smaller step; the larger step has twice as many."""
    each: int
    """Number of rows in the student's largest pass for one row of each term."""
    step_peak: float
    """Bytes that a step of one row adds."""
    waiting: float
    """Bytes of each further row while it waits."""
    moments: Moments
    """The moments of the smaller step."""


def measure_rowwise(trainer: Trainer) -> RowwiseCost:
    """Makes two steps whose rows the student reads one by one, of one or two rows of each term and of twice as many."""
    n = min(2, trainer.config.batch)
    (moments, rows), (twice, _) = measure_step(trainer, n, 1), measure_step(trainer, 2 * n, 1)
    few, many, each = find_peak(moments), find_peak(twice), max(1, rows // n)
    waiting = max(0, many - few) / (n * each)
    return RowwiseCost(n, each, few - waiting * (n * each - 1), waiting, moments)


def measure_step(trainer: Trainer, n: int, micro: int = 0) -> tuple[Moments, int]:
    """The moments of a step of the weights with n rows of each term, and the rows in the student's largest pass."""
    small = trainer.resize(n, micro)
    with replace_sources(trainer.terms):
        rows = count_student_rows(small, small.collect_queries(small.make_auxiliary_step(0, stream=1)))
        with AllocationTracker(list_tensors(trainer)) as tracker:
            trainer.balance(
                partial(small.compute_gradient, small.make_auxiliary_step(0, stream=1)),
                0.0 if trainer.balance.inner else None,
            )
    return tracker.moments, rows


def measure_drawing(model: Model, n: int) -> Moments:
    """The moments of one guided sampling step of n pictures."""
    uncond = model.encode([""])
    x = torch.zeros(n, *model.latent_shape, device=model.device, dtype=model.state_dtype)
    with torch.no_grad(), AllocationTracker(model.weights.values()) as tracker:
        model.predict(x, 1, uncond.expand(n), uncond.expand(n))
    return tracker.moments


Asked = Sequence[tuple[Term, Mapping[str, Query]]]
"""Each term with its queries in a step, as `Trainer.collect_queries` returns them."""


def count_student_rows(trainer: Trainer, asked: Asked) -> int:
    """Number of rows in the student's largest pass of a step; a query that several terms share counts once."""
    each = [
        [query for term, some in asked for query in some.values() if term.role in roles]
        for roles in trainer.balance.passes
    ]
    once = [{(id(query.states), id(query.cond)): query for query in some if query.role == "student"} for some in each]
    return max(sum(len(query.states.x) for query in queries.values()) for queries in once)


def list_tensors(trainer: Trainer) -> list[Tensor]:
    """The model's weights and the trained tensors, both in the network's own dtype and as fp32 masters."""
    beside = (tensor for learner in trainer.learners for tensor in (*learner.list_params(), *learner.list_optimised()))
    return [*trainer.model.weights.values(), *beside]
