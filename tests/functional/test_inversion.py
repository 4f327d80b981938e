"""DDIM inversion: each step against diffusers' scheduler, the whole way against the way back."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from efface.functional.inversion import ddim_unstep
from efface.functional.schedules import NoiseLevel
from efface.models.base import Model
from efface.models.ddim_inversion import invert, redraw
from efface.models.schedule import SPACES
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl


def draw_noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("predicts", SPACES)
def test_an_unstep_undoes_a_step_of_diffusers(predicts: str) -> None:
    scheduler: Any = DDIMScheduler(prediction_type=predicts, clip_sample=False, set_alpha_to_one=False)
    scheduler.set_timesteps(10)
    bars = scheduler.alphas_cumprod.double()
    x, said = draw_noise(2, 4, 3, 3).double(), draw_noise(2, 4, 3, 3, seed=1).double()
    for i, t in enumerate(scheduler.timesteps):
        b = bars[scheduler.timesteps[i + 1]] if i < 9 else scheduler.final_alpha_cumprod
        there = scheduler.step(said, t, x).prev_sample
        start, end = (NoiseLevel.from_alpha_bar(each.double().expand(2)) for each in (bars[t], b))
        back = ddim_unstep(there, said, start, end, SPACES[predicts])
        torch.testing.assert_close(back, x, rtol=1e-5, atol=1e-5)


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
def test_redrawing_is_ddim_by_hand_which_clips_nothing(any_model: Model, guidance: float) -> None:
    cond, uncond = any_model.encode(["cat"]), any_model.encode([""])
    x = noise = draw_noise(1, *any_model.latent_shape, seed=5)
    times = any_model.list_timesteps(5, "ddim").long()
    bars = [any_model.levels.alpha.square()[t] for t in times]
    bars.append(torch.as_tensor(any_model.build_scheduler("ddim").final_alpha_cumprod).double())
    for t, a, b in zip(times, bars, bars[1:], strict=False):
        with torch.no_grad():
            eps_0, eps_c = any_model.predict(x.float(), t, uncond, cond)
        said = (eps_0 + guidance * (eps_c - eps_0)).double()
        x0 = (
            (x - (1 - a).sqrt() * said) / a.sqrt() if any_model.space == "eps" else a.sqrt() * x - (1 - a).sqrt() * said
        )
        x = b.sqrt() * x0 + (1 - b).sqrt() * (x - a.sqrt() * x0) / (1 - a).sqrt()
    again = redraw(any_model, noise, cond, uncond, steps=5, guidance=guidance)
    torch.testing.assert_close(again.double(), x, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("steps", [7, 10])
def test_a_trajectory_is_found_again_at_any_number_of_steps(steps: int) -> None:
    """7 does not divide 1000: timesteps are rounded, and the way back takes the very steps of the way there."""
    model = tiny_model("v_prediction")
    model.pipeline.scheduler.register_to_config(timestep_spacing="trailing")
    cond, noise = model.encode(["cat"]), draw_noise(1, *model.latent_shape)
    there = redraw(model, noise, cond, cond, steps=steps, guidance=1.0)
    again = redraw(
        model, invert(model, there, cond, cond, steps=steps, refine=8), cond, cond, steps=steps, guidance=1.0
    )
    torch.testing.assert_close(again, there, rtol=1e-4, atol=1e-5)


def measure_return(model: Model, latents: torch.Tensor, steps: int, refine: int = 0) -> float:
    """Relative distance of the latents from what inversion and drawing again make of them."""
    cond, uncond = model.encode(["cat"]), model.encode([""])
    noise = invert(model, latents, cond, uncond, steps=steps, refine=refine)
    back = redraw(model, noise, cond, uncond, steps=steps, guidance=1.0)
    return float((back - latents).norm() / latents.norm())


@pytest.mark.parametrize(("prediction", "steps"), [("epsilon", 80), ("v_prediction", 10)])
def test_there_and_back_is_the_same_picture_the_nearer_the_more_steps(prediction: Any, steps: int) -> None:
    model = tiny_model(prediction)
    # Scaled as a trained autoencoder's are: those of a random one are nearly zero.
    latents = model.encode_pictures((draw_noise(1, 3, 16, 16) * 60 + 128).clamp(0, 255).to(torch.uint8))
    latents = latents / latents.std()
    few, many = measure_return(model, latents, steps), measure_return(model, latents, 2 * steps)
    # First order: half the step, about half the error.
    assert 1.7 < few / many < 2.3
    assert many < 0.1
    assert measure_return(model, latents, 10, refine=4) < measure_return(model, latents, 10) / 4


def test_a_model_that_forgets_where_it_came_from_is_refused() -> None:
    model = tiny_model()
    model.space = "x0"
    model.pipeline.scheduler.register_to_config(set_alpha_to_one=True)
    cond = model.encode(["cat"])
    with pytest.raises(ValueError, match="can't be inverted"):
        invert(model, draw_noise(1, 4, 8, 8), cond, cond, steps=3)
    with pytest.raises(ValueError, match="steps must be at least 1"):
        redraw(model, draw_noise(1, 4, 8, 8), cond, cond, steps=0, guidance=1.0)
