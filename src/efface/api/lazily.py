"""Names of the package that need torch, looked up when they are first asked for."""

from typing import Any


def lazy_attribute(name: str) -> Any:
    """The class of that name: `efface.Edit`; AttributeError for any other."""
    if name == "Edit":
        from ..edits.edit import Edit

        return Edit
    raise AttributeError(f"module 'efface' has no attribute {name!r}")
