"""The record of how an edit came about: what was asked, by which method and arguments, on which base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..concept import Erasure
from ..models.base import Model


def provenance(
    model: Model, erasure: Erasure, method: str, arguments: Mapping[str, Any], base: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """The record of how an edit came about, in JSON's types; `base` where the fingerprint was taken before."""
    request = {"targets": erasure.targets, "anchor": erasure.anchor, "keep": erasure.keep}
    record = {"method": method, "arguments": dict(arguments), "request": request, "model": model.name}
    record |= {"base": dict(base or model.fingerprint()), "compute": str(model.compute or model.dtype)}
    return json.loads(json.dumps(record))


def check_same_run(file: Path, found: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises ValueError, with what differs, where a file's record is not ours."""
    if differ := sorted(key for key in ours if found.get(key) != ours[key]):
        raise ValueError(f"{file} belongs to another run (differs in {', '.join(differ)}); remove it to start afresh")


def versions() -> dict[str, str]:
    """Of the packages that an edit's numbers depend on."""
    return {name: version(name) for name in ("efface", "torch", "diffusers", "transformers")}
