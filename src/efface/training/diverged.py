"""The error of a training whose numbers are no longer finite."""

from __future__ import annotations

from ..edits.edit import Edit


class Diverged(ArithmeticError):
    """A loss or gradient is no longer finite, perhaps because of the step before.

    `edit` is the last saved state whose losses and gradients were finite.
    """

    def __init__(self, message: str, edit: Edit) -> None:
        ArithmeticError.__init__(self, message)
        self.edit = edit
