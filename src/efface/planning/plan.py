"""The plan of a run's memory: bytes by part, as text, and whether they fit.

need = weights + trained + kept + max(step(m), drawing(d)), in bytes on the device. `weights` are all parameters of the
model; `trained` are the trained tensors and Adam's two moments of each; `step(m)` is what one step adds with m rows at
once in the student's pass; `drawing(d)` is what a sampling step of d pictures adds; `kept`, on a CPU alone, are the
last good state and the recordings that the store holds in memory. `SPARE` allows for memory inside kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import final

from ..plurals import write_count
from .machine import format_size
from .probe_steps import PeakFit

SPARE = 1.1
"""The factor by which free memory must exceed the plan, for workspaces, fragmentation and the libraries' own memory."""
SHAPES = "(from the shapes of tensors: trial steps would cost more than a tenth of this run)"


class DoesNotFit(ValueError):
    """A run needs more memory than there is; the message has the plan and the flags that would make it fit."""


@final
@dataclass(frozen=True)
class Plan:
    """The bytes and rows of a run."""

    weights: int
    """Bytes of the model's parameters on the device."""
    resting: int
    """The part of `weights` that `--offload` would move away: text encoders and autoencoder."""
    trained: int
    """Bytes of the trained tensors, with Adam's moments."""
    kept: int
    """Bytes that stay on the device: a search's embeddings of words, and on a CPU the last good state, pictures, and
    recordings in memory."""
    step_peak: PeakFit
    """Bytes that a step adds, by the number of rows at once in the student's pass."""
    drawing: PeakFit
    """Bytes that drawing adds, by the number of pictures at once."""
    rows: int
    """Number of rows in the student's pass, in a step of the weights."""
    micro: int
    """Number of these rows that the student reads at once."""
    waiting: float
    """Bytes of each of the other rows meanwhile."""
    apart: int
    """Further bytes where rows are read one by one: the gradients of two pieces, which are summed."""
    pictures: int
    """Number of pictures that are drawn together."""
    trace_bytes: int
    """Bytes that are recorded while these are drawn, without those that are in `kept`."""
    recorded: int
    """Bytes of recordings, in the host's memory or on disk."""
    drawn: int = 0
    """Number of trajectories and pictures that are drawn before training on them; those drawn again count once."""
    notes: tuple[str, ...] = ()
    """Further lines for the user, such as how many words are searched."""
    from_shapes: bool = False
    """Whether step and drawing were estimated from shapes, without a trial step."""

    @property
    def need(self) -> int:
        """Bytes on the device at the worst moment."""
        return self.weights + self.trained + self.kept + max(self.learning, self.sampling)

    @property
    def learning(self) -> int:
        """Bytes that a step of the weights adds."""
        pieces = self.apart if self.micro < self.rows else 0
        return self.step_peak(self.micro) + pieces + round(self.waiting * (self.rows - self.micro))

    @property
    def sampling(self) -> int:
        """Bytes that drawing adds."""
        return self.drawing(self.pictures) + self.trace_bytes if self.pictures else 0

    def format_table(self) -> str:
        """Writes the plan as text, a line for each part."""
        lines = [
            ("weights of the model", self.weights),
            ("trained tensors, and Adam's moments", self.trained),
            ("the last good state, and recordings held", self.kept),
            (f"a step, {self.micro} of {write_count(self.rows, 'row')} at once", self.learning),
            (f"or drawing {self.pictures} at once", self.sampling),
            ("at most, on the device", self.need),
            ("recordings, in memory or on disk", self.recorded),
        ]
        rows = [f"  {name:<40} {format_size(n):>9}" for name, n in lines if n]
        rows += [f"  {'trajectories and pictures drawn first':<40} {self.drawn:>6,}"] if self.drawn else []
        return "\n".join([*rows, *(f"  {note}" for note in (*self.notes, *[SHAPES] * self.from_shapes))])


def require_fit(plan: Plan, limit: int | None, others: Callable[[], Mapping[str, Plan]]) -> None:
    """Raises DoesNotFit where `limit` bytes are too few; the message has this plan and the flags that would fit.

    Args:
        plan: the run's plan.
        limit: number of bytes that the run may take; None accepts any plan.
        others: gives further plans by their flags; it is called only where this plan does not fit.
    """
    if limit is None or plan.need * SPARE <= limit:
        return
    found = others()
    fits = [f"{flags} ({format_size(other.need)})" for flags, other in found.items() if other.need * SPARE <= limit]
    least = min((plan, *found.values()), key=lambda p: p.need)
    would = (
        f"it would fit with {' or with '.join(fits)}" if fits else f"the least by flags is {format_size(least.need)}"
    )
    raise DoesNotFit(
        f"this run needs {format_size(plan.need)} and some to spare, {format_size(round(plan.need * SPARE))} in all; "
        f"there are {format_size(limit)}\n{plan.format_table()}\n{would}"
    )
