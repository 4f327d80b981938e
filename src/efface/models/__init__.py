"""The only door to diffusers: models, their adapters, and one sampling loop."""

from .loading import BUNDLED, list_bundled, load

__all__ = ["BUNDLED", "list_bundled", "load"]
