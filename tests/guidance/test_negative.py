"""Against diffusers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from efface.guidance.negative import Negative

PROMPTS, SEEDS = ["a cat", "dog", "red car"], [5, 6, 7]


@pytest.mark.parametrize("guidance", [1.0, 4.0])
def test_equals_the_pipelines_negative_prompt(model, guidance):
    with model.guided_by(Negative(prompt="tiger, lion")):
        ours = model.images(PROMPTS, SEEDS, steps=5, guidance=guidance)
    rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    theirs = model.pipeline(
        PROMPTS,
        negative_prompt=["tiger, lion"] * 3,
        num_inference_steps=5,
        guidance_scale=guidance,
        generator=rngs,
        output_type="pil",
    ).images
    assert (
        np.abs(ours.permute(0, 2, 3, 1).int().numpy() - np.stack([np.asarray(i, dtype=int) for i in theirs])).max() <= 1
    )


def test_strength_mixes_the_two_predictions(eps_model):
    """At strength s one step pushes away from (1 - s) eps_0 + s eps_n."""
    cond, uncond, negative = (eps_model.encode([text]) for text in ("cat", "", "dog"))
    plain = eps_model.sample(cond, uncond, [3], until=1).x
    with eps_model.guided_by(Negative(prompt="dog")):
        full = eps_model.sample(cond, uncond, [3], until=1).x
    with eps_model.guided_by(Negative(prompt="dog", strength=0.25)):
        part = eps_model.sample(cond, uncond, [3], until=1).x
    assert not torch.allclose(plain, full, atol=1e-3)
    assert torch.allclose(part, 0.75 * plain + 0.25 * full, atol=1e-5)
    assert len(negative) == 1
