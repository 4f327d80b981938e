"""Finds a model by what the user gave: a bundled name, a diffusers folder, a single file, or a hub id."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...catalog import find_closest
from ...files import read_json
from ...files.hub import require_source
from ...files.structured import shorten

INDEX = "model_index.json"
SUFFIX = ".safetensors"
"""The ending of a single-file checkpoint."""
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
PICKLES = (".ckpt", ".pt", ".bin", ".pth", ".pkl")
"""Endings of files that can run code when they are opened."""


@dataclass(frozen=True)
class Place:
    """The files of a model."""

    location: str
    """The folder or single file."""
    kind: str
    """The name of the class of its pipeline."""
    bundled: str = ""
    """The name of a bundled model; "" for others."""
    config: str | None = None
    """A single file's folder of configuration, "" for the hub's; None for models that are no single file."""


def locate(source: str, bundled: Mapping[str, Path], kinds: Sequence[str], variant: str = "") -> Place:
    """Finds a model by its bundled name, folder, single file or hub id.

    Args:
        source: what the user gave.
        bundled: folders of the models that come with the package, by name.
        kinds: the classes of pipelines that are supported.
        variant: which weights to fetch from the hub where there are several ("fp16"); "" for the plain ones.

    Raises:
        ValueError: there is nothing of this name, or it is not supported.
    """
    from ..adapters import single_file

    check_name(source, bundled)
    if source in bundled:
        _demand_no_variant(source, variant)
        return Place(str(bundled[source]), read_kind(bundled[source], kinds), source)
    path = Path(source).expanduser()
    if path.is_dir():
        return Place(str(path), read_kind(path, kinds))
    if parts := split(source):
        _demand_no_variant(source, variant)
        file, config = str(Path(parts[0]).expanduser()), parts[1]
        kind, beside = single_file.find_kind(file), locate(config, bundled, kinds) if config else None
        if beside and (beside.kind != kind or beside.config is not None):
            raise ValueError(f"{file} holds a {kind}, but {config} is a {beside.kind}; name a folder of the same kind")
        return Place(file, kind, config=beside.location if beside else "")
    from .hub import fetch  # which imports what this file holds

    try:
        folder = fetch(source, variant)
    except ValueError as error:
        raise ValueError(_describe_absence(source, bundled, f"there is no such folder, {error}")) from error
    return Place(str(folder), read_kind(folder, kinds, source))


def check_name(source: str, bundled: Collection[str]) -> None:
    """Raises ValueError for a name that can't be a model's: no embedded model, folder, file or hub id.

    It needs no torch, so that a misspelled name is refused at once. An id that is not in the hub's cache is refused
    where the hub does not answer; whether a hub that answers has such a model is found when the model is opened.
    """
    if not source.strip():
        raise ValueError(f"the model's name is empty; {describe_sources(bundled)} would have worked")
    if source in bundled or Path(source).expanduser().is_dir():
        return
    if parts := split(source):
        if not Path(parts[0]).expanduser().is_file():
            raise ValueError(f"no file {parts[0]}; {describe_sources(bundled)} would have worked")
        return check_name(parts[1], bundled) if parts[1] else None
    _refuse_files(source)
    if HUB_ID.fullmatch(source) is None:
        raise ValueError(
            _describe_absence(source, bundled, "there is neither such a folder nor such an embedded model")
        )
    try:
        require_source(source, INDEX)
    except ValueError as error:
        raise ValueError(_describe_absence(source, bundled, f"there is no such folder, {error}")) from error
    return None


def describe_sources(bundled: Collection[str]) -> str:
    """What a model can be given by, for errors."""
    named = f"an embedded model ({', '.join(sorted(bundled))}), " if bundled else ""
    return f"{named}a diffusers folder, a checkpoint FILE.safetensors@FOLDER, or a hub id OWNER/NAME"


def _describe_absence(source: str, bundled: Collection[str], why: str) -> str:
    """Says that there is no model of a name and why, what was probably meant, and what would have worked."""
    close = find_closest(source, bundled)
    meant = f" (did you mean {close[0]!r}?)" if close else ""
    return f"no model {source!r}{meant}: {why}; {describe_sources(bundled)} would have worked"


def split(source: str) -> tuple[str, str] | None:
    """File and configuration of "FILE.safetensors" or "FILE.safetensors@CONFIGURATION"; None for other sources."""
    file, found, config = source.partition(f"{SUFFIX}@")
    if found:
        return f"{file}{SUFFIX}", config
    return (source, "") if source.endswith(SUFFIX) else None


def read_kind(folder: Path, kinds: Sequence[str], source: str = "") -> str:
    """The class of the pipeline in a folder; raises ValueError, which names `source`, where it is not supported."""
    name = source or str(folder)
    if not (folder / INDEX).is_file():
        above = read_object(folder / "config.json").get("_class_name") if (folder / "config.json").is_file() else None
        part = f"{name} is one part of a pipeline, a {shorten(str(above))}; name the folder above it" if above else ""
        raise ValueError(
            part
            or f"{name} holds no diffusers pipeline: it has no {INDEX}; a folder with one of "
            f"{', '.join(kinds)} would have worked"
        )
    kind = read_object(folder / INDEX).get("_class_name", "no diffusers pipeline")
    if kind not in kinds:
        raise ValueError(
            f"{name} holds {shorten(str(kind))}; a folder with one of {', '.join(kinds)} would have worked"
        )
    return str(kind)


def read_object(file: Path) -> dict[str, Any]:
    """Reads the JSON object in a configuration file; raises ValueError, which names the file, where there is none."""
    try:
        held = read_json(file, finite=False)  # diffusers writes a scheduler's `lambda_min_clipped` as -Infinity
    except OSError as error:
        why = error.strerror or "there is no such file"
        raise ValueError(f"{file} is missing or can't be read ({why}); fetch it again") from error
    except ValueError as error:
        what = "is a git-lfs pointer" if is_pointer(file) else "is no JSON, or cut short"
        raise ValueError(f"{file} {what}; fetch it again") from error
    if not isinstance(held, dict):
        raise ValueError(f"{file} holds a {type(held).__name__}; a JSON object would have worked")
    return held


def is_pointer(file: Path) -> bool:
    """Whether a file is a git-lfs pointer, which git leaves in place of a large file that was not fetched."""
    with file.open("rb") as opened:
        return opened.read(40).startswith(b"version https://git-lfs")


def _demand_no_variant(source: str, variant: str) -> None:
    if variant:
        raise ValueError(f"only a folder or a hub id can have a variant ({variant}); leave it out for {source}")


def _refuse_files(source: str) -> None:
    """Raises ValueError for a name that is a file or has a file's ending, and so is no hub id."""
    file, _, config = source.partition("@")
    path = Path(file).expanduser()
    if path.suffix.lower() in PICKLES:
        there = "is a pickle, which is not opened, for opening one can run code" if path.is_file() else "is not there"
        way = (
            "convert it to .safetensors (in diffusers: StableDiffusionPipeline.from_single_file, then "
            "save_pretrained) and"
            if path.is_file()
            else "a pickle would not be opened either:"
        )
        raise ValueError(f"{file} {there}; {way} give FILE.safetensors@FOLDER, or a diffusers folder")
    if path.is_file():
        inside = f"; name its folder, {path.parent}" if path.name == INDEX else ""
        raise ValueError(f"{file} is a file that is no model; FILE.safetensors@FOLDER would have worked{inside}")
    if config and "/" in file:
        raise ValueError(f"{source} names no file: a single file ends in .safetensors, FILE.safetensors@FOLDER")


def warn_of_pickle(file: Path) -> None:
    """Warns that a pickle is read, from which only tensors are taken."""
    warnings.warn(
        f"{file} is a pickle, from which only tensors are read, because there are no safetensors beside it; save the "
        "pipeline anew with save_pretrained to avoid this",
        stacklevel=2,
    )
