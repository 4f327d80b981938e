"""Methods: presets, one file each, a choice on every axis with the paper's defaults; and the bases they stand on.

A method is called by the name of its file, with hyphens for underscores. Importing this package imports no torch.
"""

from .capabilities import Capabilities, find_capabilities
from .configure import (
    build_method,
    describe,
    find_name,
    find_suggestion,
    get,
    list_names,
    suggest_for_bundled,
    suggest_settings,
)

__all__ = [
    "Capabilities",
    "build_method",
    "describe",
    "find_capabilities",
    "find_name",
    "find_suggestion",
    "get",
    "list_names",
    "suggest_for_bundled",
    "suggest_settings",
]
