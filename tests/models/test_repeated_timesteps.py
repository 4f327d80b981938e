"""Schedules whose timesteps repeat, because a strong shift or rounding makes neighbours equal."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers.schedulers.scheduling_flow_match_euler_discrete import FlowMatchEulerDiscreteScheduler
from diffusers.schedulers.scheduling_heun_discrete import HeunDiscreteScheduler

from efface.models.adapters.patches import pack_patches, unpack_patches
from efface.models.trajectory import draw_noise, set_timesteps
from tiny_fits import FLOWS
from tiny_flux import tiny_flux
from tiny_language import tiny_qwen_image

STEPS, PROMPT = 4, ["a cat"]
EQUAL, ROUNDED = 1e9, 2000.0
"""Shifts with which neighbouring levels are equal in fp32, and with which whole timesteps are."""
PUBLISHED: dict[str, Any] = {
    "shift": 3.0,
    "use_dynamic_shifting": True,
    "base_shift": 0.5,
    "max_shift": 1.15,
    "base_image_seq_len": 256,
    "max_image_seq_len": 4096,
}
"""The scheduler's configuration of FLUX.1-dev."""


def shift(model: Any, by: float) -> None:
    """Gives the model's own scheduler a shift that does not depend on the picture's size."""
    own = model.pipeline.scheduler
    named = "shift" if isinstance(own, FlowMatchEulerDiscreteScheduler) else "flow_shift"
    more = {"use_dynamic_shifting": False} if named == "shift" else {}
    model.pipeline.scheduler = type(own).from_config(own.config, **{named: by}, **more)


@pytest.mark.parametrize("sampler", ["own", "ddim", "dpm", "unipc"])
@pytest.mark.parametrize("kind", FLOWS)
def test_every_level_is_walked_once_from_the_first(kind: str, sampler: Any, monkeypatch) -> None:
    model: Any = FLOWS[kind]()
    euler = sampler == "ddim" or (sampler == "own" and kind != "sana")
    shift(model, EQUAL if euler else ROUNDED)
    made = model.build_scheduler(sampler)
    walked: list[tuple[float, float]] = []
    step = made.step

    def noting(out: torch.Tensor, t: Any, x: torch.Tensor, **more: Any) -> Any:
        answer = step(out, t, x, **more)
        walked.append((made.step_index, float(t)))
        return answer

    monkeypatch.setattr(made, "step", noting)
    monkeypatch.setattr(model, "build_scheduler", lambda _sampler="own": made)
    drawn = model.sample(model.encode(PROMPT), model.encode([""]), [0], steps=STEPS, guidance=1.0, sampler=sampler)
    assert walked[0][1] == walked[1][1], "no timestep repeats, so that the test shows nothing"
    assert [index for index, _ in walked] == [1, 2, 3, 4]
    assert drawn.x.isfinite().all()


def test_flux_draws_as_its_pipeline_does_where_its_dynamic_shift_repeats_timesteps() -> None:
    model = tiny_flux()
    own = model.pipeline.scheduler
    model.pipeline.scheduler = type(own).from_config(own.config, max_shift=200.0)
    times = model.list_timesteps(STEPS)
    assert times[0] == times[1]
    asked: dict[str, Any] = {"num_inference_steps": STEPS, **model.build_call(PROMPT, 3.5)}
    noise = pack_patches(draw_noise([3], model.latent_shape)[1])
    theirs = unpack_patches(model.pipeline(latents=noise, output_type="latent", **asked).images, 8)
    cond, uncond = model.encode(PROMPT), model.encode([""])
    ours = model.sample(cond, uncond, [3], steps=STEPS, guidance=3.5).x
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    half = model.sample(cond, uncond, [3], steps=STEPS, guidance=3.5, until=2).x
    rest = model.sample(cond, uncond, [3], steps=STEPS, guidance=3.5, start=half, since=2).x
    assert torch.equal(ours, rest)


@pytest.mark.parametrize("steps", [1, 2, 4, 28, 200])
def test_flux_draws_as_its_pipeline_does_on_the_published_schedule(steps: int) -> None:
    model = tiny_flux()
    model.pipeline.scheduler = FlowMatchEulerDiscreteScheduler(**PUBLISHED)
    asked: dict[str, Any] = {"num_inference_steps": steps, **model.build_call(PROMPT, 3.5)}
    noise = pack_patches(draw_noise([3], model.latent_shape)[1])
    theirs = unpack_patches(model.pipeline(latents=noise, output_type="latent", **asked).images, 8)
    ours = model.sample(model.encode(PROMPT), model.encode([""]), [3], steps=steps, guidance=3.5).x
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_with_flux_own_table_no_level_repeats() -> None:
    own: Any = FlowMatchEulerDiscreteScheduler(**PUBLISHED)
    for tokens in (256, 4096, 16384):
        for steps in (1, 2, 4, 8, 28, 50, 200):
            mu = 0.5 + (tokens - 256) * (1.15 - 0.5) / (4096 - 256)
            own.set_timesteps(steps, sigmas=np.linspace(1.0, 1 / steps, steps).tolist(), mu=mu)
            assert len(own.timesteps.unique()) == steps


def test_a_schedule_that_is_stretched_to_its_last_level_needs_two_steps() -> None:
    model = tiny_qwen_image()
    own = model.pipeline.scheduler
    model.pipeline.scheduler = type(own).from_config(own.config, shift_terminal=0.02)
    with pytest.raises(ValueError, match="no finite noise levels for steps=1; more steps"):
        model.images(PROMPT, steps=1)
    assert float(model.list_timesteps(2)[-1]) == pytest.approx(20, rel=1e-4)


@pytest.mark.parametrize("sampler", ["own", "ddim", "dpm", "unipc"])
def test_there_are_no_more_steps_than_timesteps(sampler: Any) -> None:
    model = tiny_flux()
    with pytest.raises(ValueError, match="steps=1001 is more than the scheduler's 1000 timesteps; 1 to 1000 would"):
        model.images(PROMPT, steps=1001, sampler=sampler)
    assert len(model.list_timesteps(1000, sampler)) == 1000


def test_a_scheduler_of_noise_whose_timesteps_repeat_by_design_starts_at_the_first() -> None:
    made: Any = set_timesteps(HeunDiscreteScheduler(), 3)
    assert len(made.timesteps) == 5 and made.timesteps[1] == made.timesteps[2]
    x = torch.ones(1, 1, 1, 1)
    for i, t in enumerate(made.timesteps):
        x = made.step(torch.zeros_like(x), t, made.scale_model_input(x, t)).prev_sample
        assert made.step_index == i + 1
