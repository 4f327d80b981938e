"""The record of how an Edit was made: the request, the method and its arguments, and the base."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..concept import Erasure
from ..models.base import Model

LATER = ("origin",)
"""Entries that checkpoints of earlier versions lack."""


def describe_run(
    model: Model,
    erasure: Erasure,
    method: str,
    arguments: Mapping[str, Any],
    base: Mapping[str, str] | None = None,
    origin: Mapping[str, Mapping[str, str]] | None = None,
) -> dict[str, Any]:
    """The record of how an Edit was made, in JSON's types.

    Args:
        base: the base's fingerprint, if it is known; otherwise it is computed from the weights in place.
        origin: the package and the hash of the source of each module of other packages that made it, by module.
    """
    request = {"targets": erasure.targets, "anchor": erasure.anchor, "keep": erasure.keep}
    record = {"method": method, "arguments": dict(arguments), "request": request, "model": model.name}
    record |= {"base": dict(base or model.fingerprint()), "compute": str(model.compute or model.dtype)}
    if model.guidance_rescale:
        record["guidance_rescale"] = model.guidance_rescale
    if origin:
        record["origin"] = origin
    return json.loads(json.dumps(record))


def check_same_run(file: Path, found: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Raises ValueError, which says what differs, where the record in a file is not that of this run."""
    if differ := sorted(key for key in ours if found.get(key) != ours[key] and (key in found or key not in LATER)):
        raise ValueError(f"{file} belongs to another run (differs in {', '.join(differ)}); remove it to start afresh")


def read_done(found: Mapping[str, Any], steps: int) -> int:
    """The number of steps that a checkpoint says are done; ValueError where it says none, or more than there are."""
    done = found.get("done")
    if type(done) is not int or not 0 <= done <= steps:
        raise ValueError(f"it says that {done!r} of {steps} steps are done")
    return done


def read_versions() -> dict[str, str]:
    """The versions of the packages that an Edit's numbers depend on."""
    return {name: version(name) for name in ("efface", "torch", "diffusers", "transformers")}
