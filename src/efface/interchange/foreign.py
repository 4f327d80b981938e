"""Opens the results of other tools: weights by name, a LoRA, a denoiser's folder, or a whole model."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..edits.integrity import check_meta
from ..files import describe_missing, hash_file, naming, read_json
from ..files.tensors import read_pickle
from ..models import consumer
from ..models.adapters import single_file
from ..models.base import Model
from ..models.loading import RECORD, load
from ..models.opening.claims import V_PREDICTION
from ..models.opening.stored import SHARD, check_whole, choose_weights, list_files
from ..plurals import write_count
from .alphas import add_alphas, parse_table, require_table
from .reading import is_lora, read_lora, read_weights
from .rounding import is_unchanged

PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
WRAPPERS = ("state_dict", "unet", "transformer", "model", "params")
"""Keys under which a pickle may hold the tensors."""
LORA_NAMES = ("pytorch_lora_weights.safetensors", "adapter_model.safetensors")
"""The names that diffusers and PEFT give to a LoRA's file in its folder."""


SCALES = ("scaling_factor", "shift_factor", "latents_mean", "latents_std")
"""The settings by which an autoencoder's latents are scaled."""
SPOKEN = {"eps": "noise", "v": "v", "x0": "the picture", "flow": "a flow's velocity"}


@final
@dataclass(frozen=True)
class Foreign:
    """The change of a model that a file or folder of another tool holds."""

    values: Mapping[str, Tensor]
    """The values of an edit."""
    layout: str
    """The kind of file: "LoRA", "weights", "folder" or "single file"."""
    digest: str
    """The sha256 of the file; for a folder, that of the one file that was read, or "" where it read several."""
    aside: tuple[str, ...] = ()
    """Other parts of a checkpoint or model, which an edit can't hold."""
    record: Mapping[str, Any] | None = None
    """The record of the edit, if efface exported the file."""


@final
@dataclass(frozen=True)
class Source:
    """A file or folder of another tool, opened without the model that it was made for."""

    place: Path
    """The file that was read, or the folder of a whole pipeline or of a file in several parts."""
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
        files = _find_files(place)
        if files is None:
            return Source(place, None, {}, _read_record(place / RECORD))
        return _open_file(files[0], unpickle) if len(files) == 1 else _open_shards(place, files, unpickle)
    if place.is_file():
        if SHARD.search(place.name):
            raise ValueError(
                f"{place} is one of several files of a model; {place.parent}, which holds all, would have worked"
            )
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


def _find_files(place: Path) -> list[Path] | None:
    """The file of weights in a folder, or all its parts where it is split; None for the folder of a whole pipeline."""
    if (place / "model_index.json").is_file():
        return None
    for name in LORA_NAMES:
        if (place / name).is_file():
            return [place / name]
    with suppress(ValueError):  # of several variants none is plain
        if weights := choose_weights([file.name for file in place.iterdir()], str(place)):
            return list_files(place, weights)
    held = sorted(file for file in place.iterdir() if file.suffix in (".safetensors", *PICKLES))
    if len(held) != 1:
        raise ValueError(
            f"{place} holds {write_count(len(held), 'file')} of weights and no model_index.json; a diffusers folder, "
            "or the name of "
            "one file, would have worked"
        )
    return held


def _open_shards(place: Path, files: Sequence[Path], unpickle: bool) -> Source:
    """Opens all parts of a model that its folder's index lists."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        check_whole(file)
        tensors |= _open_file(file, unpickle).tensors or {}
    return Source(place, tensors, {}, None)


def _read_record(file: Path) -> dict[str, Any] | None:
    """The record of the edit that an exported folder contains; None where there is none."""
    held = read_json(file) if file.is_file() else {}
    return _check_record(require_table(held, str(file)).get("edit"), str(file))


def _check_record(record: Any, what: str) -> dict[str, Any] | None:
    try:
        if record is not None:
            check_meta(require_table(record, f"{what}: its record of the edit"))
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
    about = parse_table(header.get("efface", "{}"), f"{file}: its metadata")
    if about.get("kind") == "edit":
        raise ValueError(f"{file} is an edit of efface already; give it to --edit as it is")
    return Source(file, tensors, header, _check_record(about.get("edit"), str(file)))


def _fit_folder(model: Model, source: Source) -> Foreign:
    opened = load(str(source.place), "cpu", torch.float32)
    values = compare_models(model, opened)
    return Foreign(values, "folder", "", _list_aside(model, opened), source.record)


def _fit_file(model: Model, source: Source, tensors: Mapping[str, Tensor]) -> Foreign:
    file, record = source.place, source.record
    digest = hash_file(file) if file.is_file() else ""
    if is_lora(tensors):
        named = add_alphas(tensors, source.header, file)
        with naming(file):
            return Foreign(read_lora(model, named), "LoRA", digest, record=record)
    if all(any(key.startswith(prefix) for key in tensors) for prefix in (single_file.UNET, single_file.VAE)):
        opened = _open_checkpoint(model, file)
        if opened is not None:
            return Foreign(compare_models(model, opened), "single file", digest, _list_aside(model, opened), record)
    if V_PREDICTION in tensors and model.space != "v":
        raise ValueError(
            f"{file} says by its key {V_PREDICTION} that its network predicts v, and {model.name} predicts "
            f"{SPOKEN[model.space]}: on this base its weights would draw nothing; open the base that it was made from"
        )
    with naming(file):
        values, aside = read_weights(model, tensors)
    return Foreign(values, "weights", digest, tuple(aside), record)


def compare_models(base: Model, other: Model) -> dict[str, Tensor]:
    """The weights of another model that differ from the base's by more than a rounding, by checkpoint name.

    Raises:
        ValueError: the models are of different architectures or sizes, or predict in different spaces.
    """
    ours, theirs = base.weights, other.weights
    fits = ours.keys() == theirs.keys() and all(ours[n].shape == theirs[n].shape for n in ours)
    if base.architecture != other.architecture or not fits:
        raise ValueError(
            f"{other.name} ({other.architecture}) is no fine-tuned {base.name} ({base.architecture}): "
            "their weights differ in names or shapes"
        )
    if base.space != other.space:
        raise ValueError(
            f"{other.name} predicts {SPOKEN[other.space]} by its scheduler, and {base.name} {SPOKEN[base.space]}: an "
            "edit can't hold that, and on this base the weights would draw nothing; open a base whose "
            f"scheduler_config.json says the same (prediction_type)"
        )
    return {n: t.detach().cpu().clone() for n, t in theirs.items() if not is_unchanged(ours[n], t)}


def _list_aside(base: Model, other: Model) -> tuple[str, ...]:
    """The parts of another model that decide its pictures and differ from the base's, and that no edit can hold."""
    decoder = () if _has_same_decoder(base, other) else ("vae",)
    ours, theirs = base.levels, other.levels
    same = len(ours) == len(theirs) and torch.allclose(ours.alpha, theirs.alpha, rtol=1e-4, atol=1e-6)
    return decoder if same else (*decoder, "scheduler")


def _has_same_decoder(base: Model, other: Model) -> bool:
    """Whether two models' autoencoders are the same, apart from a rounding to half precision."""
    if base.hash_decoder() == other.hash_decoder():
        return True
    ours, theirs = (getattr(model.pipeline, "vae", None) for model in (base, other))
    if ours is None or theirs is None or any(ours.config.get(key) != theirs.config.get(key) for key in SCALES):
        return False
    one, two = ours.state_dict(), theirs.state_dict()
    fits = one.keys() == two.keys() and all(one[name].shape == two[name].shape for name in one)
    return fits and all(is_unchanged(one[name], two[name]) for name in one)


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
