"""Checks whether a format can hold an edit, before any work on a file begins."""

from __future__ import annotations

from collections.abc import Mapping

from ..edits.edit import Edit
from ..models import consumer
from ..models.base import Model
from ..plurals import write_count
from .factors import RankChoice
from .formats import FORMATS, WHOLE, Format, check_architecture, suggest_others
from .lora import check_package
from .original import PREFIXES, check_original

_BLOCKS = ("transformer.transformer_blocks.", "transformer.single_transformer_blocks.")
_ENDS = ("x_embedder.", "context_embedder.", "proj_out.", "time_guidance_embed.timestep_embedder.")
KOHYA: Mapping[str, tuple[str, ...]] = {
    "flux": (*_BLOCKS, "text_encoder."),
    "flux2": (*_BLOCKS, *(f"transformer.{name}" for name in _ENDS)),
    "z-image": ("transformer.",),
    "qwen-image": ("transformer.",),
}
"""How the weights begin that diffusers reads from a kohya file, of architectures where it does not read all."""


def check_format(model: Model, edit: Edit, format: Format, choice: RankChoice | None = None) -> None:
    """Raises ValueError where the format can't hold this edit of this model; says what could.

    Args:
        model: the edit's base.
        edit: the edit to export.
        format: the name of the format.
        choice: the rank or energy of the factors, for LoRA files alone.
    """
    edit.check_exportable()
    check_architecture(format, model.architecture)
    if format in WHOLE:
        edit.check(model)
        if format == "single-file" and model.architecture in PREFIXES:
            check_original(model, edit)
        return
    check_package(model, edit, format, choice or RankChoice())
    if format == "lora":
        consumer.check_reader(model, edit.names)
    read = KOHYA.get(model.architecture, ("",)) if format == "kohya" else ("",)
    if lost := [name for name in edit.names if not name.startswith(read)]:
        parts = ", ".join(each.removesuffix(".") for each in read)
        raise ValueError(
            f"diffusers reads only {parts} from a kohya file of a model of the kind {model.architecture}, and the edit "
            f"changes {lost[0]} ({write_count(len(lost), 'such weight')}); "
            f"{suggest_others(format, model.architecture)} may hold it"
        )


def list_formats(model: Model, edit: Edit) -> tuple[Format, ...]:
    """The formats that can hold this edit of this model."""
    found: list[Format] = []
    for format in FORMATS:
        try:
            check_format(model, edit, format)
        except ValueError:
            continue
        found.append(format)
    return tuple(found)
