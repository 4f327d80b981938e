"""Segmenters: a CLIPSeg of its own classes, functions by their path, and what cannot be one."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from transformers import CLIPSegConfig, CLIPSegForImageSegmentation, ViTImageProcessorPil

from efface.models.segmenter import measure_shares, open_segmenter
from tiny import tiny_pipeline

CPU = torch.device("cpu")


def draw_pictures(n: int = 3) -> torch.Tensor:
    return torch.randint(256, (n, 3, 48, 48), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def clipseg(tmp_path):
    """A tiny random CLIPSeg in a folder, with its tokenizer and processor."""
    torch.manual_seed(0)
    tokenizer = tiny_pipeline().tokenizer
    small = {"hidden_size": 32, "intermediate_size": 32, "num_attention_heads": 2}
    ids = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
    config = CLIPSegConfig(
        text_config={
            **small,
            **ids,
            "pad_token_id": tokenizer.pad_token_id,
            "num_hidden_layers": 1,
            "vocab_size": len(tokenizer),
            "max_position_embeddings": tokenizer.model_max_length,
        },
        vision_config={**small, "num_hidden_layers": 3, "image_size": 64, "patch_size": 16},
        projection_dim=16,
        reduce_dim=16,
        extract_layers=[0, 1, 2],
        decoder_num_attention_heads=2,
        decoder_intermediate_size=32,
    )
    network = CLIPSegForImageSegmentation(config).eval()
    processor = ViTImageProcessorPil(size={"height": 64, "width": 64})
    for part in (network, tokenizer, processor):
        part.save_pretrained(tmp_path)
    return tmp_path, network, tokenizer, processor


def test_clipseg_against_its_own_class(clipseg):
    folder, network, tokenizer, processor = clipseg
    seen = draw_pictures()
    said = measure_shares(open_segmenter(str(folder), CPU), seen, "red dog")
    assert said.shape == (3, 48, 48)
    assert said.std() > 0
    for i in range(3):
        words = tokenizer(["red dog"], return_tensors="pt")
        pixels = processor(images=seen[i].permute(1, 2, 0).numpy(), return_tensors="pt")["pixel_values"]
        with torch.no_grad():
            by_hand = network(**words, pixel_values=pixels).logits.sigmoid().reshape(1, 1, 64, 64)
        near = torch.nn.functional.interpolate(by_hand, (48, 48), mode="bilinear")[0, 0]
        assert torch.allclose(said[i], near, atol=1e-5)


def test_a_function_by_its_path(monkeypatch):
    module = ModuleType("my_segments")
    module.bright = lambda seen, thing: seen.float().mean(dim=1) > (99 if thing == "cat" else 300)
    module.flat = lambda seen, thing: torch.zeros(len(seen), 4, 4)
    module.loud = lambda seen, thing: seen.float().mean(dim=1)
    module.number = 3
    monkeypatch.setitem(sys.modules, "my_segments", module)
    seen = draw_pictures()
    found = open_segmenter("my_segments:bright", CPU)
    assert torch.equal(measure_shares(found, seen, "cat"), (seen.float().mean(dim=1) > 99).float())
    assert not measure_shares(found, seen, "dog").any()
    with pytest.raises(ValueError, match=r"one number for each pixel, \(3, 48, 48\); this one gave \(3, 4, 4\)"):
        measure_shares(open_segmenter("my_segments:flat", CPU), seen, "cat")
    with pytest.raises(ValueError, match=r"shares from 0 to 1, or True and False; this one gave .* to 2"):
        measure_shares(open_segmenter("my_segments:loud", CPU), seen, "cat")
    with pytest.raises(ValueError, match="is a int, not a function"):
        open_segmenter("my_segments:number", CPU)


@pytest.mark.parametrize("name", ["no_such_module:f", "math:no_such", "math:", ":f", "/no/such/folder"])
def test_what_is_no_segmenter(name):
    with pytest.raises(ValueError, match=f"no segmenter '{name}'.*module:function"):
        open_segmenter(name, CPU)


def test_a_model_of_another_kind_is_refused(tmp_path):
    tiny_pipeline().text_encoder.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"holds a clip_text_model; a CLIPSeg"):
        open_segmenter(str(tmp_path), CPU)
