"""The embedded model, where it is there."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import efface
from efface.models import loading
from efface.models.adapters.sd import StableDiffusion

pytestmark = pytest.mark.skipif("glyphs" not in loading.list_bundled(), reason="glyphs is not bundled here")


@pytest.fixture(scope="module")
def glyphs() -> StableDiffusion:
    model = efface.load("glyphs", device="cpu", compute="own")
    assert isinstance(model, StableDiffusion)
    return model


def test_equals_the_diffusers_pipeline(glyphs):
    ours = glyphs.images(["a cat", "a rose"], [1, 2], steps=4, guidance=3.0)
    glyphs.pipeline.set_progress_bar_config(disable=True)
    rngs = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    theirs = glyphs.pipeline(
        ["a cat", "a rose"], num_inference_steps=4, guidance_scale=3.0, generator=rngs, output_type="np"
    ).images
    assert ours.shape == (2, 3, 64, 64)
    assert np.abs(ours.permute(0, 2, 3, 1).numpy() - (theirs * 255).round()).max() <= 1


@pytest.mark.parametrize("method", ["esd", "eap"])
def test_it_can_be_erased_from(glyphs, method):
    assert glyphs.list_words(5)
    edit = efface.erase(glyphs, "cat", method=method, steps=1, batch=2, paths=2, draw_steps=2)
    before = glyphs.images(["a cat"], [0], steps=2)
    with edit.apply(glyphs):
        assert not torch.equal(glyphs.images(["a cat"], [0], steps=2), before)
    assert torch.equal(glyphs.images(["a cat"], [0], steps=2), before)
