"""What changes a network's answers and lies in none of its weights: no fingerprint, edit or export would tell of it."""

from __future__ import annotations

from typing import Any

from torch import nn

LIBRARIES = ("diffusers", "transformers", "torch", "accelerate", "efface")
"""Packages whose modules and hooks are part of a network as it is published."""
QUANTISERS = ("torchao", "optimum", "bitsandbytes", "hqq")
"""Packages whose tensors are packed, whatever dtype they say that they have."""
FREEU = ("s1", "s2", "b1", "b2")
"""What FreeU sets in the upward blocks of a U-Net."""
ALTERING = ("PAG", "CustomDiffusion")
"""Names in diffusers' own attention processors that answer otherwise than the plain ones."""


def check_alterations(name: str, part: str, module: nn.Module) -> None:
    """Raises ValueError for a part of the pipeline `name` whose answers differ from those that its weights give."""
    for key, each in module.named_modules():
        _check_classes(name, part, key, each)
        if any(getattr(each, factor, None) is not None for factor in FREEU) and hasattr(each, "resnets"):
            raise ValueError(
                f"{part} of {name} is drawn with FreeU, which lies in no weight; call pipe.disable_freeu() first"
            )
        _check_calls(name, part, key, each)
    packed = any(_name_library(kind) in QUANTISERS for p in module.parameters() for kind in (type(p), type(p.data)))
    if packed or getattr(module, "hf_quantizer", None) is not None:
        raise ValueError(
            f"{part} of {name} holds quantized weights, which can't be edited; open the pipeline in fp32, fp16 or "
            "bf16, or its folder with efface.load(folder, quantise=4)"
        )


def _check_classes(name: str, part: str, key: str, module: nn.Module) -> None:
    """Layers and attention processors are those of the libraries."""
    processor = type(getattr(module, "processor", None) or nn.Identity())
    plain = processor is nn.Identity or processor.__module__.startswith("diffusers.models.")
    if not plain or any(word in processor.__name__ for word in ALTERING):
        raise ValueError(
            f"{part} of {name} has an attention processor of another kind ({processor.__name__}), which no export "
            f"would hold; call pipe.{part}.set_default_attn_processor(), or open the pipeline anew"
        )
    kind = type(module)
    if _name_library(kind) not in LIBRARIES:
        raise ValueError(
            f"{part} of {name} has a layer of a class from elsewhere ({kind.__module__}.{kind.__name__}, "
            f"{key or part}), which no export would hold; undo what put it there, or open the pipeline anew"
        )


def _check_calls(name: str, part: str, key: str, module: nn.Module) -> None:
    """A layer is called as its class says, and nobody's hook stands before or behind it."""
    own = module.__dict__.get("forward")
    if own is not None and getattr(own, "__func__", None) is not type(module).forward:
        raise ValueError(
            f"{part} of {name} has another forward than its class in {key or part} (a patch such as DeepCache's); undo "
            "it, or open the pipeline anew"
        )
    hooks: list[Any] = [*module._forward_hooks.values(), *module._forward_pre_hooks.values()]
    if foreign := [hook for hook in hooks if _name_library(hook) not in LIBRARIES]:
        raise ValueError(
            f"{part} of {name} has a hook in {key or part} ({getattr(foreign[0], '__name__', 'of no name')}), which "
            "may change what it answers; call remove() of the handle that register_forward_hook gave"
        )


def _name_library(thing: Any) -> str:
    return str(getattr(thing, "__module__", None) or type(thing).__module__).partition(".")[0]
