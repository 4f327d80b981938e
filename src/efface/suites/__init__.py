"""Prompt sets as data: a toml a suite, made into rows for what is erased."""

from .rows import GroupSpec, Row, Suite, SuiteSpec, build, describe, names, spec
from .world import Thing, World, locate

__all__ = ["GroupSpec", "Row", "Suite", "SuiteSpec", "Thing", "World", "build", "describe", "locate", "names", "spec"]
