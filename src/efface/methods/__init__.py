"""Methods: presets, one file each, a choice on every axis with the paper's defaults; and the bases they stand on.

A method is called by the name of its file, with hyphens for underscores. Importing this package imports no torch.
"""

from .capabilities import Capabilities, capabilities
from .configure import configured, describe, get, named, names, suggested, suggested_for, suggestion

__all__ = [
    "Capabilities",
    "capabilities",
    "configured",
    "describe",
    "get",
    "named",
    "names",
    "suggested",
    "suggested_for",
    "suggestion",
]
