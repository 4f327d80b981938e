"""Names of the package that need torch, which are imported at their first use."""

from typing import Any


def find_attribute(name: str) -> Any:
    """The class of that name, `efface.Edit`; raises AttributeError for any other name."""
    if name == "Edit":
        from ..edits.edit import Edit

        return Edit
    raise AttributeError(f"module 'efface' has no attribute {name!r}")
