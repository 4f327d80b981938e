from __future__ import annotations

import re

import pytest
import torch
from diffusers import UNet2DConditionModel

from efface.methods.advunlearn import AdvUnlearn
from efface.training.subsets import SUBSETS, select
from tiny import tiny_model
from tiny_sdxl import tiny_sdxl


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    """Parameter counts of the Stable Diffusion 1.x U-Net by name, without its memory."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
    return {f"unet.{name}": parameter.numel() for name, parameter in unet.named_parameters()}


@pytest.mark.parametrize(
    ("selection", "count"),
    [
        ("full", 859_520_964),
        ("xattn", 43_962_560),
        ("xattn-strict", 19_169_280),
        ("noxattn", 813_495_680),
        ("notime", 857_458_240),
        ("selfattn", 49_574_080),
        ("xlayer", 3_605_760),
        ("selflayer", 8_193_920),
        ("xattn-matching", 31_559_680),
        ("noxattn-layers", 815_358_084),
        (r"unet\.time_embedding\.", 2_050_560),
        (r"unet\.conv_(norm_)?out\.", 12_164),
        ("xattn,selfattn", 43_962_560 + 49_574_080),
        ("xattn, xattn-strict", 43_962_560),
    ],
)
def test_exact_counts(sizes, selection, count):
    assert sum(sizes[name] for name in select(sizes, selection)) == count


def test_the_second_releases_layers_are_found_by_their_classes(sizes):
    """As the release finds them: modules of class Linear or Conv2d without attn2 in their names."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(cross_attention_dim=768, sample_size=64, attention_head_dim=8)
    layers = {
        n: m for n, m in unet.named_modules() if type(m) in (torch.nn.Linear, torch.nn.Conv2d) and "attn2" not in n
    }
    wanted = {f"unet.{name}.{own}" for name, layer in layers.items() for own, _ in layer.named_parameters()}
    assert {*select(sizes, "noxattn-layers")} == wanted


def test_the_subsets_partition_the_network(sizes):
    rest = select(sizes, r"xattn,unet\.time_embedding\.,unet\.conv_(norm_)?out\.")
    assert sorted([*select(sizes, "noxattn"), *rest]) == sorted(sizes)


def test_blocks_are_those_that_compvis_counts(sizes):
    """By width and by depth: input_blocks 1 to 11 and output_blocks 0 to 11, three to a level."""
    blocks = {"xlayer": ("up_blocks.2.attentions.0", "up_blocks.2.attentions.2")}
    blocks |= {"selflayer": ("down_blocks.1.attentions.0", "down_blocks.2.attentions.0")}
    for subset, expected in blocks.items():
        found = dict.fromkeys(name.removeprefix("unet.").split(".transformer")[0] for name in select(sizes, subset))
        assert set(found) == set(expected)
    # Two residual layers a level and a way down after each but the last: 1, 2, (3), 4, 5, (6), 7, 8, (9), 10, 11.
    down = [f"down_blocks.{level}.attentions.{k}" for level in range(3) for k in (0, 1, None)]
    assert (down[4 - 1], down[7 - 1]) == blocks["selflayer"]
    up = [f"up_blocks.{level}.attentions.{k}" for level in range(4) for k in range(3)]
    assert (up[6], up[8]) == blocks["xlayer"]


def test_order_is_the_networks(sizes):
    assert select(sizes, "full") == list(sizes)


def test_nothing_selected_says_what_would_work(sizes):
    with pytest.raises(ValueError, match=r"'atn2' selects no weight; subsets that do: xattn, .*names begin with: unet"):
        select(sizes, "xattn,atn2")


@pytest.mark.parametrize("selection", ["", "xattn,", "("])
def test_malformed(sizes, selection):
    with pytest.raises(ValueError, match="xattn"):
        select(sizes, selection)


def test_only_the_subsets_of_text_encoders_leave_the_denoiser():
    names = [
        "unet.add_embedding.linear_1.weight",
        "transformer.caption_projection.linear_1.weight",
        "transformer.transformer_blocks.0.attn.to_q.weight",
        "transformer.transformer_blocks.0.attn.add_q_proj.weight",
        "text_encoder.text_model.attn2.weight",
        "unet.conv_in.weight",
        "unet.a.attn1.b",
        "unet.a.attn2.to_k.weight",
        "unet.up_blocks.2.attentions.0.attn2.to_k.weight",
        "unet.down_blocks.1.attentions.0.attn1.to_k.weight",
    ]
    assert select(names, "text-encoders") == ["text_encoder.text_model.attn2.weight"]
    chosen = {name for subset in SUBSETS if not subset.startswith("text-encoder") for name in select(names, subset)}
    assert all(name.startswith(("unet.", "transformer.")) for name in chosen)


def test_advunlearn_moves_no_embedding_and_no_projection():
    """Against the authors' rule: names within the text model that begin with `encoder` or `final_layer_norm`."""
    for model in (tiny_model(), tiny_sdxl()):
        parts = {name: re.sub(r"^text_encoder(_2)?\.(text_model\.)?", "", name) for name in model.weights}
        wanted = [n for n, part in parts.items() if part != n and part.startswith(("encoder", "final_layer_norm"))]
        assert select(model.weights, AdvUnlearn().weights) == wanted
        assert any(name.endswith("token_embedding.weight") for name in model.weights)
