"""An edit, and what it is measured with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..suites.make import make
from ..suites.world import World
from .resources import LazyModel, edit_in, lazy, suite_for, world_of

if TYPE_CHECKING:
    from ..concept import Erasure
    from ..edits.edit import Edit
    from ..models.base import Model
    from ..suites.spec import Suite

Words = str | Sequence[str]
"""One word, or some."""


def several(words: Words) -> tuple[str, ...]:
    """One word, or some of them, as a tuple."""
    return (words,) if isinstance(words, str) else tuple(words)


@dataclass(frozen=True)
class Case:
    """An edit, and what it is measured with."""

    model: LazyModel
    file: Path
    edit: Edit
    request: Erasure
    known: World | None

    @staticmethod
    def of(model: Model | LazyModel | str | Path, edit: Edit | str | Path, out: Path) -> Case:
        """An edit with the request that it answers; ValueError where it does not say which."""
        from ..evaluation.evaluate import read_request

        opening = lazy(model)
        found, file = edit_in(edit, out)
        return Case(opening, file, found, read_request(found), world_of(opening.name))

    def suite(self, name: str, per_group: int | None = None, groups: Words = (), asks: str = "") -> Suite:
        """The suite of that name for what was erased; by default the one that suits the model and the request."""
        from ..evaluation.evaluate import read_used_words

        if not name:
            if self.known is None:
                raise ValueError(f"no suite comes with {self.model.name}: name one, or a .csv file of prompts")
            name = suite_for(self.request, self.known)
        used = read_used_words(self.edit)
        return make(name, self.request, self.known, per_group=per_group, only=several(groups), used=used, asks=asks)
