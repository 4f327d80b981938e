"""Chooses the files of a diffusers folder that are opened, and checks that each is there and whole.

Parts of a pipeline that only check or read pictures are never called here and are skipped (`UNUSED`). A folder may have
weights in several variants (`model.fp16.safetensors`); one is chosen for each part.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from ...files.structured import shorten
from .place import INDEX, is_pointer, read_object, warn_of_pickle
from .schedule_config import check_schedule_config

__all__ = ["INDEX", "UNUSED", "Part", "Weights", "check_parts", "check_settings", "choose_weights", "list_used"]
UNUSED = ("safety_checker", "feature_extractor", "image_encoder")
"""The parts that are not opened; pipelines get None for them."""
LIBRARIES = ("diffusers", "transformers")
VOCABULARIES = ("tokenizer.json", "vocab.json", "spiece.model", "tokenizer.model", "vocab.txt")
"""The names of files that can hold a tokenizer's tokens."""
WHOLE = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model)(\.(?P<variant>[^.]+))?\.(?P<kind>safetensors|bin)"
)
SHARDED = re.compile(
    r"(?P<stem>diffusion_pytorch_model|model|pytorch_model)\.(?P<kind>safetensors|bin)\.index(\.(?P<variant>[^.]+))?\.json"
)
LONGEST_NAME = 250
"""Bytes of a file's name, at most."""
SHARD = re.compile(r"-\d{5}-of-\d{5}")


@dataclass(frozen=True)
class Weights:
    """The weights of a part that are to be opened."""

    file: str
    """The name of the file, or of the index of its shards."""
    variant: str
    """"fp16" for `model.fp16.safetensors`; "" for the plain ones."""
    safe: bool
    """Whether they are safetensors; otherwise they are a pickle."""

    @property
    def patterns(self) -> tuple[str, ...]:
        """Patterns that match the names of all files that hold them."""
        if not self.file.endswith(".json"):
            return (self.file,)
        stem = self.file.partition(".")[0]
        return self.file, f"{stem}*-of-*.{'safetensors' if self.safe else 'bin'}"


@dataclass(frozen=True)
class Part:
    """A part of a stored pipeline."""

    name: str
    package: str
    """"diffusers" or "transformers"."""
    kind: str
    """The name of its class in this package."""
    weights: Weights | None
    """The weights to open; None for tokenizers and schedulers."""


def list_used(folder: Path, index: Path | None = None) -> dict[str, tuple[str, str]]:
    """The library and class of each part that is used, by the part's name in `model_index.json`.

    Raises:
        ValueError: a part of the pipeline needs code that comes with the model, or its name can't be a folder's.
    """
    used: dict[str, tuple[str, str]] = {}
    for name, said in read_object(index or folder / INDEX).items():
        if name.startswith("_") or name in UNUSED or not isinstance(said, list) or said == [None, None]:
            continue
        if not name.isidentifier() or len(name) > LONGEST_NAME:
            raise ValueError(
                f"{folder}/{INDEX} names a part {shorten(name)!r}; a name of letters, digits and underscores, "
                f"at most {LONGEST_NAME} of them, would have worked"
            )
        if len(said) != 2 or said[0] not in LIBRARIES or not isinstance(said[1], str):
            raise ValueError(
                f"{folder}/{INDEX} says that {name} is {shorten(str(said))}; "
                f"a class of {' or '.join(LIBRARIES)} would have worked, for code that comes with a model is not run"
            )
        used[name] = (said[0], said[1])
    return used


def check_parts(folder: Path, variant: str = "") -> list[Part]:
    """Lists the parts of a stored pipeline that are used, and checks that the files of each are whole.

    Args:
        folder: a diffusers folder.
        variant: the weights to take where a part has several; "" takes the plain ones, or the only ones.

    Raises:
        ValueError: a file is missing, is a git-lfs pointer or is truncated, or no part has the variant.
    """
    parts = []
    for name, (package, kind) in list_used(folder).items():
        inside = folder / name
        if not inside.is_dir():
            raise ValueError(f"{inside} is missing: {folder}/{INDEX} names this part ({kind}); fetch the folder again")
        _refuse_code(inside, package, kind)
        parts.append(Part(name, package, kind, _check_part(inside, kind, variant)))
    found = {part.weights.variant for part in parts if part.weights}
    if variant and variant not in found:
        known = ", ".join(sorted(found - {""})) or "none"
        raise ValueError(f"no part of {folder} has the variant {variant!r}; there is {known}: omit --variant")
    return parts


def check_settings(folder: Path) -> None:
    """Checks, as `check_parts` does, a folder that gives a single file its configuration; its weights are skipped."""
    for name, (package, kind) in list_used(folder).items():
        if not (folder / name).is_dir():
            raise ValueError(f"{folder / name} is missing: {folder}/{INDEX} names this part ({kind})")
        _refuse_code(folder / name, package, kind)
        _check_settings(folder / name, kind)


def _refuse_code(folder: Path, package: str, kind: str) -> None:
    """Raises ValueError where a part is opened by whatever class its files name, and they name code of their own."""
    if package != "transformers" or not kind.startswith("Auto"):
        return
    for file in sorted(folder.glob("*.json")):
        if "auto_map" in file.read_text(encoding="utf-8", errors="replace"):
            raise ValueError(
                f"{file} names code that comes with the model (auto_map), which is not run; an {INDEX} that names "
                f"a class of {' or '.join(LIBRARIES)} in the place of {kind} would have worked"
            )


def _check_part(folder: Path, kind: str, variant: str) -> Weights | None:
    """The weights of a part, or None where its kind has none; every file that opening reads is checked."""
    if not _check_settings(folder, kind):
        return None
    weights = choose_weights([file.name for file in folder.iterdir()], str(folder), variant)
    if weights is None:
        raise ValueError(f"{folder} holds no weights: no .safetensors and no .bin of a known name; fetch them again")
    for file in list_files(folder, weights):
        check_whole(file)
    if not weights.safe:
        warn_of_pickle(folder / weights.file)
    return weights


def _check_settings(folder: Path, kind: str) -> bool:
    """Checks the files of a part beside its weights; returns whether its kind has weights."""
    if "Tokenizer" in kind:
        _check_tokenizer(folder)
    elif "Scheduler" in kind:
        check_schedule_config(read_object(file := folder / "scheduler_config.json"), str(file))
    elif not kind.endswith(("Processor", "FeatureExtractor")):
        read_object(folder / "config.json")
        return True
    return False


def choose_weights(files: Iterable[str], where: str, variant: str = "") -> Weights | None:
    """Chooses the weights to open among the names of a part's files; None where none is a file of weights.

    The variant asked for comes first, then plain weights, then the only variant there is; of each, safetensors come
    before a pickle.

    Raises:
        ValueError: there are several variants and no plain weights, and none of the variants was asked for.
    """
    found: dict[tuple[str, bool], Weights] = {}
    for file in sorted(files):
        match = WHOLE.fullmatch(file) or SHARDED.fullmatch(file)
        if match and not SHARD.search(file):
            key = (match["variant"] or "", match["kind"] == "safetensors")
            found.setdefault(key, Weights(file, *key))
    others = sorted({held for held, _ in found} - {""})
    order = [variant, "", *(others if len(others) == 1 else ())]
    for held in order:
        for safe in (True, False):
            if (held, safe) in found:
                return found[held, safe]
    if others:
        raise ValueError(f"{where} holds weights of the variants {', '.join(others)} alone; choose one by --variant")
    return None


def list_files(folder: Path, weights: Weights) -> list[Path]:
    """All files that hold the weights."""
    file = folder / weights.file
    if file.suffix != ".json":
        return [file]
    shards = read_object(file).get("weight_map")
    if not isinstance(shards, dict) or not shards or not all(_is_name(shard) for shard in shards.values()):
        raise ValueError(f"{file} lists no shards; fetch it again")
    return [folder / Path(shard).name for shard in sorted(set(shards.values()))]


def _is_name(shard: Any) -> bool:
    """Whether that can be the name of a file."""
    return isinstance(shard, str) and 0 < len(Path(shard).name.encode()) < LONGEST_NAME and "\x00" not in shard


def _check_tokenizer(folder: Path) -> None:
    held = [name for name in VOCABULARIES if (folder / name).is_file()]
    if not held:
        raise ValueError(f"{folder} holds no tokenizer: none of {', '.join(VOCABULARIES)}; fetch the folder again")
    for file in (*(folder / name for name in held), folder / "merges.txt"):
        if file.is_file() and (is_pointer(file) or not file.stat().st_size):
            raise ValueError(f"{file} is {'empty' if not file.stat().st_size else 'a git-lfs pointer'}; fetch it again")
        if file.suffix == ".json":
            read_object(file)
    if held == ["vocab.json"] and not (folder / "merges.txt").is_file():
        raise ValueError(f"{folder} lacks merges.txt, without which vocab.json spells no word; fetch it again")
    read_object(folder / "tokenizer_config.json")


def check_whole(file: Path) -> None:
    """Raises ValueError where a file of weights is missing, a git-lfs pointer, or truncated."""
    if not file.is_file():
        raise ValueError(f"{file} is missing; fetch it again")
    if is_pointer(file):
        raise ValueError(f"{file} is a git-lfs pointer, not the weights: run git lfs pull there, or fetch it again")
    if file.suffix == ".safetensors":
        try:
            with safe_open(file, framework="pt"):
                return
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{file} is cut short or no safetensors file ({error}); fetch it again") from error
    with file.open("rb") as opened:
        legacy = opened.read(1) == b"\x80"
    if not legacy and not zipfile.is_zipfile(file):
        raise ValueError(f"{file} is cut short or no file of weights; fetch it again")


def describe(part: Part, folder: Path) -> str:
    """The path of the part's file, for errors."""
    return str(folder / part.name / part.weights.file) if part.weights else str(folder / part.name)


def to_arguments(weights: Weights) -> dict[str, Any]:
    """The arguments of `from_pretrained` that choose these weights."""
    return {"variant": weights.variant or None, "use_safetensors": weights.safe}
