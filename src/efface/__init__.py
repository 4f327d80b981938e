"""efface removes concepts from text-to-image diffusion models, and shows what is left of them.

    model = efface.load("glyphs")
    edit = efface.erase(model, "cat", method="esd")
    with edit.apply(model):
        pictures = model.images(["a cat", "a dog"])
    edit.save("cat.safetensors")
    record = efface.evaluate(model, edit, "out/cat")

Importing the package imports no torch; the first use of a model does.
"""

from typing import TYPE_CHECKING

from .concept import Erasure, Prompt
from .library.attacking import attack
from .library.auditing import audit
from .library.erasing import erase, load
from .library.evaluating import evaluate
from .library.lazily import lazy_attribute as __getattr__  # noqa: F401 - Python looks it up by this name
from .library.publishing import export, record, report, verify

if TYPE_CHECKING:
    from .edits.edit import Edit as Edit

__version__ = "0.1.0"
__all__ = [
    "Edit",
    "Erasure",
    "Prompt",
    "__version__",
    "attack",
    "audit",
    "erase",
    "evaluate",
    "export",
    "load",
    "record",
    "report",
    "verify",
]
