"""Attacks that try to bring an erased concept back, one file each.

An attack is called by the name of its file, with hyphens for underscores. Its dataclass' defaults are its paper's;
values that a bundled model needs instead are in its defaults.toml, under [attack.NAME]. Importing this package
imports no torch.
"""

from .configure import (
    BASELINE,
    STANDARD,
    build_attack,
    describe,
    find_name,
    get,
    list_names,
    name_attack,
    suggest_settings,
)

__all__ = [
    "BASELINE",
    "STANDARD",
    "build_attack",
    "describe",
    "find_name",
    "get",
    "list_names",
    "name_attack",
    "suggest_settings",
]
