"""`efface list`: the methods, attacks, scorers, suites, protocols and models, read from files without importing
torch."""

from __future__ import annotations

import ast
import dataclasses
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import tyro

from ..catalog import ATTACKS, METHODS, SCORERS, SUITES, Registry
from ..files import read_toml
from ..methods.capabilities import describe_needs
from ..models.architectures import ARCHITECTURES, GROUPS
from ..source import is_trait, list_fields, read_traits, walk_lineage
from .console import print_result

PACKAGE = Path(__file__).parent.parent
OTHERS = {
    "FOLDER or HUB-ID": "a pipeline of diffusers: Stable Diffusion 1.x, 2.x, XL, 3 or 3.5, PixArt, FLUX.1, FLUX.2, "
    "SANA, Z-Image or Qwen-Image",
    "FOLDER with classes.json": "a class-conditional DDPMPipeline of diffusers; classes.json names its classes",
    "FILE.safetensors@FOLDER": "a single file in the original layout of Stable Diffusion 1.x, 2.x or XL, with the "
    "configuration and tokenizer of a diffusers folder, name or hub id",
    "FILE.safetensors": "the same, with those of the hub or its cache",
}
"""What a model may be beside the bundled ones."""
COLUMNS = ("name", "kind", "architectures", "anchor", "keep", "images", "several", "about")
TITLES = {"architectures": "serves"}
"""Titles of columns, where these are not their names."""
WIDTH = 80
"""Columns of a terminal."""
ADVICE = """Which to take: esd or eap for most concepts (eap also keeps what lies near);
surgical to put a near concept in the target's place; uce in seconds, without
training; sld or negative where weights must stay; hardened or p-esd against
attacks, which keep less of what lies near. What each does on the embedded
model: docs/methods.md, and under attack docs/results/beat.md.
Under serves, all is every architecture, and flow is
{flow}.
What each cell needs: docs/models.md.""".format(flow=", ".join(GROUPS["flow"]))


@dataclass(frozen=True)
class List:
    """List the available methods, attacks, scorers, suites, protocols or models, or which method serves which
    architecture."""

    example: ClassVar[str] = "efface list methods"
    what: tyro.conf.Positional[
        Literal["methods", "architectures", "attacks", "scorers", "suites", "protocols", "models"]
    ]
    """Which of them; "architectures" is the table of methods and architectures, in Markdown."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        if self.what == "architectures":
            rows = list_served()
            return print_result(rows, self.json, tabulate(rows))
        makers = {"methods": list_methods, "attacks": list_attacks, "scorers": list_scorers, "suites": list_suites}
        rows = {**makers, "protocols": list_protocols, "models": list_models}[self.what]()
        columns = {"methods": COLUMNS, "attacks": ("name", "threat", "about")}.get(self.what, ("name", "about"))
        advice = f"\n\n{ADVICE}" if self.what == "methods" else ""
        whole, broken = ([row for row in rows if ("broken" in row) == each] for each in (False, True))
        told = "".join(f"\n\nbroken: {row['name']}\n    {row['broken']}" for row in broken)
        print_result(rows, self.json, f"{_format_table(whole, columns)}{told}{advice}")


def describe_each(registry: Registry, describe: Callable[[str], dict[str, Any]]) -> list[dict[str, Any]]:
    """Describes every entry, and lists those of other packages that can't be used, with what is wrong with them."""
    rows, broken = [], registry.list_broken()
    for name, entry in sorted(registry.list_entries().items()):
        try:
            rows.append(describe(name))
        except ValueError as error:
            if not entry.package:
                raise
            broken[name] = str(error)
    return [*rows, *({"name": name, "broken": said} for name, said in broken.items())]


def list_methods() -> list[dict[str, Any]]:
    """Lists every method with its capabilities."""
    from ..methods import describe, find_capabilities

    return describe_each(
        METHODS, lambda name: {"name": name, "about": describe(name), **dataclasses.asdict(find_capabilities(name))}
    )


def list_served() -> list[dict[str, str]]:
    """Lists every method with what it needs of each architecture."""
    from ..methods import find_capabilities

    rows = describe_each(METHODS, lambda name: {"name": name, **describe_needs(find_capabilities(name))})
    return [row for row in rows if "broken" not in row]


def tabulate(rows: Sequence[Mapping[str, str]]) -> str:
    """Writes rows as a table of Markdown, whose columns are their keys."""
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def list_attacks() -> list[dict[str, Any]]:
    """Lists every attack with what an attacker must have for it."""
    from ..attacks import describe

    return describe_each(ATTACKS, describe)


def list_scorers() -> list[dict[str, Any]]:
    """Lists every scorer with the words that `--scorer` takes."""
    return describe_each(SCORERS, _describe_scorer)


def list_suites() -> list[dict[str, Any]]:
    from ..suites.spec import describe_one

    return describe_each(SUITES, describe_one)


def list_protocols() -> list[dict[str, str]]:
    """Reads the published protocols from their file."""
    declared = read_toml(PACKAGE / "evaluation" / "protocols.toml")
    told = ("version", "about", "source", "differs")
    return [{"name": name, **{key: declared[name][key] for key in told}} for name in sorted(declared)]


def list_models() -> list[dict[str, str]]:
    from ..models.loading import list_bundled

    found = [{"name": n, "about": "bundled; needs no network"} for n in list_bundled()]
    return [*found, *({"name": name, "about": about} for name, about in OTHERS.items())]


def _format_table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Writes one row below the other, none wider than a terminal, each with its wrapped description below it.

    A line of titles precedes rows that have more than a name and a description.
    """
    short = [column for column in columns if column != "about"]
    lines = [[_format_cell(row[column]) for column in short] for row in rows]
    titles = [[TITLES.get(column, column) for column in short]] if len(short) > 1 else []
    widths = [max(len(cell) for cell in column) for column in zip(*titles, *lines, strict=True)]
    padded = ["  ".join(f"{c:<{w}}" for c, w in zip(line, widths, strict=True)).rstrip() for line in [*titles, *lines]]
    told = padded[: len(titles)]
    for line, row in zip(padded[len(titles) :], rows, strict=True):
        told += [line, *textwrap.wrap(str(row["about"]), WIDTH - 4, initial_indent="    ", subsequent_indent="    ")]
    return "\n".join(told)


def _format_cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple) and value and {*value} <= {*ARCHITECTURES}:
        return _format_served(value)
    return " ".join(value) if isinstance(value, tuple) else str(value).removeprefix("by ").removesuffix(" time")


def _format_served(names: Sequence[str]) -> str:
    """Names the architectures briefly: "all", "all but" one, a whole group by its name, the others by theirs."""
    others = [name for name in ARCHITECTURES if name not in names]
    if len(others) < 2:
        return " but ".join(["all", *others])
    groups = [group for group, members in GROUPS.items() if {*members} <= {*names}]
    held = {member for group in groups for member in GROUPS[group]}
    return " ".join([*(name for name in names if name not in held), *groups])


def _describe_scorer(name: str) -> dict[str, str]:
    """Reads the name, version, settings and purpose of a scorer from its source."""
    entry = SCORERS.find_entry(name)
    own = entry.written
    lines: dict[str, ast.AnnAssign] = {}
    for each in walk_lineage(own):
        lines = list_fields(each.node) | lines
    settings = [each for each, line in lines.items() if not is_trait(line) and each != "palette"]
    words = f"{name}:FOLDER_OR_HUB_ID" if "folder" in settings else name
    rest = "".join(f"[,{each}=…]" for each in settings if each != "folder")
    return {
        "name": name,
        "version": str(read_traits(own).get("version", "")),
        "words": words + rest,
        "about": entry.about,
    }
