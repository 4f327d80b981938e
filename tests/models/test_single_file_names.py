"""Names in single-file checkpoints: those of the real networks, against diffusers' own converters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import (
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from efface.models.adapters import single_file

CROSS, CROSS_UP = "CrossAttnDownBlock2D", "CrossAttnUpBlock2D"
REAL: dict[str, tuple[dict[str, Any], int]] = {
    "1.x": ({"cross_attention_dim": 768, "sample_size": 64, "attention_head_dim": 8}, 686),
    "2.x": (
        {
            "cross_attention_dim": 1024,
            "sample_size": 96,
            "attention_head_dim": (5, 10, 20, 20),
            "use_linear_projection": True,
        },
        686,
    ),
    "XL": (
        {
            "sample_size": 128,
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", CROSS, CROSS),
            "up_block_types": (CROSS_UP, CROSS_UP, "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "attention_head_dim": (5, 10, 20),
            "use_linear_projection": True,
            "cross_attention_dim": 2048,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        },
        1680,
    ),
}


@pytest.mark.parametrize("version", REAL)
def test_the_names_of_the_real_unets_are_complete_and_unique(version):
    config, count = REAL[version]
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    tensors = unet.state_dict()
    names = single_file.map_unet_names(tensors, 2)
    assert len(names) == len(set(names.values())) == count
    file = {f"model.diffusion_model.{names[name]}": tensor for name, tensor in tensors.items()}
    back = convert_ldm_unet_checkpoint(file, dict(unet.config))
    assert {name: t.shape for name, t in back.items()} == {name: t.shape for name, t in tensors.items()}


def test_some_names_that_everyone_knows():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**REAL["1.x"][0])
    names = single_file.map_unet_names(unet.state_dict(), 2)
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in unet.state_dict().items()}
    assert shapes["input_blocks.0.0.weight"] == (320, 4, 3, 3)
    assert shapes["input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"] == (320, 768)
    assert shapes["input_blocks.4.0.skip_connection.weight"] == (640, 320, 1, 1)
    assert shapes["input_blocks.9.0.op.weight"] == (1280, 1280, 3, 3)
    assert shapes["middle_block.1.proj_in.weight"] == (1280, 1280, 1, 1)
    assert shapes["output_blocks.2.1.conv.weight"] == (1280, 1280, 3, 3)
    assert shapes["output_blocks.8.2.conv.weight"] == (640, 640, 3, 3)
    assert shapes["output_blocks.11.0.skip_connection.weight"] == (320, 640, 1, 1)
    assert shapes["output_blocks.11.1.transformer_blocks.0.norm1.bias"] == (320,)
    assert shapes["out.2.weight"] == (4, 320, 3, 3)
    assert not any(name.startswith(("input_blocks.12", "output_blocks.12", "input_blocks.10.1")) for name in shapes)


def test_the_names_of_the_real_autoencoder():
    with torch.device("meta"):
        vae = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    tensors = vae.state_dict()
    names = {name: single_file.name_in_vae(name, 4) for name in tensors}
    assert len(set(names.values())) == len(tensors) == 248
    shapes = {names[name]: tuple(tensor.shape) for name, tensor in tensors.items()}
    assert shapes["encoder.down.1.block.0.nin_shortcut.weight"] == (256, 128, 1, 1)
    assert shapes["decoder.up.3.upsample.conv.weight"] == (512, 512, 3, 3)
    assert "decoder.up.0.upsample.conv.weight" not in shapes and "encoder.down.3.downsample.conv.weight" not in shapes
    file = {f"first_stage_model.{names[name]}": tensor for name, tensor in tensors.items()}
    back = convert_ldm_vae_checkpoint(file, dict(vae.config))
    assert {name: t.shape for name, t in back.items()} == {name: t.shape for name, t in tensors.items()}


def test_the_names_of_the_real_open_clip():
    config = CLIPTextConfig(
        hidden_size=1280, intermediate_size=5120, num_hidden_layers=32, num_attention_heads=20, projection_dim=1280
    )
    with torch.device("meta"):
        encoder = CLIPTextModelWithProjection(config)
    tensors = encoder.state_dict()
    file = single_file.open_clip(tensors)
    assert file["transformer.resblocks.31.attn.in_proj_weight"].shape == (3 * 1280, 1280)
    assert file["positional_embedding"].shape == (77, 1280)
    assert len(file) == 32 * 12 + 5
    back = convert_open_clip_checkpoint(encoder, {f"x.{name}": t for name, t in file.items()}, prefix="x.")
    assert {name: t.shape for name, t in back.items()} == {name: t.shape for name, t in tensors.items()}


@pytest.mark.parametrize("name", ["class_embedding.weight", "down_blocks.0.resnets.0.norm3.weight", "mid_block.x.bias"])
def test_what_has_no_original_name_is_refused(name):
    with pytest.raises(ValueError, match="has no name in the original layout"):
        single_file.map_unet_names([name], 2)
    with pytest.raises(ValueError, match="has no name in the original layout"):
        single_file.name_in_vae(f"encoder.{name}", 4)
    with pytest.raises(ValueError, match="has no name in the original layout"):
        single_file.open_clip({name: torch.zeros(1)})
