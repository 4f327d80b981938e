"""`efface completion`: scripts by which a shell completes commands, flags and names."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import tyro

from ..catalog import ATTACKS, METHODS, SCORERS
from ..source import is_trait, list_fields, walk_lineage

BASH = """_efface() {
  local word="${COMP_WORDS[COMP_CWORD]}"
  COMPREPLY=($(compgen -W "$(efface completion words -- "${COMP_WORDS[@]:1:COMP_CWORD-1}" 2>/dev/null)" -- "$word"))
  [ ${#COMPREPLY[@]} -gt 0 ] || COMPREPLY=($(compgen -f -- "$word"))
}
complete -o filenames -F _efface efface
"""
ZSH = f"autoload -U +X bashcompinit && bashcompinit\n{BASH}"
FISH = """complete -c efface -f -a '(efface completion words -- (commandline -opc)[2..-1] 2>/dev/null)'
complete -c efface -F -n 'test (count (efface completion words -- (commandline -opc)[2..-1] 2>/dev/null)) -eq 0'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


@dataclass(frozen=True)
class Completion:
    """Print the script by which a shell completes commands, flags and names.

    For bash, write eval "$(efface completion bash)" into ~/.bashrc; for zsh, the same with zsh into ~/.zshrc; for fish,
    run efface completion fish > ~/.config/fish/completions/efface.fish. The scripts call `efface completion words`,
    which lists the words that may follow.
    """

    example: ClassVar[str] = "efface completion bash"
    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish", "words"]]
    """The shell, or "words", which the scripts call."""
    after: tyro.conf.Positional[tuple[str, ...]] = ()
    """For "words": the words before the one that is completed."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        from .console import print_result

        if self.shell == "words":
            found = list_words(self.after)
            print_result(found, self.json, "\n".join(found))
        else:
            print_result({"script": SCRIPTS[self.shell]}, self.json, SCRIPTS[self.shell].rstrip())


def list_words(before: Sequence[str]) -> list[str]:
    """Lists what may follow these words: commands, names for a flag, or flags; nothing where a file may follow."""
    from .app import COMMANDS

    if not before:
        return [*COMMANDS, "help", "version"]
    if before[0] == "help":
        return list(COMMANDS) if len(before) == 1 else []
    if before[0] not in COMMANDS:
        return []
    if named := _list_names_after(before):
        return named
    if len(before) > 1 and before[-1].startswith("--") and before[-1] not in _list_flags(COMMANDS[before[0]], bool):
        return []
    if before[0] == "erase" and len(before) > 1 and before[1] in METHODS.list_names():
        return [*_list_erase_flags(), *_list_method_flags(before[1]), "--help"]
    return [*_list_flags(COMMANDS[before[0]]), "--help"]


def _list_names_after(before: Sequence[str]) -> list[str]:
    """Lists the names that the last word asks for: of models after --model, of methods after `erase`."""
    from ..models.loading import list_bundled as models
    from ..suites.spec import list_names as suites

    lists: dict[str, Any] = {
        "--model": models,
        "--suite": suites,
        "--attack": ATTACKS.list_names,
        "--scorer": SCORERS.list_names,
        "--method": METHODS.list_names,
        "erase": METHODS.list_names,
        "list": lambda: ["methods", "attacks", "scorers", "suites", "protocols", "models"],
        "completion": lambda: list(SCRIPTS),
    }
    last = before[-1] if len(before) == 1 or before[-1].startswith("--") else ""
    return list(lists[last]()) if last in lists else []


def _list_flags(command: type, only: type | None = None) -> list[str]:
    """Lists the flags of a command and of its groups of flags; `only` keeps those of one type."""
    found: list[str] = []
    plain, annotated = (typing.get_type_hints(command, include_extras=extras) for extras in (False, True))
    for field in dataclasses.fields(command):
        kind = plain[field.name]
        marks = getattr(annotated[field.name], "__metadata__", ())
        if dataclasses.is_dataclass(kind) and isinstance(kind, type):
            found += _list_flags(kind, only)
        elif only in (None, kind) and "Positional" not in map(repr, marks):
            named = next((mark.name for mark in marks if getattr(mark, "name", None)), field.name)
            found.append("--" + named.replace("_", "-"))
    return found


def _list_erase_flags() -> list[str]:
    from .erase import Loading, Memory, Output, What

    return [flag for group in (What, Output, Memory, Loading) for flag in _list_flags(group)]


def _list_method_flags(name: str) -> list[str]:
    """Lists a method's flags, which are read from its source, so that torch is not imported."""
    found: dict[str, str | None] = {}
    for each in reversed(list(walk_lineage(METHODS.find_entry(name).written))):
        for field, line in list_fields(each.node).items():
            flag = f"--{field.removesuffix('_').replace('_', '-')}"
            found.pop(flag, None) if is_trait(line) else found.setdefault(flag)
    return list(found)
