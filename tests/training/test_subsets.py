from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from efface.training.subsets import SUBSETS, select


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
        (r"unet\.time_embedding\.", 2_050_560),
        (r"unet\.conv_(norm_)?out\.", 12_164),
        ("xattn,selfattn", 43_962_560 + 49_574_080),
        ("xattn, xattn-strict", 43_962_560),
    ],
)
def test_exact_counts(sizes, selection, count):
    assert sum(sizes[name] for name in select(sizes, selection)) == count


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


def test_only_the_subset_of_text_encoders_leaves_the_unet():
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
    chosen = {name for subset in SUBSETS if subset != "text-encoders" for name in select(names, subset)}
    assert all(name.startswith(("unet.", "transformer.")) for name in chosen)
