"""DDIM inversion: each step against diffusers' scheduler, the whole way against the way back."""

from __future__ import annotations

from typing import Any, get_args

import pytest
import torch
from diffusers import DDIMScheduler

from efface.functional.inversion import ddim_step, ddim_unstep
from efface.functional.schedules import Space
from efface.models.base import Model
from efface.models.inversion import invert, redraw
from efface.models.sd import SPACES
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("predicts", SPACES)
def test_a_step_is_that_of_diffusers(predicts: str) -> None:
    scheduler: Any = DDIMScheduler(prediction_type=predicts, clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(10)
    bars = scheduler.alphas_cumprod
    x, said = randn(2, 4, 3, 3).double(), randn(2, 4, 3, 3, seed=1).double()
    for i, t in enumerate(scheduler.timesteps):
        b = bars[scheduler.timesteps[i + 1]] if i < 9 else scheduler.final_alpha_cumprod
        ours = ddim_step(x, said, bars[t].expand(2), b.expand(2), SPACES[predicts])
        torch.testing.assert_close(ours, scheduler.step(said, t, x).prev_sample, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("space", get_args(Space))
def test_an_unstep_undoes_a_step(space: Space) -> None:
    x, said = randn(3, 4, 2, 2).double(), randn(3, 4, 2, 2, seed=1).double()
    a, b = torch.tensor([0.01, 0.3, 0.9]).double(), torch.tensor([0.2, 0.35, 0.999]).double()
    there = ddim_step(x, said, a, b, space)
    torch.testing.assert_close(ddim_unstep(there, said, a, b, space), x)


@pytest.fixture(params=["sd-eps", "sd-v", "sdxl", "ddpm"])
def any_model(request: pytest.FixtureRequest) -> Model:
    made = {
        "sd-eps": lambda: tiny_model("epsilon"),
        "sd-v": lambda: tiny_model("v_prediction"),
        "sdxl": tiny_sdxl,
        "ddpm": tiny_ddpm,
    }
    return made[request.param]()


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_redrawing_is_what_the_loop_of_diffusers_schedulers_draws(any_model: Model, guidance: float) -> None:
    if any_model.architecture == "ddpm":
        pytest.skip("its own schedule clips x0, which cannot be undone")
    cond, uncond = any_model.encode(["cat"]), any_model.encode([""])
    rng = torch.Generator().manual_seed(5)
    noise = torch.randn((1, *any_model.latent_shape), generator=rng)
    drawn = any_model.sample(cond, uncond, [5], steps=7, guidance=guidance, sampler="ddim").x
    torch.testing.assert_close(
        redraw(any_model, noise, cond, uncond, steps=7, guidance=guidance), drawn, rtol=1e-3, atol=1e-4
    )


def far(model: Model, latents: torch.Tensor, steps: int, refine: int = 0) -> float:
    """Relative distance of the latents from what inversion and drawing again make of them."""
    cond, uncond = model.encode(["cat"]), model.encode([""])
    noise = invert(model, latents, cond, uncond, steps=steps, refine=refine)
    back = redraw(model, noise, cond, uncond, steps=steps, guidance=1.0)
    return float((back - latents).norm() / latents.norm())


@pytest.mark.parametrize(("prediction", "steps"), [("epsilon", 80), ("v_prediction", 10)])
def test_there_and_back_is_the_same_picture_the_nearer_the_more_steps(prediction: Any, steps: int) -> None:
    model = tiny_model(prediction)
    # Scaled as a trained autoencoder's are: those of a random one are nearly zero.
    latents = model.latents((randn(1, 3, 16, 16) * 60 + 128).clamp(0, 255).to(torch.uint8))
    latents = latents / latents.std()
    few, many = far(model, latents, steps), far(model, latents, 2 * steps)
    # First order: half the step, about half the error.
    assert 1.7 < few / many < 2.3
    assert many < 0.1
    assert far(model, latents, 10, refine=4) < far(model, latents, 10) / 4


def test_a_model_that_forgets_where_it_came_from_is_refused() -> None:
    model = tiny_model()
    model.space = "x0"
    model.pipeline.scheduler.register_to_config(set_alpha_to_one=True)
    cond = model.encode(["cat"])
    with pytest.raises(ValueError, match="no way back"):
        invert(model, randn(1, 4, 8, 8), cond, cond, steps=3)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        redraw(model, randn(1, 4, 8, 8), cond, cond, steps=0, guidance=1.0)
