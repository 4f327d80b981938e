from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from efface.select import SUBSETS, select


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


def test_order_is_the_networks(sizes):
    assert select(sizes, "full") == list(sizes)


def test_nothing_selected_says_what_would_work(sizes):
    with pytest.raises(ValueError, match=r"'atn2' selects no weight; subsets that do: xattn, .*names begin with: unet"):
        select(sizes, "xattn,atn2")


@pytest.mark.parametrize("selection", ["", "xattn,", "("])
def test_malformed(sizes, selection):
    with pytest.raises(ValueError, match="xattn"):
        select(sizes, selection)


def test_subsets_never_leave_the_unet():
    names = [
        "text_encoder.text_model.attn2.weight",
        "unet.conv_in.weight",
        "unet.a.attn1.b",
        "unet.a.attn2.to_k.weight",
    ]
    chosen = {name for subset in SUBSETS for name in select(names, subset)}
    assert all(name.startswith("unet.") for name in chosen)
