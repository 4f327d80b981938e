"""Guidance and conditioning as the diffusers pipelines have them: latents against their own, from the same noise."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

import efface
from efface.evaluation.drawing import Settings, describe_drawing
from efface.evaluation.images import make_chunk_key
from efface.models.adapters.guidance_input import GUIDANCE
from efface.models.schedule import list_settings
from efface.records.report import Drawing, list_differences
from efface.suites.spec import Row
from tiny import tiny_pipeline
from tiny_pixart import tiny_pixart
from tiny_sd3 import tiny_sd3
from tiny_sdxl import tiny_sdxl_pipeline

SCHEDULERS = (
    "DDIMParallelScheduler",
    "DDIMScheduler",
    "DDPMParallelScheduler",
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverMultistepScheduler",
    "DPMSolverSinglestepScheduler",
    "EulerAncestralDiscreteScheduler",
    "EulerDiscreteScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LCMScheduler",
    "PNDMScheduler",
    "TCDScheduler",
    "UniPCMultistepScheduler",
)
PROMPTS, SEEDS = ["a cat", "red car"], [5, 6]


def compute_theirs(pipeline: Any, guidance: float, steps: int = 4, **more: Any) -> torch.Tensor:
    """The pipeline's own latents."""
    rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    asked = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": rngs, "output_type": "latent"}
    return pipeline(PROMPTS, **asked, **more).images


def compute_ours(model: Any, guidance: float, steps: int = 4) -> torch.Tensor:
    return model.sample(model.encode(PROMPTS), model.encode([""]), SEEDS, steps=steps, guidance=guidance).x


def build_distilled(make: Callable[[], Any]) -> Any:
    """The pipeline with a U-Net that reads its guidance, as one distilled into a latent consistency model does."""
    pipeline = make()
    torch.manual_seed(1)
    said = {name: value for name, value in pipeline.unet.config.items() if not name.startswith("_")}
    pipeline.unet = UNet2DConditionModel(**{**said, "time_cond_proj_dim": 8})
    return pipeline


@pytest.mark.filterwarnings("ignore:__array_wrap__")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("guidance", [0.0, 4.0])
def test_latents_are_the_pipelines_own(scheduler: str, guidance: float) -> None:
    pipeline = tiny_pipeline()
    known = dict(pipeline.scheduler.config)
    pipeline.scheduler = getattr(diffusers, scheduler).from_config({"clip_sample": False, **known})
    wanted = compute_theirs(pipeline, guidance)
    assert wanted.std() > 0.1
    torch.testing.assert_close(compute_ours(efface.load(pipeline), guidance), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
def test_guidance_up_to_one_is_the_plain_conditional_prediction(make: Callable[[], Any]) -> None:
    model = efface.load(make())
    drawn = [compute_ours(model, guidance) for guidance in (1.0, 0.5, 0.0)]
    assert all(torch.equal(each, drawn[0]) for each in drawn)
    assert not torch.allclose(drawn[0][0], compute_ours(model, 4.0)[0], atol=1e-2)
    torch.testing.assert_close(compute_ours(model, 0.0), compute_theirs(model.pipeline, 0.0), rtol=1e-4, atol=1e-4)
    for guidance in (float("nan"), float("inf"), -3.0):
        with pytest.raises(ValueError, match=f"guidance must be a .*, got {guidance:g}"):
            compute_ours(model, guidance)


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
@pytest.mark.parametrize("guidance", [1.0, 7.5])
@pytest.mark.parametrize("share", [0.7, 1.0])
def test_guidance_is_rescaled_as_the_pipeline_does(make: Callable[[], Any], guidance: float, share: float) -> None:
    pipeline = make()
    model, plain = efface.load(pipeline, guidance_rescale=share), efface.load(pipeline)
    wanted = compute_theirs(pipeline, guidance, guidance_rescale=share)
    torch.testing.assert_close(compute_ours(model, guidance), wanted, rtol=1e-4, atol=1e-4)
    assert torch.allclose(compute_ours(plain, guidance), wanted, atol=1e-3) == (guidance == 1)
    assert model.build_call(PROMPTS, guidance)["guidance_rescale"] == share
    # Rows of different guidance in one batch are drawn as each alone.
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    rows = model.sample(cond, uncond, SEEDS, steps=4, guidance=[1.0, guidance]).x
    torch.testing.assert_close(rows[1:], wanted[1:], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(rows[:1], compute_ours(plain, 1.0)[:1], rtol=1e-4, atol=1e-4)


def test_guidance_rescale_is_stored_with_what_was_drawn() -> None:
    pipeline = tiny_pipeline()
    plain, rescaled = (efface.load(pipeline, guidance_rescale=share) for share in (0.0, 0.7))
    drawings = [describe_drawing(model, Settings(steps=2), "") for model in (plain, rescaled)]
    assert [d.model_dump().get("guidance_rescale") for d in drawings] == [None, 0.7]
    assert all(Drawing.model_validate_json(d.model_dump_json()) == d for d in drawings)
    edits = [efface.erase(model, "cat", method="uce") for model in (plain, rescaled)]
    assert [edit.meta.get("guidance_rescale") for edit in edits] == [None, 0.7]


def test_the_schedulers_settings_are_stored_with_what_was_drawn() -> None:
    pipeline = tiny_pipeline()
    model = efface.load(pipeline)
    before = describe_drawing(model, Settings(steps=4), "")
    pictures = model.images(["a cat"], seeds=[1], steps=4)
    assert before.schedule["beta_schedule"] == "scaled_linear" and "timestep_spacing" not in before.schedule
    pipeline.scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config, timestep_spacing="trailing")
    model = efface.load(pipeline)
    after = describe_drawing(model, Settings(steps=4), "")
    assert not torch.equal(model.images(["a cat"], seeds=[1], steps=4), pictures)
    told = "schedule.timestep_spacing: None before, 'trailing' now"
    assert list_differences(before.model_dump(), after.model_dump()) == [told]
    rows = [Row("r0", "a cat", 1, "target", "erase", "object", "cat", ("cat",))]
    assert make_chunk_key(rows, before) != make_chunk_key(rows, after)
    assert Drawing.model_validate_json(after.model_dump_json()) == after


def test_a_setting_that_is_an_array_is_stored_as_a_list() -> None:
    betas = torch.linspace(1e-4, 2e-2, 5)
    stored = list_settings(diffusers.DDIMScheduler(num_train_timesteps=5, trained_betas=betas.numpy()))
    assert stored == {"num_train_timesteps": 5, "trained_betas": pytest.approx(betas.tolist())}


@pytest.mark.parametrize("make", [lambda: tiny_pixart().pipeline, lambda: tiny_sd3().pipeline])
def test_guidance_rescale_is_refused_where_the_pipeline_has_none(make: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="has no guidance rescale; leave it out"):
        efface.load(make(), guidance_rescale=0.7)
    with pytest.raises(ValueError, match="has no guidance rescale; leave it out"):
        efface.load("glyphs-ddpm", guidance_rescale=0.7)


@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_guidance_rescale_is_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="guidance_rescale must be a number from 0 to 1"):
        efface.load(tiny_pipeline(), guidance_rescale=share)


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
@pytest.mark.parametrize("guidance", [0.0, 1.0, 8.0])
def test_a_distilled_network_reads_its_guidance(make: Callable[[], Any], guidance: float) -> None:
    pipeline = build_distilled(make)
    model = efface.load(pipeline)
    torch.testing.assert_close(compute_ours(model, guidance), compute_theirs(pipeline, guidance), rtol=1e-4, atol=1e-4)
    own = model.encode(PROMPTS).extra[GUIDANCE]
    assert (own == model.defaults.guidance).all()  # what a prediction outside of a drawing reads


def test_a_distilled_network_is_recorded_and_trained_at_its_own_guidance() -> None:
    model = efface.load(build_distilled(tiny_pipeline))
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    for guidance in (model.defaults.guidance, 2.0):  # drawn by this one, recorded as a training asks the network
        draw = model.sample(cond, uncond, SEEDS, steps=3, guidance=guidance, record=True)
        torch.testing.assert_close(draw.x, compute_ours(model, guidance, 3))
        with torch.no_grad():
            eps_c = model.predict(draw.states[1], draw.t[1], cond)[0]
        torch.testing.assert_close(eps_c, draw.eps_c[1], rtol=1e-4, atol=1e-5)
    edit = efface.erase(model, "cat", "esd", steps=2, batch=2, draw_steps=2, paths=2, progress=False)
    assert all(value.isfinite().all() for value in edit.values.values())


@pytest.mark.parametrize("make", [tiny_pipeline, tiny_sdxl_pipeline])
def test_a_guide_acts_on_a_distilled_network_by_a_second_prediction_alone(make: Callable[[], Any]) -> None:
    model = efface.load(build_distilled(make))
    with pytest.raises(ValueError, match=r"reads its guidance as a number.*set model.true_guidance above 1"):
        efface.erase(model, "cat", "negative")
    plain = compute_ours(model, 2.0)
    model.true_guidance = 3.0
    guided = compute_ours(model, 2.0)
    assert not torch.allclose(plain, guided, atol=1e-3)
    with efface.erase(model, "cat", "negative", progress=False).apply(model):
        assert not torch.allclose(compute_ours(model, 2.0), guided, atol=1e-3)
