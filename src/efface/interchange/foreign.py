"""Opens the results of other tools: weights by name, a LoRA, a denoiser's folder, or a whole model."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..edits.integrity import check_meta
from ..files import describe_missing, hash_file, naming, parse_json, read_json, refusing
from ..files.structured import shorten
from ..files.tensors import read_pickle
from ..models import consumer
from ..models.adapters import single_file
from ..models.base import Model
from ..models.loading import RECORD, load
from ..plurals import write_count
from .reading import is_lora, read_lora, read_weights

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
WRAPPERS = ("state_dict", "unet", "transformer", "model", "params")
"""Keys under which a pickle may hold the tensors."""
LORA_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""The names that diffusers and PEFT give to a LoRA's file in its folder."""
PEFT = "base_model.model."
LARGEST = 1e30
"""An alpha of a LoRA must be smaller than this."""


@final
@dataclass(frozen=True)
class Foreign:
    """The change of a model that a file or folder of another tool holds."""

    values: Mapping[str, Tensor]
    """The values of an edit."""
    layout: str
    """The kind of file: "LoRA", "weights", "folder" or "single file"."""
    digest: str
    """The sha256 of the file; for a folder, that of the one file that was read, or ""."""
    aside: tuple[str, ...] = ()
    """The keys of other parts of a checkpoint, which an edit can't hold."""
    record: Mapping[str, Any] | None = None
    """The record of the edit, if efface exported the file."""


@final
@dataclass(frozen=True)
class Source:
    """A file or folder of another tool, opened without the model that it was made for."""

    place: Path
    """The file that was read, or the folder of a whole pipeline."""
    tensors: Mapping[str, Tensor] | None
    """The file's tensors; None for the folder of a whole pipeline."""
    header: Mapping[str, str]
    """The metadata in the header of a safetensors file."""
    record: Mapping[str, Any] | None
    """The record of the edit, if efface exported it."""


def open_source(source: str | Path, unpickle: bool = False) -> Source:
    """Opens another tool's file or folder, which `fit_source` compares with its base.

    Args:
        source: a diffusers folder of a fine-tuned model or of its denoiser; a folder with a LoRA as diffusers or PEFT
            writes it; a .safetensors file with a LoRA, with weights by name, or with a whole model in the original
            layout; or a pickle (.pt, .pth, .bin, .ckpt) of weights or of a LoRA.
        unpickle: whether a pickle may be opened, with `weights_only`, which runs no code of the file's.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is damaged, an edit of efface, or a pickle that may not be opened.
    """
    place = Path(source)
    if place.is_dir():
        file = _find_file(place)
        if file is None:
            return Source(place, None, {}, _read_record(place / RECORD))
        return _open_file(file, unpickle)
    if place.is_file():
        return _open_file(place, unpickle)
    raise FileNotFoundError(describe_missing(place, "file or folder"))


def fit_source(model: Model, source: Source) -> Foreign:
    """Finds the change that an opened file or folder makes to this model, its base.

    Raises:
        ValueError: it fits no part of the model, is damaged, or changes nothing.
    """
    found = _fit_folder(model, source) if source.tensors is None else _fit_file(model, source, source.tensors)
    if not found.values:
        raise ValueError(f"{source.place} changes nothing of {model.name}: every weight in it is the base's own")
    return found


def _find_file(place: Path) -> Path | None:
    """The file of weights in a folder; None for the folder of a whole pipeline."""
    if (place / "model_index.json").is_file():
        return None
    for name in LORA_NAMES:
        if (place / name).is_file():
            return place / name
    held = sorted(file for file in place.iterdir() if file.suffix in (".safetensors", *PICKLES))
    if len(held) != 1:
        raise ValueError(
            f"{place} holds {write_count(len(held), 'file')} of weights and no model_index.json; a diffusers folder, "
            "or the name of "
            "one file, would have worked"
        )
    return held[0]


def _read_record(file: Path) -> dict[str, Any] | None:
    """The record of the edit that an exported folder contains; None where there is none."""
    held = read_json(file) if file.is_file() else {}
    return _check_record(_require_table(held, str(file)).get("edit"), str(file))


def _check_record(record: Any, what: str) -> dict[str, Any] | None:
    try:
        if record is not None:
            check_meta(_require_table(record, f"{what}: its record of the edit"))
    except ValueError as error:
        raise ValueError(f"{what} is damaged: its record of the edit {error}; export it again") from error
    return record


def _open_file(file: Path, unpickle: bool) -> Source:
    if file.suffix in PICKLES:
        if not unpickle:
            raise ValueError(
                f"{file} is a pickle, which can run code when it is opened; --pickle opens it with weights_only, which "
                "runs none, or convert it to .safetensors"
            )
        return Source(file, _unpickle(file), {}, None)
    tensors, header = _read_safetensors(file)
    about = _parse_table(header.get("efface", "{}"), f"{file}: its metadata")
    if about.get("kind") == "edit":
        raise ValueError(f"{file} is an edit of efface already; give it to --edit as it is")
    return Source(file, tensors, header, _check_record(about.get("edit"), str(file)))


def _fit_folder(model: Model, source: Source) -> Foreign:
    opened = load(str(source.place), "cpu", torch.float32)
    aside = _find_other_decoder(model, opened)
    return Foreign(compare_models(model, opened), "folder", "", aside, source.record)


def _fit_file(model: Model, source: Source, tensors: Mapping[str, Tensor]) -> Foreign:
    file, record = source.place, source.record
    digest = hash_file(file)
    if is_lora(tensors):
        named = _add_alphas(tensors, source.header, file)
        with naming(file):
            return Foreign(read_lora(model, named), "LoRA", digest, record=record)
    if all(any(key.startswith(prefix) for key in tensors) for prefix in (single_file.UNET, single_file.VAE)):
        opened = _open_checkpoint(model, file)
        if opened is not None:
            return Foreign(
                compare_models(model, opened), "single file", digest, _find_other_decoder(model, opened), record
            )
    with naming(file):
        values, aside = read_weights(model, tensors)
    return Foreign(values, "weights", digest, tuple(aside), record)


def compare_models(base: Model, other: Model) -> dict[str, Tensor]:
    """The weights of another model that differ from the base's, by checkpoint name.

    Raises:
        ValueError: the models are of different architectures or sizes.
    """
    ours, theirs = base.weights, other.weights
    fits = ours.keys() == theirs.keys() and all(ours[n].shape == theirs[n].shape for n in ours)
    if base.architecture != other.architecture or not fits:
        raise ValueError(
            f"{other.name} ({other.architecture}) is no fine-tuned {base.name} ({base.architecture}): "
            "their weights differ in names or shapes"
        )
    return {n: t.detach().cpu().clone() for n, t in theirs.items() if not torch.equal(ours[n].to(t), t)}


def _find_other_decoder(base: Model, other: Model) -> tuple[str, ...]:
    return () if base.hash_decoder() == other.hash_decoder() else ("vae",)


def _open_checkpoint(model: Model, file: Path) -> Model | None:
    """Opens a whole model in the original layout with the base's configuration; None where it is not whole."""
    if file.suffix != single_file.SUFFIX:
        return None
    try:
        single_file.find_kind(file)
    except ValueError:
        return None
    with tempfile.TemporaryDirectory() as scratch:
        configuration = consumer.write_configuration(model.pipeline, scratch)
        return load(single_file.open_file(file, str(configuration)).to("cpu", torch.float32))


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(file, framework="pt") as opened:
            names = list(opened.keys())
            return {name: opened.get_tensor(name) for name in names}, dict(opened.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{file} is truncated or no safetensors file ({error}); fetch it again") from error


def _unpickle(file: Path) -> dict[str, Tensor]:
    held = read_pickle(file)
    for wrapper in WRAPPERS:
        if isinstance(held, dict) and isinstance(held.get(wrapper), dict):
            held = held[wrapper]
    tensors = {str(k): v for k, v in held.items() if isinstance(v, Tensor)} if isinstance(held, dict) else {}
    if not tensors:
        raise ValueError(f"{file} holds no tensors by name; a pickle of a state_dict() would have worked")
    return tensors


def _add_alphas(tensors: Mapping[str, Tensor], header: Mapping[str, str], file: Path) -> dict[str, Tensor]:
    """Adds to the tensors the alphas that diffusers or PEFT write beside them, and not among them."""
    named = {key.removeprefix(PEFT): tensor for key, tensor in tensors.items()}
    source = file
    settings = _parse_table(header.get("lora_adapter_metadata", "{}"), f"{file}: its lora_adapter_metadata")
    beside = file.with_name("adapter_config.json")
    if not settings and beside.is_file():
        source, settings = beside, _require_table(read_json(beside), str(beside))
    for key in list(named) if settings else ():
        layer, found, _ = key.partition(".lora_A.")
        if found and (alpha := _read_alpha(settings, layer, source)) is not None:
            named[f"{layer}.alpha"] = torch.tensor(alpha)
    return named


def _parse_table(text: str, what: str) -> dict[str, Any]:
    with refusing(what, "damaged", "save it again"):
        found = parse_json(text)
    return _require_table(found, what)


def _require_table(found: Any, what: str) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{what} is damaged (it holds a {type(found).__name__}, not a table); save it again")
    return found


def _read_alpha(settings: Mapping[str, Any], layer: str, source: Path) -> float | None:
    """The alpha of a layer in PEFT's settings, which may be those of one part of the pipeline: `unet.lora_alpha`.

    Raises:
        ValueError: an alpha is no number, or a pattern is invalid; the message names the file of the settings.
    """
    part = layer.split(".")[0]
    own = {key.removeprefix(f"{part}."): value for key, value in settings.items()}
    alpha = own.get("lora_alpha")
    with refusing(source, "damaged: its alpha_pattern is no table of patterns", "save the LoRA again"):
        for pattern, value in (own.get("alpha_pattern") or {}).items():
            if re.fullmatch(rf"(.*\.)?({pattern})", layer):
                alpha = value
                break
    if alpha is not None and not (type(alpha) in (int, float) and abs(alpha) < LARGEST):
        raise ValueError(f"{source} is damaged: its alpha is {shorten(repr(alpha))}, no number; save the LoRA again")
    return None if alpha is None else float(alpha)
