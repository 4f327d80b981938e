"""Prompt sets as data: TOML files, and files in the usual layouts, from which rows for an erasure are made."""

from .listed import read_list
from .make import check_suite, make_suite, needs_world
from .rows import build
from .spec import GroupSpec, Row, Suite, SuiteSpec, describe, list_names, read_spec
from .world import Thing, World, locate

__all__ = [
    "GroupSpec",
    "Row",
    "Suite",
    "SuiteSpec",
    "Thing",
    "World",
    "build",
    "check_suite",
    "describe",
    "list_names",
    "locate",
    "make_suite",
    "needs_world",
    "read_list",
    "read_spec",
]
