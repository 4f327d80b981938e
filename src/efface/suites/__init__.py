"""Prompt sets as data: TOML files, and files in the usual layouts, from which rows for an erasure are made."""

from .listed import read_list
from .make import check, make, needs_world
from .rows import build
from .spec import GroupSpec, Row, Suite, SuiteSpec, describe, names, spec
from .world import Thing, World, locate

__all__ = [
    "GroupSpec",
    "Row",
    "Suite",
    "SuiteSpec",
    "Thing",
    "World",
    "build",
    "check",
    "describe",
    "locate",
    "make",
    "names",
    "needs_world",
    "read_list",
    "spec",
]
