"""The names of SD3's, FLUX.1's, FLUX.2's and Z-Image's layers in their authors' code, which joins some of diffusers'.

FLUX.1 and FLUX.2: github.com/black-forest-labs/flux and flux2, `double_blocks`, `single_blocks`; SD3:
github.com/Stability-AI/sd3.5, `joint_blocks`; Z-Image: the published file, by diffusers' converter of it. Where
diffusers' last normalisation puts scale before shift, the original puts shift before scale.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..plurals import write_count

Named = dict[str, tuple[tuple[str, ...], bool]]
"""For each original name: diffusers' layers that it stacks, and whether its two halves are swapped."""

_FLUX_DOUBLE = {
    "img_mod.lin": ("norm1.linear",),
    "txt_mod.lin": ("norm1_context.linear",),
    "img_attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "txt_attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "img_attn.norm.query_norm": ("attn.norm_q",),
    "img_attn.norm.key_norm": ("attn.norm_k",),
    "txt_attn.norm.query_norm": ("attn.norm_added_q",),
    "txt_attn.norm.key_norm": ("attn.norm_added_k",),
    "img_attn.proj": ("attn.to_out.0",),
    "txt_attn.proj": ("attn.to_add_out",),
    "img_mlp.0": ("ff.net.0.proj",),
    "img_mlp.2": ("ff.net.2",),
    "txt_mlp.0": ("ff_context.net.0.proj",),
    "txt_mlp.2": ("ff_context.net.2",),
}
_FLUX_SINGLE = {
    "modulation.lin": ("norm.linear",),
    "linear1": ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
    "linear2": ("proj_out",),
}
_FLUX_ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_text_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_text_embed.timestep_embedder.linear_2",
    "vector_in.in_layer": "time_text_embed.text_embedder.linear_1",
    "vector_in.out_layer": "time_text_embed.text_embedder.linear_2",
    "guidance_in.in_layer": "time_text_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_text_embed.guidance_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
_FLUX2_DOUBLE = {
    **{name: parts for name, parts in _FLUX_DOUBLE.items() if "attn" in name},
    "img_mlp.0": ("ff.linear_in",),
    "img_mlp.2": ("ff.linear_out",),
    "txt_mlp.0": ("ff_context.linear_in",),
    "txt_mlp.2": ("ff_context.linear_out",),
}
_FLUX2_SINGLE = {
    "linear1": ("attn.to_qkv_mlp_proj",),
    "norm.query_norm": ("attn.norm_q",),
    "norm.key_norm": ("attn.norm_k",),
    "linear2": ("attn.to_out",),
}
_FLUX2_ENDS = {
    "img_in": "x_embedder",
    "txt_in": "context_embedder",
    "time_in.in_layer": "time_guidance_embed.timestep_embedder.linear_1",
    "time_in.out_layer": "time_guidance_embed.timestep_embedder.linear_2",
    "guidance_in.in_layer": "time_guidance_embed.guidance_embedder.linear_1",
    "guidance_in.out_layer": "time_guidance_embed.guidance_embedder.linear_2",
    "double_stream_modulation_img.lin": "double_stream_modulation_img.linear",
    "double_stream_modulation_txt.lin": "double_stream_modulation_txt.linear",
    "single_stream_modulation.lin": "single_stream_modulation.linear",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
_SD3_BLOCK = {
    "x_block.adaLN_modulation.1": ("norm1.linear",),
    "context_block.adaLN_modulation.1": ("norm1_context.linear",),
    "x_block.attn.qkv": ("attn.to_q", "attn.to_k", "attn.to_v"),
    "context_block.attn.qkv": ("attn.add_q_proj", "attn.add_k_proj", "attn.add_v_proj"),
    "x_block.attn2.qkv": ("attn2.to_q", "attn2.to_k", "attn2.to_v"),
    "x_block.attn.ln_q": ("attn.norm_q",),
    "x_block.attn.ln_k": ("attn.norm_k",),
    "context_block.attn.ln_q": ("attn.norm_added_q",),
    "context_block.attn.ln_k": ("attn.norm_added_k",),
    "x_block.attn2.ln_q": ("attn2.norm_q",),
    "x_block.attn2.ln_k": ("attn2.norm_k",),
    "x_block.attn.proj": ("attn.to_out.0",),
    "x_block.attn2.proj": ("attn2.to_out.0",),
    "context_block.attn.proj": ("attn.to_add_out",),
    "x_block.mlp.fc1": ("ff.net.0.proj",),
    "x_block.mlp.fc2": ("ff.net.2",),
    "context_block.mlp.fc1": ("ff_context.net.0.proj",),
    "context_block.mlp.fc2": ("ff_context.net.2",),
}
_SD3_ENDS = {
    "x_embedder.proj": "pos_embed.proj",
    "context_embedder": "context_embedder",
    "t_embedder.mlp.0": "time_text_embed.timestep_embedder.linear_1",
    "t_embedder.mlp.2": "time_text_embed.timestep_embedder.linear_2",
    "y_embedder.mlp.0": "time_text_embed.text_embedder.linear_1",
    "y_embedder.mlp.2": "time_text_embed.text_embedder.linear_2",
    "final_layer.adaLN_modulation.1": "norm_out.linear",
    "final_layer.linear": "proj_out",
}
_Z_IMAGE_BLOCK = {
    "attention.qkv": ("attention.to_q", "attention.to_k", "attention.to_v"),
    "attention.out": ("attention.to_out.0",),
    "attention.q_norm": ("attention.norm_q",),
    "attention.k_norm": ("attention.norm_k",),
}
_Z_IMAGE_PARTS = ("layers", "noise_refiner", "context_refiner")
_Z_IMAGE_ENDS = re.compile(r"^all_(x_embedder|final_layer)\.2-1(?=\.|$)")


def map_flux_names(layers: list[str]) -> Named:
    """Original names of FLUX.1's layers, from diffusers' names of those that a model has.

    Raises:
        ValueError: a layer has no original name.
    """
    blocks = {
        **_expand(layers, "transformer_blocks", "double_blocks", _FLUX_DOUBLE),
        **_expand(layers, "single_transformer_blocks", "single_blocks", _FLUX_SINGLE),
    }
    return _complete(layers, blocks, _FLUX_ENDS)


def map_flux2_names(layers: list[str]) -> Named:
    """Original names of FLUX.2's layers, from diffusers' names of those that a model has.

    Raises:
        ValueError: a layer has no original name.
    """
    blocks = {
        **_expand(layers, "transformer_blocks", "double_blocks", _FLUX2_DOUBLE),
        **_expand(layers, "single_transformer_blocks", "single_blocks", _FLUX2_SINGLE),
    }
    return _complete(layers, blocks, _FLUX2_ENDS)


def map_sd3_names(layers: list[str]) -> Named:
    """Original names of SD3's layers, from diffusers' names of those that a model has.

    Raises:
        ValueError: a layer has no original name.
    """
    blocks = _expand(layers, "transformer_blocks", "joint_blocks", _SD3_BLOCK)
    last = max((int(name.split(".")[1]) for name in blocks), default=0)
    # The text stream ends in the last block, whose normalisation is therefore like the final layer's.
    name = f"joint_blocks.{last}.context_block.adaLN_modulation.1"
    if name in blocks and f"transformer_blocks.{last}.ff_context.net.2" not in layers:
        blocks[name] = (blocks[name][0], True)
    return _complete(layers, blocks, _SD3_ENDS)


def map_z_image_names(layers: list[str]) -> Named:
    """Original names of Z-Image's layers, from diffusers' names of those that a model has; most are the same."""
    found: Named = {}
    for part in _Z_IMAGE_PARTS:
        found |= _expand(layers, part, part, _Z_IMAGE_BLOCK)
    held = {layer for own, _ in found.values() for layer in own}
    return found | {_Z_IMAGE_ENDS.sub(r"\1", layer): ((layer,), False) for layer in layers if layer not in held}


def _expand(layers: list[str], theirs: str, native: str, table: Mapping[str, tuple[str, ...]]) -> Named:
    """Expands the table for each block of this kind of which the model has all layers of an entry."""
    known = set(layers)
    numbers = sorted({int(m[1]) for layer in layers if (m := re.match(rf"{theirs}\.(\d+)\.", layer))})
    found: Named = {}
    for i in numbers:
        for name, parts in table.items():
            own = tuple(f"{theirs}.{i}.{part}" for part in parts)
            if known.issuperset(own):
                found[f"{native}.{i}.{name}"] = (own, False)
    return found


def _complete(layers: list[str], blocks: Named, ends: Mapping[str, str]) -> Named:
    known = set(layers)
    swap = "final_layer.adaLN_modulation.1"
    named = blocks | {name: ((layer,), name == swap) for name, layer in ends.items() if layer in known}
    if missing := known.difference(layer for own, _ in named.values() for layer in own):
        raise ValueError(
            f"{min(missing)!r} has no name in the original layout ({write_count(len(missing), 'such layer')})"
        )
    return named
