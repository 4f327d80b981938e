"""The record of an export: a JSON file beside the exported file, or in its folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

from ..files import read_json, refusing


class ExportRecord(BaseModel):
    """The part of an export's record from which a model card is written; the record has other entries too."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False, strict=True)

    format: str
    target: list[str]
    anchor: str = ""
    method: str
    model: str
    base: dict[str, str]
    residual: float = 0.0
    worst_residual: float = 0.0
    recommended_strength: float = 1.0
    strength_in_file: float = 1.0
    absent: list[str] = []
    """Parts that the pipeline lacks and that `from_pretrained` has to be given as None."""
    call: dict[str, int] = {}
    """Arguments that the pipeline's call needs in order to draw as the model was trained."""
    edit_sha256: str = ""
    """The sha256 of the file of the edit that was exported; "" in exports of earlier versions."""


def read_export(file: Path) -> dict[str, Any]:
    """Reads the record that `efface export` wrote beside a file, or into a folder.

    Raises:
        ValueError: it is damaged, or of an earlier version, which said less; the message names the file.
    """
    data = read_json(file, remedy := "export again")
    with refusing(file, "no record of an export", remedy):
        return ExportRecord.model_validate(data).model_dump(exclude_unset=True)
