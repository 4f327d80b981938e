"""Reads other tools' files as the values of an edit: LoRAs of kohya, LECO, PEFT and ComfyUI, and weights by name.

A tensor that fits nothing in the model is an error, because a file that is read in part would be another edit.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..edits.edit import Edit
from ..models.base import Model
from .checks import Check, Gap, Probe
from .lora import Package, compute_change, multiply_factors
from .names import Stem, name_all
from .rounding import is_unchanged

PARTS = {
    "lora_down.weight": "down",
    "lora_A.weight": "down",
    "lora_A.default.weight": "down",
    "lora.down.weight": "down",
    "lora_linear_layer.down.weight": "down",
    "lora_up.weight": "up",
    "lora_B.weight": "up",
    "lora_B.default.weight": "up",
    "lora.up.weight": "up",
    "lora_linear_layer.up.weight": "up",
    "alpha": "alpha",
    "diff": "diff",
    "diff_b": "diff_b",
    "w_norm": "diff",
    "b_norm": "diff_b",
}
"""Ends of keys, and what stands under them; LyCORIS calls the differences of a normalisation `w_norm` and `b_norm`."""
OTHERS = {
    **dict.fromkeys(("dora_scale", "lora_magnitude_vector", "lora_magnitude_vector.weight"), "DoRA"),
    **dict.fromkeys((f"hada_{end}" for end in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")), "LoHa"),
    **dict.fromkeys((f"lokr_{end}" for end in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b", "t2")), "LoKr"),
    "lora_mid.weight": "Tucker-decomposed LoCon",
    **dict.fromkeys(("oft_blocks", "oft_diag", "oft_R", "oft_R.weight", "boft_R", "boft_s"), "OFT"),
    **dict.fromkeys(("a1.weight", "a2.weight", "b1.weight", "b2.weight"), "GLoRA"),
    **dict.fromkeys(("ia3_l", "on_input"), "IA3"),
}
"""Ends of keys of forms that are no sum of the weight and a product of two matrices."""
ASIDE = (
    "model.diffusion_model.pos_embed",
    "first_stage_model.",
    "cond_stage_model.",
    "conditioner.",
    "model_ema.",
    "vae.",
    "denoiser.",
    "norm_final.",
    "model.diffusion_model.norm_final.",
)
"""Parts of a checkpoint in the original layout that a file of a denoiser may carry along; SD3's table of places and a
normalisation of Z-Image's that its network does not use are among them."""
_OLD_PROCESSOR = re.compile(r"\.processor\.(to_q|to_k|to_v|to_out)_lora\.(down|up)\.weight$")


def is_lora(tensors: Mapping[str, Tensor]) -> bool:
    """Whether some key is one of a LoRA, or of a form of it that can't be read."""
    return any(_split(key)[1] in ("down", "diff") or _name_other(key) for key in tensors)


def read_lora(model: Model, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The values of an edit from a LoRA file's tensors: factors, and new values where it holds differences.

    Raises:
        ValueError: a key or a shape fits no layer, parts are no pair, or the update is of another kind.
    """
    if other := sorted({kind for key in tensors if (kind := _name_other(key))}):
        raise ValueError(
            f"the file holds {other[0]}, which is no product of two matrices; merge it into a model with the tool that "
            "made it, and import that folder against its base"
        )
    spelled = name_all(model)
    groups: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        stem, part = _split(key)
        groups.setdefault(stem, {})[part or key] = tensor
    if lost := sorted(stem for stem in groups if stem not in spelled):
        raise ValueError(
            f"{len(lost)} of the file's {len(groups)} layers fit none of {model.name} ({model.architecture}), first "
            f"{lost[0]!r}; open the model that the file was made for"
        )
    values: dict[str, Tensor] = {}
    for stem, parts in groups.items():
        for name, value in _read_layer(stem, parts, spelled[stem], model.weights).items():
            if name in values:
                raise ValueError(f"two layers of the file change {name}; one of them is {stem!r}")
            values[name] = value
    return values


def read_weights(model: Model, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """New values, by checkpoint name, of the weights whose value in a file differs from the model's.

    Args:
        model: the base.
        tensors: tensors by diffusers' names, with or without the part in front, or by those of the original layout.

    Returns:
        The values, and the keys of other parts of a checkpoint, which were ignored.

    Raises:
        ValueError: a key or a shape does not fit the model.
    """
    spelled, base = name_all(model), model.weights
    known = [key for key in tensors if _find(key, spelled, base)]
    aside = [key for key in tensors if key not in set(known) and (key.startswith(ASIDE) or "." not in key)]
    lost = sorted(set(tensors) - set(known) - set(aside))
    if lost or not known:
        first = lost[0] if lost else next(iter(tensors), "")
        raise ValueError(
            f"{len(lost) or len(tensors)} of the file's {len(tensors)} tensors fit none of {model.name} "
            f"({model.architecture}), first {first!r}; open the model that the file was made for"
        )
    values: dict[str, Tensor] = {}
    for key in known:
        _require_numbers(key, tensors[key])
        for name, value in _split_rows(_find(key, spelled, base), tensors[key], base, key).items():
            if not is_unchanged(base[name], value):
                # Numbers of 8 bits, which an edit can't hold, all have an equal in bf16.
                values[name] = (value.to(torch.bfloat16) if value.itemsize == 1 else value).contiguous()
    return values, aside


def check_own(model: Model, edit: Edit, package: Package, file: Path, strength: float, probe: Probe | None) -> Check:
    """Reads an exported file back as `efface import` does, for formats that diffusers can't load.

    Raises:
        ValueError: a change of a weight is not as the file says.
    """
    from safetensors.torch import load_file

    read = Edit(read_lora(model, load_file(file)), dict(edit.meta))
    base, found = model.weights, read.group_changes()
    held = {**dict.fromkeys(package.factors), **dict.fromkeys(package.exact)}
    for name in held:
        delta, rounding = _measure_change(name, base[name], found.get(name, {"": base[name]}))
        wanted = (
            package.exact[name].float() if name in package.exact else multiply_factors(package.factors[name], delta)
        )
        if not (delta - wanted).norm() <= 1e-4 * wanted.norm() + rounding:
            raise ValueError(f"{file.name} read back makes another change of {name}")
    if spare := sorted(set(found) - set(held)):
        raise ValueError(f"{file.name} read back changes {spare[0]}, which the edit does not ({len(spare)} such)")
    gap = None
    if probe:
        with edit.apply(model, strength):
            edited = probe.draw(model)
        with read.apply(model):
            theirs = probe.draw(model)
        gap = Gap.between(theirs, edited, probe.draw(model))
    return Check("efface import, because diffusers has no loader for it", len(held), gap)


def _measure_change(name: str, base: Tensor, parts: Mapping[str, Tensor]) -> tuple[Tensor, float]:
    """The change of a weight, and the norm of its rounding error.

    A product of factors has lost no digits; a new value of the weight has, in the sum with the base.
    """
    change = compute_change(name, base, parts)
    if "down" in parts:
        return change, 0.0
    return change, torch.finfo(torch.float32).eps * float(base.detach().float().norm())


def _name_other(key: str) -> str:
    """The name of the form of update that a key belongs to, where that can't be read; else ""."""
    return next((kind for end, kind in OTHERS.items() if key.endswith(f".{end}")), "")


def _split(key: str) -> tuple[str, str]:
    """The layer of a key and the part of its change; "" where it is no key of a LoRA."""
    if found := _OLD_PROCESSOR.search(key):
        layer = "to_out.0" if found[1] == "to_out" else found[1]
        return f"{key[: found.start()]}.{layer}", found[2]
    for end, part in PARTS.items():
        if key.endswith(f".{end}"):
            return key.removesuffix(f".{end}"), part
    return key, ""


def _read_layer(key: str, parts: Mapping[str, Tensor], stem: Stem, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    pair = {"down", "up"} & set(parts)
    if pair not in (set(), {"down", "up"}) or not set(parts) <= {"down", "up", "alpha", "diff", "diff_b"}:
        raise ValueError(f"{key!r} has {', '.join(sorted(parts))}; a pair of down and up, or a diff, would have worked")
    for part, tensor in parts.items():
        _require_numbers(f"{key}.{part}", tensor)
    if pair and "diff" in parts:
        raise ValueError(f"{key!r} has factors and a difference of the same weight")
    weights, biases = ([f"{layer}.{leaf}" for layer in stem.layers] for leaf in ("weight", "bias"))
    values: dict[str, Tensor] = {}
    if pair:
        values |= _read_pair(key, parts, stem, base)
    for part, names in (("diff", weights), ("diff_b", biases)):
        if part in parts:
            if missing := [name for name in names if name not in base]:
                raise ValueError(f"{key}.{part} changes {missing[0]}, which the model lacks")
            held = _split_rows((names, stem.swapped), parts[part], base, f"{key}.{part}")
            values |= {n: base[n].detach().to(d.device).float() + d.float() for n, d in held.items() if d.any()}
    return values


def _read_pair(key: str, parts: Mapping[str, Tensor], stem: Stem, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    down, up = parts["down"].float(), parts["up"].float()
    alpha = parts.get("alpha", torch.tensor(float(len(down)) if down.dim() else 0.0))
    if min(down.dim(), up.dim()) < 2 or alpha.numel() != 1 or len(down) == 0:
        shapes = ", ".join(f"{part} {tuple(parts[part].shape)}" for part in ("down", "up", "alpha") if part in parts)
        raise ValueError(f"{key!r} has {shapes}; down [rank, in], up [out, rank] and one alpha would have worked")
    if up.dim() == 4 and up.shape[2:] != (1, 1):
        raise ValueError(f"{key!r} has an up of {tuple(up.shape)}; one of [out, rank, 1, 1] would have worked")
    down, up = down.flatten(1), up.flatten(1)
    if len(down) != up.shape[1]:
        raise ValueError(f"{key!r} has a down of rank {len(down)} and an up of rank {up.shape[1]}")
    up = up * (float(alpha) / len(down))
    names = [f"{layer}.weight" for layer in stem.layers]
    width = base[names[0]].flatten(1).shape[1] if base[names[0]].dim() > 1 else 0
    if down.shape[1] != width or len(up) != sum(len(base[name]) for name in names):
        raise ValueError(
            f"{key!r} is a product [{len(up)}, {down.shape[1]}], the model's is "
            f"[{sum(len(base[name]) for name in names)}, {width}]; open the model that the file was made for"
        )
    values: dict[str, Tensor] = {}
    for name, own in _cut_rows(names, stem.swapped, up, base).items():
        # In block-diagonal factors each layer has its own columns.
        used = own.any(dim=0)
        if used.any():
            values |= {f"{name}:down": down[used].contiguous(), f"{name}:up": own[:, used].contiguous()}
    return values


def _require_numbers(key: str, tensor: Tensor) -> None:
    """Raises ValueError where a tensor of a weight, or of its change, holds other than finite numbers."""
    if not tensor.is_floating_point() and not key.endswith(".alpha"):
        said = str(tensor.dtype).removeprefix("torch.")
        raise ValueError(
            f"{key!r} holds {said}, where floating-point numbers belong; save the file again in fp16 or fp32"
        )
    if not tensor.float().isfinite().all():
        raise ValueError(f"{key!r} holds NaN or infinite numbers; a training that went wrong may have left them")


def _find(key: str, spelled: Mapping[str, Stem], base: Mapping[str, Tensor]) -> tuple[list[str], bool] | None:
    """The weights that a tensor of this key holds, and whether its halves are swapped; None where it holds none."""
    layer, _, leaf = key.rpartition(".")
    stem = spelled.get(layer)
    if stem is None:
        bare = key.removeprefix("model.").removeprefix("diffusion_model.")
        return next((([name], False) for name in (key, f"unet.{bare}", f"transformer.{bare}") if name in base), None)
    names = [f"{own}.{'weight' if leaf == 'scale' else leaf}" for own in stem.layers]
    return (names, stem.swapped) if all(name in base for name in names) else None


def _split_rows(
    found: tuple[list[str], bool] | None, tensor: Tensor, base: Mapping[str, Tensor], key: str
) -> dict[str, Tensor]:
    """Each weight's own rows of a tensor, in the weight's shape."""
    names, swapped = found or ([], False)
    rows = sum(len(base[name]) for name in names)
    if tensor.dim() == 0 or len(tensor) != rows or tensor[0].numel() != base[names[0]][0].numel():
        shape = (rows, *base[names[0]].shape[1:])
        raise ValueError(
            f"{key!r} is {tuple(tensor.shape)}, the model's is {shape}; open the model that it was made for"
        )
    return {name: own.reshape(base[name].shape) for name, own in _cut_rows(names, swapped, tensor, base).items()}


def _cut_rows(names: list[str], swapped: bool, tensor: Tensor, base: Mapping[str, Tensor]) -> dict[str, Tensor]:
    if swapped:
        one, two = tensor.chunk(2)
        tensor = torch.cat([two, one])
    return dict(zip(names, tensor.split([len(base[name]) for name in names]), strict=True))
