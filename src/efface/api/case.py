"""An edit together with its model, request and suite."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from ..catalog import did_you_mean
from ..suites.make import make_suite
from ..suites.world import World
from .resources import LazyModel, choose_suite, find_world, open_later, save_edit

if TYPE_CHECKING:
    from ..concept import Erasure
    from ..edits.edit import Edit
    from ..models.base import Model
    from ..suites.spec import Suite

T = TypeVar("T")
Words = str | Sequence[str]
"""One word or several."""


def to_tuple(given: T | Iterable[T]) -> tuple[T, ...]:
    """Returns one thing or several as a tuple; a text or a path is one, and its letters or parts are not several.

    >>> to_tuple("cat"), to_tuple(["cat", "dog"])
    (('cat',), ('cat', 'dog'))
    """
    alone = isinstance(given, str | Path) or not isinstance(given, Iterable)
    return (given,) if alone else tuple(given)  # type: ignore[return-value]


@dataclass(frozen=True)
class Case:
    """An edit, or a request that has no edit yet, with the model and world for its evaluation."""

    model: LazyModel
    request: Erasure
    known: World | None
    used: tuple[str, ...] = ()
    """The words in which the fitting searched."""
    saved: Path | None = None
    """The edit's file, if it is fitted."""

    @staticmethod
    def of(model: Model | LazyModel | str | Path, edit: Edit | str | Path, out: Path) -> Case:
        """The case of an edit with its request; raises ValueError where the edit has none."""
        from ..evaluation.evaluate import read_request, read_used_words

        opening = open_later(model)
        found, file = save_edit(edit, out)
        return Case(opening, read_request(found), find_world(opening.name), read_used_words(found), file)

    @staticmethod
    def from_request(model: Model | LazyModel | str | Path, request: Erasure) -> Case:
        """The case of a request that has no edit yet."""
        opening = open_later(model)
        return Case(opening, request, find_world(opening.name))

    @property
    def file(self) -> Path:
        """The edit's file."""
        assert self.saved, "the edit is not fitted yet"
        return self.saved

    def find_suite(
        self,
        name: str,
        per_group: int | None = None,
        groups: Words = (),
        asks: str = "",
        sizes: Mapping[str, int] | None = None,
        fraction: float = 1.0,
    ) -> Suite:
        """The suite of that name for the request; by default the one that suits the model and the request.

        Args:
            name: the suite's name, or a file.
            per_group, groups, asks: as in `evaluate`.
            sizes: the number of pictures by group; only these groups are made, without those that have no rows.
            fraction: the share of each group's pictures that is made, at least one.
        """
        if not name:
            if self.known is None:
                raise ValueError(f"no suite comes with {self.model.name}: name one, or a .csv file of prompts")
            name = choose_suite(self.request, self.known)

        def build(only: Sequence[str], wanted: Mapping[str, int], each: int | None) -> Suite:
            return make_suite(
                name, self.request, self.known, per_group=each, only=only, sizes=wanted, used=self.used, asks=asks
            )

        if sizes:
            sizes = choose_sizes(sizes, build((), {}, 1))
        suite = build(list(sizes) if sizes else to_tuple(groups), sizes or {}, per_group)
        if fraction == 1:
            return suite
        part = cut_sizes(suite, fraction)
        return build(sorted(part), part, None)


def choose_sizes(sizes: Mapping[str, int], probe: Suite) -> dict[str, int]:
    """The sizes of those groups that have rows in a suite of one row of each group.

    Raises:
        ValueError: no suite has a group of this name, or none of the groups has rows here, so that the whole suite
            would be made.
    """
    from ..suites.listed import TITLES
    from ..suites.spec import list_names, read_spec

    own = [group.name for group in probe.spec.groups]
    known = {*own, *TITLES, *(group.name for name in list_names() for group in read_spec(name).groups)}
    found = {group: n for group, n in sizes.items() if probe.select_group(group)}
    if strange := [group for group in sizes if group not in known] or ([] if found else list(sizes)):
        raise ValueError(
            f"suite {probe.spec.name} has no group {strange[0]!r} for {', '.join(probe.targets)}"
            f"{did_you_mean(strange[0], own)}"
        )
    return found


def check_share(fraction: float) -> None:
    """Raises ValueError for what is no share of pictures.

    >>> check_share(0.5)
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction is a share of the pictures, above 0 and at most 1; got {fraction:g}")


def cut_sizes(suite: Suite, fraction: float) -> dict[str, int]:
    """The size of each group that gives a share of its rows, at least one, as a suite's file says sizes.

    Where a group's size is for each of its concepts, the share is taken of each.
    """
    found = {}
    for group in suite.spec.groups:
        if rows := suite.select_group(group.name):
            concepts = len({row.concept for row in rows}) if group.each else 1
            found[group.name] = max(1, round(fraction * len(rows) / concepts))
    return found
