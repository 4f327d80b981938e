"""Against diffusers' pipeline of the same name, and in every space against the paper's equations."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from diffusers.pipelines.deprecated.stable_diffusion_safe import SafetyConfig, StableDiffusionPipelineSafe

from efface.functional.schedules import NoiseLevel
from efface.guidance.sld import SLD
from efface.methods.sld import LEVELS
from efface.models.adapters.sd import StableDiffusion
from tiny import tiny_model

PROMPTS, SEEDS, STEPS, GUIDANCE = ["a cat", "dog", "red car"], [5, 6, 7], 12, 4.0


def compute_theirs(model: StableDiffusion, concept: str, **settings: float) -> np.ndarray:
    parts = {name: getattr(model.pipeline, name) for name in ("vae", "text_encoder", "tokenizer", "unet")}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        pipeline = StableDiffusionPipelineSafe(
            **parts,
            scheduler=model.build_scheduler(),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        )
        pipeline.set_progress_bar_config(disable=True)
        pipeline.safety_concept = concept
        rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
        return pipeline(
            PROMPTS,
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE,
            generator=rngs,
            output_type="np",
            **{f"sld_{name}": value for name, value in settings.items()},
        ).images


@pytest.mark.parametrize("level", LEVELS)
def test_equals_the_safe_pipeline(eps_model, level):
    guide = SLD(prompt="cat", **LEVELS[level])
    with eps_model.guided_by(guide):
        ours = eps_model.images(PROMPTS, SEEDS, steps=STEPS, guidance=GUIDANCE)
    named = {
        "warmup_steps": guide.warm_up,
        "guidance_scale": guide.scale,
        "threshold": guide.threshold,
        "momentum_scale": guide.momentum_scale,
        "mom_beta": guide.momentum_beta,
    }
    reference = (compute_theirs(eps_model, "cat", **named) * 255).round().astype(int)
    assert np.abs(ours.permute(0, 2, 3, 1).int().numpy() - reference).max() <= 1
    plain = eps_model.images(PROMPTS, SEEDS, steps=STEPS, guidance=GUIDANCE)
    assert torch.equal(plain, ours) == (guide.warm_up >= STEPS)


def test_levels_are_those_of_the_library_but_for_its_weak_scale():
    names = ("warmup_steps", "guidance_scale", "threshold", "momentum_scale", "mom_beta")
    for level, ours in LEVELS.items():
        reference = [getattr(SafetyConfig, level.upper())[f"sld_{name}"] for name in names]
        if level == "weak":
            assert reference[1] == 20
            reference[1] = 200
        assert list(ours.values()) == reference


@pytest.mark.parametrize("space", ["epsilon", "v_prediction", "sample"])
def test_in_every_space_it_is_the_papers_formula_on_noise(space):
    """Three steps by hand: predictions said as noise, the paper's equations, and DDIM's own formula."""
    from tiny import tiny_model

    model = tiny_model(space)
    guide = SLD(prompt="dog", warm_up=1, scale=3.0, threshold=0.02, momentum_scale=0.4, momentum_beta=0.6, strength=0.7)
    with model.guided_by(guide):
        ours = model.sample(
            model.encode(["a cat"]), model.encode([""]), [3], steps=3, guidance=GUIDANCE, sampler="ddim"
        ).x

    scheduler = model.build_scheduler("ddim")
    scheduler.set_timesteps(3)
    bars = scheduler.alphas_cumprod.double()
    x = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(3)).double()
    tokens = torch.cat([model.encode([text]).tokens for text in ("", "a cat", "dog")])
    nu = torch.zeros_like(x)
    for i, t in enumerate(scheduler.timesteps):
        with torch.no_grad():
            said = model.unet(x.float().repeat(3, 1, 1, 1), t, tokens).sample.double()
        a, s = bars[t].sqrt(), (1 - bars[t]).sqrt()
        noise = {"epsilon": said, "v_prediction": a * said + s * x, "sample": (x - a * said) / s}[space]
        empty, prompt, unsafe = noise.chunk(3)
        near = (prompt - unsafe < 0.02).double()
        gamma = near * torch.minimum((3.0 * (prompt - unsafe)).abs(), torch.tensor(1.0)) * (unsafe - empty) + 0.4 * nu
        nu = 0.6 * nu + 0.4 * gamma
        eps = empty + GUIDANCE * (prompt - empty - (0.7 * gamma if i >= 1 else 0))
        before = t - scheduler.config.num_train_timesteps // 3
        b = bars[before] if before >= 0 else scheduler.final_alpha_cumprod.double()
        x = b.sqrt() * (x - s * eps) / a + (1 - b).sqrt() * eps
    assert torch.allclose(ours.double(), x, rtol=1e-3, atol=1e-3)


def test_at_pure_noise_nothing_is_pushed():
    """Zero terminal signal-to-noise: predictions of noise cannot differ there, and nothing becomes infinite.

    A model that predicts noise cannot have it.
    """
    model = tiny_model("v_prediction")
    guide = SLD(prompt="dog", warm_up=0, scale=5000.0, threshold=1.0, momentum_scale=0.5, momentum_beta=0.7)
    bars = model.levels.alpha.square()
    bars[-1] = 1e-300
    model.levels = NoiseLevel.from_alpha_bar(bars)
    cond, uncond = model.encode(["a cat"]), model.encode([""])
    walk = guide.begin(model, cond, uncond, 4.0)
    x = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    said = dict(zip(walk.list_conds(0), model.predict(x, 999, *walk.list_conds(0)), strict=True))
    out = walk.combine(0, x, torch.tensor(999), said)
    assert torch.equal(out, said[uncond] + 4.0 * (said[cond] - said[uncond]))
