"""Prompt sets as data: tomls and files of the field's layouts, made into rows for what is erased."""

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
