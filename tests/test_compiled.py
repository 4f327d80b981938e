"""A compiled network; apart from the rest, for a compiler takes its time."""

from __future__ import annotations

import torch
from diffusers import UNet2DConditionModel

import efface
from efface.concept import Erasure
from efface.methods.esd import ESD
from tiny import tiny_pipeline

QUICK = {"steps": 2, "batch": 2, "draw_steps": 3, "lr": 1e-3, "paths": 2, "source": "frozen", "weights": "noxattn"}


def test_a_compiled_network_says_and_learns_the_same(monkeypatch):
    """Traced, with the student's weights swapped in by reference: masters of one turn are not baked in for the next.

    In fp32 it differs by the order of sums: by 1e-5 of a prediction, by a level or none of a picture.
    """
    inner = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **k: inner(call, backend="aot_eager", **k))
    torch._dynamo.reset()
    plain, traced = (efface.load(small_pipeline(), "cpu", compile=compile) for compile in (False, True))
    one, two = (ESD(**QUICK).fit(model, Erasure(("cat",))) for model in (plain, traced))
    base = plain.weights
    for name, value in one.values.items():
        moved = (value - base[name]).norm()
        assert (two.values[name] - value).norm() <= 0.05 * moved + 1e-7, name
    found = []
    for model, edit in ((plain, one), (traced, two)):
        pictures = [model.images(["a cat", "a dog"], [1, 2], steps=2)]
        with edit.apply(model):
            pictures.append(model.images(["a cat", "a dog"], [1, 2], steps=2))
        found.append(pictures)
    assert not torch.equal(*found[1])
    for eager, compiled in zip(*found, strict=True):
        assert (eager.int() - compiled.int()).abs().max() <= 1


def small_pipeline():
    """Of one level, for a compiler takes long to read a network."""
    made = tiny_pipeline()
    blocks = {"down_block_types": ("CrossAttnDownBlock2D",), "up_block_types": ("CrossAttnUpBlock2D",)}
    config = {**made.unet.config, **blocks, "block_out_channels": (8,), "mid_block_type": None}
    torch.manual_seed(0)
    made.unet = UNet2DConditionModel.from_config(config)
    return made
