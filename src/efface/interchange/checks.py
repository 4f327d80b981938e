"""Checks an exported file with its readers: by their loaders, by the keys that match, and by pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch
from torch import Tensor

from ..edits.edit import Edit
from ..models import consumer
from ..models.adapters import single_file
from ..models.base import Model
from ..models.loading import load
from ..plurals import write_count
from .formats import READERS, LoraFormat, suggest_others
from .lora import Package, multiply_factors

NOT_IN_FILES = ("compute", "latent_shape", "resolution", "tokens_of_t5")
"""Attributes of a model that its files do not keep, and that decide its pictures."""


@final
@dataclass(frozen=True)
class Gap:
    """The difference between an exported file's pictures and the edit's, on a scale of 255."""

    pictures: int
    largest: float
    """The largest difference of any pixel."""
    mean: float
    edit: float
    """The mean difference between the edit's pictures and the untouched base's, for comparison."""

    @staticmethod
    def between(theirs: Tensor, edited: Tensor, base: Tensor) -> Gap:
        """Computes the gap from uint8 pictures [n, 3, h, w] of the file, of the edit, and of the base."""
        off, moved = (theirs.float() - edited.float()).abs(), (edited.float() - base.float()).abs()
        return Gap(len(theirs), float(off.max()), float(off.mean()), float(moved.mean()))


@final
@dataclass(frozen=True)
class Probe:
    """The prompts and settings of the pictures to compare."""

    prompts: Sequence[str]
    steps: int
    guidance: float

    def draw(self, model: Model) -> Tensor:
        """Draws the pictures, uint8 [n, 3, side, side], by efface's own loop."""
        return model.images(self.prompts, self.list_seeds(), steps=self.steps, guidance=self.guidance)

    def draw_by(self, model: Model, pipeline: object) -> Tensor:
        """Draws the pictures, uint8 [n, 3, side, side], by the call of a copy of the model's pipeline."""
        return consumer.draw(model, pipeline, self.prompts, self.list_seeds(), self.steps, self.guidance)

    def list_seeds(self) -> list[int]:
        """The seeds, one a prompt."""
        return list(range(len(self.prompts)))


@final
@dataclass(frozen=True)
class Check:
    """The result of a check by a file's reader."""

    reader: str
    matched: int
    """Number of weights that the reader changed, each as the file says."""
    gap: Gap | None = None


def reads(model: Model, format: LoraFormat, exact: bool) -> bool:
    """Whether diffusers has a loader for such a file."""
    return not exact and READERS[format].get(model.architecture) == "load_lora_weights"


def check_lora(
    model: Model,
    edit: Edit,
    format: LoraFormat,
    package: Package,
    file: Path,
    strength: float,
    probe: Probe | None,
) -> Check:
    """Loads a LoRA file with diffusers' loader and compares every weight's change with the file's, then pictures.

    Raises:
        ValueError: the loader refuses the file, leaves out one of its weights, or changes one differently.
    """
    others = suggest_others(format, model.architecture)
    try:
        loaded = consumer.load_lora(model, file)
    except ValueError as error:
        raise ValueError(f"{error}; {others} may hold it") from error
    found = set()
    # The loader casts the factors, and multiplies them, in the model's own dtype.
    tolerance = max(1e-4, torch.finfo(model.dtype).eps)
    for name, delta in consumer.read_lora(model, loaded):
        if name not in package.factors:
            if delta.any():
                raise ValueError(f"diffusers changes {name} by {file.name}, which the edit does not")
            continue
        wanted = multiply_factors(package.factors[name], delta).to(delta.device)
        if not (delta - wanted).norm() <= tolerance * wanted.norm():
            off = float((delta - wanted).norm() / wanted.norm())
            raise ValueError(f"diffusers makes another change of {name} from {file.name}, off by {off:.1%}")
        found.add(name)
    if missing := sorted(set(package.factors) - found):
        raise ValueError(
            f"diffusers matches {len(found)} of {len(package.factors)} weights in {file.name} and leaves out "
            f"{missing[0]!r}; {others} may hold it"
        )
    gap = _compare(model, edit, strength, loaded, probe) if probe else None
    return Check(f"diffusers' {type(loaded).__name__}.load_lora_weights", len(found), gap)


def check_folder(model: Model, edit: Edit, folder: Path, strength: float, probe: Probe | None) -> Check:
    """Opens an exported folder with `from_pretrained` and compares every weight, then pictures."""
    opened = load(str(folder), str(model.device), model.dtype, compute=None)
    return _check_whole(model, edit, opened, "from_pretrained", strength, probe)


def check_single_file(model: Model, edit: Edit, file: Path, strength: float, probe: Probe | None) -> Check:
    """Opens an exported file with `from_single_file` and compares every weight, then pictures.

    The configuration and the tokenizers that such a file lacks are written beside it for the check.
    """
    configuration = consumer.write_configuration(model.pipeline, file.parent / "configuration")
    pipeline = single_file.open_file(file, str(configuration)).to(model.device, model.dtype)
    return _check_whole(model, edit, load(pipeline), "from_single_file", strength, probe)


def _check_whole(model: Model, edit: Edit, opened: Model, loader: str, strength: float, probe: Probe | None) -> Check:
    theirs = opened.weights
    with edit.apply(model, strength):
        ours = model.weights
        if other := sorted(name for name in ours if name not in theirs or not torch.equal(theirs[name], ours[name])):
            raise ValueError(
                f"{loader} reads another {other[0]} than was written ({write_count(len(other), 'such weight')})"
            )
        changed = len(edit.names)
    gap = None
    if probe:
        for kept in NOT_IN_FILES:
            if hasattr(model, kept):
                setattr(opened, kept, getattr(model, kept))
        with edit.apply(model, strength):
            edited = probe.draw(model)
        gap = Gap.between(probe.draw(opened), edited, probe.draw(model))
    return Check(f"diffusers' {type(opened.pipeline).__name__}.{loader}", changed, gap)


def _compare(model: Model, edit: Edit, strength: float, loaded: object, probe: Probe) -> Gap:
    """Draws with base, edit and file by the pipeline's own call, on copies that share the model's tensors."""
    base = probe.draw_by(model, consumer.share_pipeline(model.pipeline))
    with edit.apply(model, strength):
        edited = probe.draw_by(model, consumer.share_pipeline(model.pipeline))
    return Gap.between(probe.draw_by(model, loaded), edited, base)
