"""Writes an edit as a LoRA file, and says what the file leaves out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from torch import Tensor

from ..edits.deltas import apply_parts
from ..edits.edit import Edit
from ..models.base import Model
from ..plurals import write_count
from .factors import RankChoice, Residual, factor
from .formats import LoraFormat, find_exact
from .names import Stem, is_matrix, list_layers, name_stems
from .rounding import find_precision

SUFFIXES = {"lora": ("lora_A.weight", "lora_B.weight"), "kohya": ("lora_down.weight", "lora_up.weight")}
Factors = tuple[Tensor, Tensor]
"""The factors down [r, in] and up [out, r] of a weight's change."""


@final
@dataclass(frozen=True)
class Package:
    """The content of a LoRA file, and what it leaves out."""

    tensors: Mapping[str, Tensor]
    """The tensors by the file's own keys."""
    factors: Mapping[str, Factors]
    """The factors by checkpoint name, as stored."""
    exact: Mapping[str, Tensor]
    """The changes that are stored without factoring, by checkpoint name."""
    left_out: tuple[str, ...]
    """The changed weights that the format can't hold: biases, norms, embeddings."""
    residual: Residual

    @property
    def ranks(self) -> tuple[int, int]:
        """The lowest and the highest rank of a factored change; zeros where there is none."""
        found = [len(down) for down, _ in self.factors.values()]
        return (min(found), max(found)) if found else (0, 0)


def check_package(model: Model, edit: Edit, format: LoraFormat, choice: RankChoice) -> dict[str, Stem]:
    """Checks the edit before any matrix is factored; returns the names that the format gives to the model's layers.

    Raises:
        ValueError: the edit is of another base (WrongBase), the format has no names for the model, or the rank is above
            that of every matrix.
    """
    edit.check(model)
    stems, layers, base = name_stems(model, format), list_layers(model), model.weights
    changes = edit.group_changes()
    if unknown := sorted(set(changes) - set(base)):
        raise ValueError(
            f"the edit changes {unknown[0]!r}, which {model.name!r} lacks ({write_count(len(unknown), 'such name')})"
        )
    matrices = [
        name for name in changes if name.endswith(".weight") and is_matrix(layers[name.removesuffix(".weight")])
    ]
    if not matrices and format != "comfy":
        exact = "--format comfy holds exact differences, " if find_exact(model.architecture) == "comfy" else ""
        raise ValueError(
            f"the edit changes no matrix ({next(iter(changes), 'nothing')}): a LoRA could hold none of it; {exact}"
            "--format diffusers holds the whole model"
        )
    largest = max((min(base[name].flatten(1).shape) for name in matrices), default=0)
    if choice.rank is not None and choice.rank > largest:
        raise ValueError(f"--rank {choice.rank} is above every changed matrix; {largest} holds all of the change")
    return stems


@torch.no_grad()
def package(
    model: Model,
    edit: Edit,
    format: LoraFormat,
    choice: RankChoice | None = None,
    strength: float = 1.0,
    dtype: torch.dtype = torch.float32,
) -> Package:
    """Computes the tensors of a LoRA file with strength times the edit's change, at this precision.

    Low-rank changes are stored as they are, unless a lower rank is asked for; other changes are factored. `comfy` holds
    other changes exactly, unless a rank or an energy is asked for; changes of vectors it always holds exactly.
    """
    choice = choice or RankChoice()
    stems = check_package(model, edit, format, choice)
    layers, base, precision = list_layers(model), model.weights, find_precision(model, edit)
    factors: dict[str, Factors] = {}
    exact: dict[str, Tensor] = {}
    sizes: dict[str, float] = {}
    losses: dict[str, float] = {}
    for name, parts in edit.group_changes().items():
        whole = strength * compute_change(name, base[name], parts, precision)
        if not whole.any():
            continue
        layer, _, leaf = name.rpartition(".")
        matrix = leaf == "weight" and is_matrix(layers.get(layer))
        sizes[name] = float(whole.double().square().sum())
        if format == "comfy" and layer in layers and not (matrix and ("down" in parts or choice.given)):
            exact[name] = whole.to(dtype)
            losses[name] = float((exact[name].double() - whole).square().sum())
        elif matrix:
            down, up = _build_factors(parts, whole, choice, strength)
            factors[name] = down.to(dtype), up.to(dtype)
            losses[name] = float((multiply_factors(factors[name], whole) - whole).double().square().sum())
    if not sizes:
        raise ValueError("the edit changes nothing at this strength; there is nothing to write")
    left_out = tuple(name for name in sizes if name not in losses)
    tensors = _fill(stems, base, factors, exact, format)
    if format != "lora" and model.architecture in ("sd", "sdxl"):
        tensors = _pad_ranks(tensors)
    return Package(tensors, factors, exact, left_out, Residual.of(sizes, losses))


def compute_change(
    name: str, base: Tensor, parts: Mapping[str, Tensor], precision: torch.dtype = torch.float32
) -> Tensor:
    """The change of a weight [...] in fp32; of factors it is their product, not rounded by a sum with the base.

    New values that were found on the base at a `precision` are compared with the base at that precision, or its
    rounding would seem a part of the change.
    """
    if "down" in parts:
        return multiply_factors((parts["down"].to(base.device), parts["up"].to(base.device)), base)
    own = base.to(precision).float() if "" in parts else base.float()
    return apply_parts(name, base, parts).float() - own


def multiply_factors(factors: Factors, like: Tensor) -> Tensor:
    """up @ down in fp32, in the shape of `like`."""
    down, up = factors
    return (up.float() @ down.float()).reshape(like.shape)


def _build_factors(parts: Mapping[str, Tensor], whole: Tensor, choice: RankChoice, strength: float) -> Factors:
    if "down" in parts and choice.energy is None and (choice.rank is None or choice.rank >= len(parts["down"])):
        return parts["down"].to(whole.device).float(), parts["up"].to(whole.device).float() * strength
    return factor(whole, choice)


def _fill(
    stems: Mapping[str, Stem],
    base: Mapping[str, Tensor],
    factors: Mapping[str, Factors],
    exact: Mapping[str, Tensor],
    format: LoraFormat,
) -> dict[str, Tensor]:
    """The file's tensors; layers that are one layer in the file are joined."""
    out: dict[str, Tensor] = {}
    for key, stem in stems.items():
        weights = [f"{layer}.weight" for layer in stem.layers]
        biases = [f"{layer}.bias" for layer in stem.layers]
        if any(name in exact for name in weights):
            # Exact and factored changes of one matrix are summed.
            known = dict(exact) | {n: multiply_factors(factors[n], base[n]) for n in weights if n in factors}
            out[f"{key}.diff"] = _stack(weights, base, known, stem)
        elif any(name in factors for name in weights):
            out |= _join(key, weights, base, factors, stem, format)
        if any(name in exact for name in biases):
            out[f"{key}.diff_b"] = _stack(biases, base, exact, stem)
    return {name: tensor.contiguous().cpu() for name, tensor in out.items()}


def _stack(names: list[str], base: Mapping[str, Tensor], exact: Mapping[str, Tensor], stem: Stem) -> Tensor:
    like = next(exact[name] for name in names if name in exact)
    whole = torch.cat(
        [exact[name].to(like) if name in exact else torch.zeros_like(base[name]).to(like) for name in names]
    )
    return _swap(whole) if stem.swapped else whole


def _join(
    key: str,
    names: list[str],
    base: Mapping[str, Tensor],
    factors: Mapping[str, Factors],
    stem: Stem,
    format: LoraFormat,
) -> dict[str, Tensor]:
    """Stacks downs vertically and ups as a block diagonal, so that the product stacks the layers' own products."""
    held = [name for name in names if name in factors]
    down = torch.cat([factors[name][0] for name in held])
    up = down.new_zeros(sum(len(base[name]) for name in names), len(down))
    row = column = 0
    for name in names:
        if name in factors:
            own = factors[name][1]
            up[row : row + len(own), column : column + own.shape[1]] = own
            column += own.shape[1]
        row += len(base[name])
    up = _swap(up) if stem.swapped else up
    shape = base[names[0]].shape
    if len(shape) == 4:
        down, up = down.reshape(len(down), *shape[1:]), up[:, :, None, None]
    first, second = SUFFIXES["lora" if format == "lora" else "kohya"]
    named = {f"{key}.{first}": down, f"{key}.{second}": up}
    # With alpha equal to the rank the product counts once.
    return named if format == "lora" else named | {f"{key}.alpha": torch.tensor(float(len(down)))}


def _pad_ranks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Pads all factors with zeros to one rank, with one alpha.

    diffusers reads alphas of a U-Net's attention under other names than its layers have, and drops them unless they
    are all the same: a layer of another rank would be scaled wrongly.
    """
    out = dict(tensors)
    keys = [key.removesuffix(".alpha") for key in tensors if key.endswith(".alpha")]
    rank = max((len(tensors[f"{key}.lora_down.weight"]) for key in keys), default=0)
    for key in keys:
        down, up = tensors[f"{key}.lora_down.weight"], tensors[f"{key}.lora_up.weight"]
        more = rank - len(down)
        out[f"{key}.lora_down.weight"] = torch.cat([down, down.new_zeros(more, *down.shape[1:])])
        out[f"{key}.lora_up.weight"] = torch.cat([up, up.new_zeros(len(up), more, *up.shape[2:])], dim=1)
        out[f"{key}.alpha"] = torch.tensor(float(rank))
    return out


def _swap(rows: Tensor) -> Tensor:
    one, two = rows.chunk(2)
    return torch.cat([two, one])
