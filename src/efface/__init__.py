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

from .api.attacking import attack
from .api.auditing import audit
from .api.combining import diff, merge, revert
from .api.demonstrating import demonstrate
from .api.diagnosing import neurons
from .api.drafting import draft_suite
from .api.drawing import draw
from .api.erasing import erase, load
from .api.evaluating import evaluate
from .api.exporting import export
from .api.importing import import_edit
from .api.lazily import find_attribute as __getattr__  # noqa: F401 - Python looks it up by this name
from .api.ledger import add_to_ledger
from .api.publishing import record, report, verify
from .api.purifying import purify
from .api.pushing import push
from .api.takedown import takedown
from .concept import Erasure, Prompt
from .playground.serving import play
from .sweeps.sweeping import sweep

if TYPE_CHECKING:
    from .edits.edit import Edit as Edit

__version__ = "0.1.0"
__all__ = [
    "Edit",
    "Erasure",
    "Prompt",
    "__version__",
    "add_to_ledger",
    "attack",
    "audit",
    "demonstrate",
    "diff",
    "draft_suite",
    "draw",
    "erase",
    "evaluate",
    "export",
    "import_edit",
    "load",
    "merge",
    "neurons",
    "play",
    "purify",
    "push",
    "record",
    "report",
    "revert",
    "sweep",
    "takedown",
    "verify",
]
