"""Finds methods, attacks, scorers, suites, guides, and the parts of a training's axes by name.

Nothing is registered by hand. An entry is a file in the folder of its kind that defines a final class of that kind; its
name is that of the file, with hyphens for underscores, and both spellings are understood. An installed package adds
more through entry points, in its pyproject.toml:

    [project.entry-points."efface.methods"]
    halfway = "mypackage.halfway:Halfway"
    [project.entry-points."efface.suites"]
    my-suite = "mypackage"                      # mypackage/my-suite.toml

Names and descriptions are read from source files, so that neither torch nor the described modules are imported.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import importlib
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, final, get_type_hints

from . import source
from .concept import fits
from .source import PACKAGE, SourceClass

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


def did_you_mean(given: str, known: Sequence[str], show: int = 12) -> str:
    """The end of an error message: the closest known names, or the first `show` of them."""
    if close := find_closest(str(given), known):
        return "; did you mean " + " or ".join(repr(c) for c in close) + "?"
    more = f" … ({len(known)} in all)" if len(known) > show else ""
    return f"; there are {', '.join(known[:show])}{more}" if known else ""


def find_closest(given: str, known: Iterable[str]) -> list[str]:
    """At most three of the known names with a spelling similar to the given one, the most similar first."""
    return difflib.get_close_matches(given, list(known), n=3, cutoff=0.6)


def hyphenate(name: str) -> str:
    """The catalogue's spelling of a name: with hyphens for underscores."""
    return name.replace("_", "-")


def find_table_entry(name: str, table: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The entry of a name in a table, with either spelling; lists become tuples."""
    given = next((values for key, values in table.items() if hyphenate(key) == hyphenate(name)), {})
    return {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}


@final
@dataclass(frozen=True)
class Entry:
    """An entry of the catalogue: its source file, and how its class is imported."""

    name: str
    module: str
    """The dotted name of its module."""
    file: Path
    cls: str
    """The name of its class; "" for an entry that is only a file."""
    package: str = ""
    """The installed package that adds it; "" for efface's own entries."""

    @property
    def about(self) -> str:
        """The first line of the file's docstring."""
        return source.read_summary(self.file)

    @property
    def written(self) -> SourceClass:
        """The class in its source; raises ValueError where the file does not define it."""
        classes = {each.name: each for each in source.list_classes(self.file, self.module)}
        if self.cls not in classes:
            near = did_you_mean(self.cls, list(classes))
            raise ValueError(f"{self.file} defines no class {self.cls!r}, which {self.package or 'efface'} names{near}")
        return classes[self.cls]

    def load(self) -> Any:
        """Imports the module and returns the class."""
        return getattr(importlib.import_module(self.module), self.cls)


@final
@dataclass(frozen=True)
class Registry:
    """All entries of one kind, by name."""

    kind: str
    """The word for one of them in messages."""
    package: str
    """The package of efface whose files are entries; also the group of entry points that adds to them."""
    base: str
    """The name of the base class of all of them."""
    trait: str = ""
    """A class variable that also marks them, where the base is a protocol that need not be a base class."""
    suffix: str = ".py"

    def list_entries(self) -> dict[str, Entry]:
        """Every entry by name: those of efface's folders and those of installed packages that are not broken."""
        return self._survey()[0]

    def list_broken(self) -> dict[str, str]:
        """What is wrong with each entry of an installed package that can't be used, by name; nothing is imported."""
        return self._survey()[1]

    def _survey(self) -> tuple[dict[str, Entry], dict[str, str]]:
        """The entries that can be used, and what is wrong with the others."""
        module = sys.modules.get(self.package)
        folders = list(module.__path__) if module else [str(PACKAGE.joinpath(*self.package.split(".")[1:]))]
        found = dict(_search_folders(self, tuple((folder, os.stat(folder).st_mtime_ns) for folder in folders)))
        broken: dict[str, str] = {}
        for point in _list_entry_points(self.package, tuple(sys.path)):
            name = hyphenate(point.name)
            try:
                if name in found:
                    raise ValueError(
                        f"{_name_package(point)} brings the {self.kind} {name!r}, a name that is taken already"
                    )
                found[name] = self._build_installed_entry(name, point)
            except (ValueError, OSError) as error:
                broken[name] = str(error)
        return found, broken

    def list_names(self) -> list[str]:
        """Every name, in alphabetical order."""
        return sorted(self.list_entries())

    def holds(self, name: str) -> bool:
        """Whether there is an entry of this name, in either spelling, whole or broken."""
        return any(hyphenate(name) in entries for entries in self._survey())

    def find_name(self, name: str) -> str:
        """The catalogue's own spelling of a name; raises ValueError for an unknown name."""
        return self.find_entry(name).name

    def find_entry(self, name: str) -> Entry:
        """The entry of a name, in either spelling.

        Raises:
            ValueError: the name is unknown, which the message answers with similar names; or its entry is broken.
        """
        entries, broken = self._survey()
        if (spelled := hyphenate(str(name))) in entries:
            return entries[spelled]
        if spelled in broken:
            raise ValueError(broken[spelled])
        near = did_you_mean(spelled, sorted(entries), show=len(entries))
        listed = f" `efface list {self.package.rpartition('.')[2]}` lists all" if "mean" in near and self.listed else ""
        raise ValueError(f"there is no {self.kind} {name!r}{near}{listed}")

    @property
    def listed(self) -> bool:
        """Whether `efface list` lists this kind."""
        return self.package.count(".") == 1

    def describe(self, name: str) -> str:
        """The first line of the entry's docstring."""
        return self.find_entry(name).about

    def get(self, name: str) -> type[Any]:
        """Imports the module that defines an entry, and returns the class.

        Raises:
            ValueError: the class of an installed package can't be imported, or lacks something; the message says what.
        """
        entry = self.find_entry(name)
        if not entry.package:
            return entry.load()
        where = f"class {entry.written.name} in {entry.file}"
        try:
            cls = entry.load()
        except Exception as error:
            brings = f"{entry.package} brings the {self.kind} {entry.name!r}, and {entry.file} can't be imported"
            raise ValueError(f"{brings}: {type(error).__name__}: {error}") from error
        _require_whole(cls, where, defaults=not self.trait)
        return cls

    def get_name(self, instance: Any) -> str:
        """The catalogue's name for an instance or a class, or else the name of its file."""
        kind = instance if isinstance(instance, type) else type(instance)
        for entry in self.list_entries().values():
            if (entry.module, entry.cls) == (kind.__module__, kind.__name__):
                return entry.name
        return hyphenate(kind.__module__.rpartition(".")[2])

    def find_member(self, file: Path, module: str) -> SourceClass | None:
        """The class that makes a file an entry: final, public, and of this kind; None where there is no such class.

        Where a file defines several, it is the one with the file's name.
        """
        of_kind = [each for each in source.list_classes(file, module) if each.final and self._is_one(each)]
        public = [each for each in of_kind if not each.name.startswith("_")]
        named = [each for each in public if each.name.casefold() == file.stem.replace("_", "")]
        return next(iter(named or public), None)

    def _is_one(self, own: SourceClass) -> bool:
        if self.trait and self.trait in source.list_fields(own.node):
            return True
        return any(each.name == self.base for each in source.walk_lineage(own) if each is not own)

    def _build_installed_entry(self, name: str, point: EntryPoint) -> Entry:
        place = source.locate(point.module)
        if place is None:
            raise ValueError(
                f"{_name_package(point)} brings the {self.kind} {name!r} and has no module {point.module!r} (each "
                "folder needs an __init__.py); mend the entry point in its pyproject.toml and install it again, or "
                "uninstall it"
            )
        if self.suffix == ".py" and not point.attr:
            raise ValueError(
                f"{_name_package(point)} brings the {self.kind} {name!r} by a module without a class; write "
                f'"{point.value}:CLASS" in the entry point and install the package again'
            )
        file = place[0] if self.suffix == ".py" else place[0].with_name(f"{point.name}{self.suffix}")
        if not file.is_file():
            raise ValueError(f"{_name_package(point)} brings the {self.kind} {name!r} and no file {file}")
        entry = Entry(name, point.module, file, point.attr, _name_package(point))
        if self.suffix == ".py":
            _ = entry.written  # raises where the file holds no such class
        return entry


@functools.cache
def _search_folders(registry: Registry, folders: tuple[tuple[str, int], ...]) -> dict[str, Entry]:
    """The entries of these folders at these times of modification, cached, so that they are searched only once."""
    found = {}
    for file in (file for folder, _ in folders for file in sorted(Path(folder).glob(f"*{registry.suffix}"))):
        module, name = f"{registry.package}.{file.stem}", hyphenate(file.stem)
        if registry.suffix != ".py":
            found[name] = Entry(name, registry.package, file, "")
        elif not file.stem.startswith("_") and (own := registry.find_member(file, module)):
            found[name] = Entry(name, module, file, own.name)
    return found


@functools.cache
def _list_entry_points(group: str, _path: tuple[str, ...]) -> list[EntryPoint]:
    """The entry points of the packages on this path, in alphabetical order; one that is found twice counts once."""
    from importlib.metadata import entry_points  # not above: it is a tenth of the time that `import efface` takes

    points = {(p.name, p.value, _name_package(p)): p for p in entry_points(group=group)}
    return [points[key] for key in sorted(points)]


def _require_whole(cls: type[Any], where: str, defaults: bool) -> None:
    """Raises ValueError where the class of an installed package is no dataclass, or lacks a method or a default.

    Args:
        cls: the class.
        where: the words for it in messages.
        defaults: whether every setting needs a default; a scorer's network need not have one.
    """
    if "__dataclass_fields__" not in vars(cls):
        raise ValueError(f"{where} is no dataclass; write @dataclass(frozen=True, kw_only=True) above it")
    if missing := sorted(getattr(cls, "__abstractmethods__", ())):
        raise ValueError(f"{where} does not define {', '.join(missing)}")
    try:
        hints = get_type_hints(cls)
    except NameError:  # a type that is imported for type checkers alone
        return
    for field in dataclasses.fields(cls):
        if defaults and field.default is dataclasses.MISSING:
            raise ValueError(f"{where}: the setting {field.name} needs a default, and a tuple where it is a list")
        if field.default is not dataclasses.MISSING and not fits(field.default, hints[field.name]):
            kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", field.type)
            raise ValueError(
                f"{where}: the setting {field.name} is of type {kind}, and its default is {field.default!r}"
            )


def _name_package(point: EntryPoint) -> str:
    """The name of the installed package of an entry point."""
    return point.dist.name if point.dist else "an installed package"


METHODS = Registry("method", "efface.methods", "Method")
ATTACKS = Registry("attack", "efface.attacks", "Attack")
SCORERS = Registry("scorer", "efface.scorers", "Scorer", trait="version")
SUITES = Registry("suite", "efface.suites", "", suffix=".toml")
GUIDERS = Registry("guide", "efface.guidance", "Guider")
OBJECTIVES = Registry("objective", "efface.training.objectives", "Term")
PRESERVATIONS = Registry("preservation", "efface.training.preservation", "Term")
BALANCES = Registry("balance", "efface.training.balance", "Balance")
UPDATES = Registry("update", "efface.training.updates", "Update")
REGISTRIES = (METHODS, ATTACKS, SCORERS, SUITES, GUIDERS, OBJECTIVES, PRESERVATIONS, BALANCES, UPDATES)
