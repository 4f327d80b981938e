"""The only door to diffusers: models, their adapters, and one sampling loop."""

from .loading import BUNDLED, load, names

__all__ = ["BUNDLED", "load", "names"]
