"""Drawing from states on the way: against the uninterrupted draw, and against diffusers' picture-to-picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionImg2ImgPipeline,
)

from efface.guidance.sld import SLD
from efface.models.adapters.sd import StableDiffusion
from tiny_ddpm import tiny_ddpm

PROMPTS, SEEDS = ["a cat", "dog", "red car"], [5, 6, 7]


def draw_clean(model: Any, n: int = 3) -> torch.Tensor:
    """Latents of the size that a trained autoencoder's have."""
    return torch.randn((n, *model.latent_shape), generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize(("scheduler", "rounding"), [(DDIMScheduler, 0.0), (EulerDiscreteScheduler, 1e-4)])
def test_going_on_from_a_state_is_the_uninterrupted_draw(
    model: StableDiffusion, scheduler: Any, rounding: float
) -> None:
    """To the bit, but where the network reads a scaled state, which must be scaled back."""
    model.pipeline.scheduler = scheduler.from_config(model.pipeline.scheduler.config)
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    whole = model.sample(cond, uncond, SEEDS, steps=5, guidance=3.0, record=True)
    for k in range(5):
        half = model.sample(cond, uncond, SEEDS, steps=5, guidance=3.0, until=k).x
        rest = model.sample(cond, uncond, SEEDS, steps=5, guidance=3.0, start=half, since=k, record=True)
        torch.testing.assert_close(rest.x, whole.x, rtol=rounding, atol=rounding)
        assert torch.equal(rest.t, whole.t[k:])
        torch.testing.assert_close(rest.states, whole.states[k:], rtol=rounding, atol=rounding)
        part = model.sample(cond, uncond, SEEDS, steps=5, guidance=3.0, start=half, since=k, until=4).x
        torch.testing.assert_close(part, whole.states[4], rtol=rounding, atol=rounding)


@pytest.mark.parametrize("since", [0, 2, 4])
@pytest.mark.parametrize(
    "scheduler",
    [
        DDIMScheduler,
        EulerDiscreteScheduler,
        EulerAncestralDiscreteScheduler,
        DPMSolverMultistepScheduler,
        PNDMScheduler,
    ],
)
def test_picture_to_picture_equals_the_diffusers_pipeline(model: StableDiffusion, scheduler: Any, since: int) -> None:
    """Multistep and stochastic schedulers too: the same noise, begun at the same step, with generators as far on."""
    model.pipeline.scheduler = scheduler.from_config(model.pipeline.scheduler.config)
    latents, steps = draw_clean(model), 5
    start = model.add_noise(latents, SEEDS, since, steps=steps)
    ours = model.images(PROMPTS, SEEDS, steps=steps, guidance=4.0, start=start, since=since, batch=2)
    pipeline = StableDiffusionImg2ImgPipeline(**model.pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    out = pipeline(
        PROMPTS,
        image=latents,
        strength=(steps - since + 0.5) / steps if since else 1.0,
        num_inference_steps=steps,
        guidance_scale=4.0,
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    )
    theirs = torch.from_numpy(np.stack([np.asarray(image) for image in out.images])).permute(0, 3, 1, 2)
    assert ours.float().std() > 1
    assert (ours.int() - theirs.int()).abs().max() <= 1


def test_noise_is_that_of_the_timestep_for_each_seed(model: StableDiffusion) -> None:
    latents = draw_clean(model)
    noise = torch.cat(
        [torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(s)) for s in SEEDS]
    )
    for kind in (DDIMScheduler, EulerDiscreteScheduler):
        model.pipeline.scheduler = kind.from_config(model.pipeline.scheduler.config)
        for since in (0, 3):
            level = model.find_noise_level(model.list_timesteps(5)[[since]].expand(3))
            alpha, sigma = (part.float().view(-1, 1, 1, 1) for part in (level.alpha, level.sigma))
            by_hand = alpha * latents + sigma * noise
            torch.testing.assert_close(model.add_noise(latents, SEEDS, since, steps=5), by_hand, rtol=1e-4, atol=1e-4)


def test_classes_on_pixels_draw_from_states_too() -> None:
    model = tiny_ddpm()
    cond, uncond = model.encode(["cat", "dog"]), model.encode([""])
    whole = model.sample(cond, uncond, [1, 2], steps=4, sampler="ddim")
    half = model.sample(cond, uncond, [1, 2], steps=4, sampler="ddim", until=2)
    rest = model.sample(cond, uncond, [1, 2], steps=4, sampler="ddim", start=half.x, since=2)
    assert torch.equal(rest.x, whole.x)


def test_a_guide_counts_the_steps_of_the_whole_schedule(eps_model: StableDiffusion) -> None:
    """Before its warm-up a guide does nothing, wherever the draw began."""
    guide = SLD(prompt="cat", warm_up=3, scale=1000.0, threshold=1.0, momentum_scale=0.0, momentum_beta=0.0)
    latents = draw_clean(eps_model)
    for since, acts in ((2, True), (3, True)):
        start = eps_model.add_noise(latents, SEEDS, since, steps=4)
        drawn = {"start": start, "since": since, "steps": 4, "guidance": 3.0}
        cond, uncond = eps_model.encode(PROMPTS), eps_model.encode([""])
        plain = eps_model.sample(cond, uncond, SEEDS, **drawn, until=3 if since == 2 else None).x
        with eps_model.guided_by(guide):
            cond, uncond = eps_model.encode(PROMPTS), eps_model.encode([""])
            before = eps_model.sample(cond, uncond, SEEDS, **drawn, until=3 if since == 2 else None).x
            after = eps_model.sample(cond, uncond, SEEDS, **drawn).x
        assert torch.equal(before, plain) == (since == 2)
        assert torch.equal(after, plain) != acts


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"since": 2}, "since=2 needs the states there: give start"),
        ({"since": 5, "start": 3}, "since=5 is none of the 5 timesteps; 0 to 4 would"),
        ({"since": -1, "start": 3}, "since=-1 is none of"),
        ({"since": 1, "start": 2}, r"start for 3 seeds has to be \(3, 4, 8, 8\), got \(2, 4, 8, 8\)"),
        ({"since": 2, "start": 3, "until": 1}, "until=1 lies before since=2"),
        ({"steps": 0}, "steps must be at least 1, got 0"),
    ],
)
def test_bad_starts(eps_model: StableDiffusion, more: dict[str, Any], message: str, monkeypatch: Any) -> None:
    cond, uncond = eps_model.encode(PROMPTS), eps_model.encode([""])
    monkeypatch.setattr(eps_model, "predict", lambda *_: pytest.fail("work began"))
    given = {"steps": 5} | more | ({"start": draw_clean(eps_model, more["start"])} if "start" in more else {})
    with pytest.raises(ValueError, match=message):
        eps_model.sample(cond, uncond, SEEDS, **given)


def test_the_network_sees_packed_states_and_its_answer_is_unpacked(eps_model, monkeypatch):
    x, cond = torch.randn(2, *eps_model.latent_shape), eps_model.encode(["cat"])
    with torch.no_grad():
        (plain,) = eps_model.predict(x, 5, cond)
        network, shapes = eps_model._call_network, []
        monkeypatch.setattr(type(eps_model), "pack", lambda self, x: x.flatten(2))
        monkeypatch.setattr(type(eps_model), "unpack", lambda self, out: out.unflatten(2, (8, 8)))

        def packed(x_t, t, cond):
            shapes.append(tuple(x_t.shape))
            return network(x_t.unflatten(2, (8, 8)), t, cond).flatten(2)

        monkeypatch.setattr(eps_model, "_call_network", packed)
        assert torch.equal(eps_model.predict(x, 5, cond)[0], plain)
    assert shapes == [(2, 4, 64)]
