"""efface removes concepts from text-to-image diffusion loading, and shows what is left of them.

    model = efface.load("glyphs")
    edit = efface.erase(model, "cat", method="eap")
    with edit.apply(model):
        pictures = model.images(["a cat", "a dog"], seeds=[0, 0])
    edit.save("cat.safetensors")

Importing the package imports no torch; the first use of a model does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .concept import Erasure, Prompt

if TYPE_CHECKING:
    from .edits.edit import Edit
    from .models.base import Model

__version__ = "0.1.0"
__all__ = ["Edit", "Erasure", "Prompt", "__version__", "erase", "load"]


def load(
    source: Any,
    device: Any = None,
    dtype: Any = None,
    compute: Any = None,
    *,
    checkpointing: bool = False,
    compile: bool = False,
    offload: bool = False,
    store: str | Path | None = None,
    store_bound: int | None = None,
    draw_batch: int = 0,
) -> Model:
    """Open a model: a name, a folder, a single file, a hub id, or a pipeline in memory; see `efface.models.load`."""
    from .models import loading

    return loading.load(
        source,
        device,
        dtype,
        compute,
        checkpointing=checkpointing,
        compile=compile,
        offload=offload,
        store=store,
        store_bound=store_bound,
        draw_batch=draw_batch,
    )


def erase(
    model: Model,
    what: str | Erasure | Iterable[str],
    method: str = "eap",
    *,
    progress: Callable[..., None] | None = None,
    checkpoint: str | Path | None = None,
    **overrides: Any,
) -> Edit:
    """Fits an edit that erases: a concept, several, or a whole request; `overrides` are arguments of the method."""
    from . import methods

    chosen = methods.configured(method, model, overrides)
    return chosen.fit(model, Erasure.of(what), progress=progress, checkpoint=checkpoint)


def __getattr__(name: str) -> Any:
    if name == "Edit":
        from .edits.edit import Edit

        return Edit
    raise AttributeError(f"module 'efface' has no attribute {name!r}")
