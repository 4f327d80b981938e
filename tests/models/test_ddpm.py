"""A class-conditional DDPM: drawing as a loop by hand, weights and gradients, folders, and erasing."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMPipeline, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DModel

import efface
from efface.functional.gumbel import gumbel_softmax
from efface.models.adapters.ddpm import DDPM, open_folder
from efface.models.trajectory import Defaults
from efface.training.subsets import select
from tiny_ddpm import CLASSES, tiny_ddpm, tiny_unet

PROMPTS, SEEDS = ["cat", "a picture of a hot dog", "an icon of a red car"], [5, 6, 7]
LABELS = [0, 2, 4]
SCHEDULERS = [DDPMScheduler, DDIMScheduler, DPMSolverMultistepScheduler]
SHORT = {"weights": "full", "steps": 2, "batch": 2, "draw_steps": 3, "paths": 2, "lr": 1e-3}


@pytest.fixture(params=["epsilon", "v_prediction"])
def ddpm(request: pytest.FixtureRequest) -> DDPM:
    return tiny_ddpm(request.param)


def compute_by_hand(scheduler, steps: int, guidance: float) -> np.ndarray:
    """Pictures [n, 8, 8, 3] in 0 … 255, one at a time, from the plain U-Net and whole-number labels."""
    unet, pictures = tiny_unet(), []
    for label, seed in zip(LABELS, SEEDS, strict=True):
        rng = torch.Generator().manual_seed(seed)
        scheduler.set_timesteps(steps)
        x = torch.randn(1, 3, 8, 8, generator=rng)
        for t in scheduler.timesteps:
            with torch.no_grad():
                conditional = unet(x, t, class_labels=torch.tensor([label])).sample
                null = unet(x, t, class_labels=torch.tensor([len(CLASSES)])).sample
            out = (1 - guidance) * null + guidance * conditional
            x = scheduler.step(out, t, x, generator=rng).prev_sample
        pictures.append(np.clip(x[0].permute(1, 2, 0).numpy() * 127.5 + 127.5, 0, 255))
    return np.stack(pictures)


@pytest.mark.parametrize("clip", [False, True])
@pytest.mark.parametrize("kind", SCHEDULERS)
def test_equals_a_loop_by_hand(ddpm, kind, clip):
    """The model's own scheduler, stochastic ones among them, with and without clipping of x0."""
    plain = {"prediction_type": ddpm.pipeline.scheduler.config.prediction_type}
    own = kind(**plain) if kind is DPMSolverMultistepScheduler else kind(**plain, clip_sample=clip)
    ddpm.pipeline.scheduler = own
    ours = ddpm.images(PROMPTS, SEEDS, steps=5, guidance=2.0).permute(0, 2, 3, 1).numpy()
    theirs = compute_by_hand(kind.from_config(own.config), 5, 2.0)
    assert theirs.std() > 5
    assert np.abs(ours - theirs).max() < 1
    assert np.array_equal(ours, ddpm.images(PROMPTS, SEEDS, steps=5, guidance=2.0).permute(0, 2, 3, 1).numpy())


@pytest.mark.parametrize("clip", [True, False])
def test_ddim_clips_only_where_the_schedule_does(clip):
    model = tiny_ddpm()
    model.pipeline.scheduler = DDPMScheduler(clip_sample=clip)
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    ours = model.decode(model.sample(cond, uncond, SEEDS, steps=5, guidance=2.0, sampler="ddim").x)
    theirs, other = (compute_by_hand(DDIMScheduler(clip_sample=each), 5, 2.0) for each in (clip, not clip))
    assert np.abs(ours.permute(0, 2, 3, 1).numpy() - theirs).max() < 1
    assert np.abs(theirs - other).max() > 2
    model.pipeline.scheduler = DPMSolverMultistepScheduler()
    assert not model.build_scheduler("ddim").config.clip_sample


def test_an_unclipped_schedule_is_not_clipped_by_decoding():
    model = tiny_ddpm()
    assert torch.equal(
        model.decode(torch.tensor([[-3.0, -1, 0.0, 1, 9]])), torch.tensor([[0, 0, 128, 255, 255]]).byte()
    )
    pictures = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    latents = model.encode_pictures(pictures)
    assert latents.min() == -1
    assert latents.max() == 1
    assert torch.equal(model.decode(latents), pictures)


def test_predictions_are_those_of_the_labels(ddpm):
    x, t = torch.randn(3, *ddpm.latent_shape), torch.tensor([3, 400, 990])
    with torch.no_grad():
        null, conditional = ddpm.predict(x, t, ddpm.encode([""]), ddpm.encode(PROMPTS))
        plain = tiny_unet()
        assert torch.allclose(conditional, plain(x, t, class_labels=torch.tensor(LABELS)).sample, atol=1e-6)
        assert torch.allclose(null, plain(x, t, class_labels=torch.full((3,), 5)).sample, atol=1e-6)
        assert (conditional - null).abs().max() > 1e-2
        labelled = ddpm.unet(x, t, class_labels=torch.tensor(LABELS)).sample
    assert torch.equal(labelled, plain(x, t, class_labels=torch.tensor(LABELS)).sample)


def test_mixing_one_hots_is_picking():
    cond = tiny_ddpm().encode(list(CLASSES))
    picked = cond.mix(torch.eye(5)[[3, 1]])
    assert torch.equal(picked.flatten(), cond[[3, 1]].flatten())
    assert torch.equal(cond.flatten(), torch.eye(6)[:5])


def test_the_gradient_reaches_the_mixing_weights_and_is_right():
    """Against central differences of the plain network, its class embedding mixed by hand."""
    model, unet = tiny_ddpm(), tiny_unet().double()
    cond = model.encode(list(CLASSES))
    x, t = torch.randn(1, *model.latent_shape), torch.tensor([300])
    table = unet.class_embedding.weight.detach().clone()
    weights = torch.tensor([[0.2, 0.5, 0.0, 0.1, 0.2]], requires_grad=True)
    model.predict(x, t, cond.mix(weights))[0].square().sum().backward()

    def value(p: torch.Tensor) -> float:
        with torch.no_grad():
            unet.class_embedding.weight[0] = p @ table[:5]
            return unet(x.double(), t, class_labels=torch.tensor([0])).sample.square().sum().item()

    p, step = weights.detach()[0].double(), 1e-4
    nudges = torch.eye(5, dtype=torch.double) * step
    slopes = torch.tensor([(value(p + nudge) - value(p - nudge)) / (2 * step) for nudge in nudges])
    assert slopes.abs().min() > 1e-3
    assert torch.allclose(weights.grad[0], slopes, rtol=1e-3)
    logits = torch.zeros(5, requires_grad=True)
    choice = gumbel_softmax(logits, 2.0, True, torch.Generator().manual_seed(0))
    model.predict(x, t, cond.mix(choice[None]))[0].square().sum().backward()
    assert logits.grad is not None
    assert logits.grad.abs().max() > 0


def test_the_class_embedding_is_a_weight_like_any_other(ddpm):
    name = "unet.class_embedding.weight"
    assert set(ddpm.weights) == {f"unet.{key}" for key in tiny_unet().state_dict()}
    assert select(ddpm.weights, "full") == list(ddpm.weights)
    with pytest.raises(ValueError, match=r"'xattn' selects no weight; subsets that do: .*full"):
        select(ddpm.weights, "xattn")
    x, cond = torch.randn(1, *ddpm.latent_shape), ddpm.encode(["dog"])
    moved = ddpm.weights[name].detach().clone()
    moved[1] = moved[0]
    with torch.no_grad():
        dog, cat = ddpm.predict(x, 50, cond, ddpm.encode(["cat"]))
        with ddpm.swap_in({name: moved}):
            (now,) = ddpm.predict(x, 50, cond)
    assert torch.allclose(now, cat, atol=1e-6)
    assert not torch.allclose(now, dog, atol=1e-3)
    student = moved.requires_grad_()
    with ddpm.swap_in({name: student}):
        (grad,) = torch.autograd.grad(ddpm.predict(x, 50, cond)[0].square().sum(), student)
    assert [bool(row.any()) for row in grad] == [False, True, False, False, False, False]


def test_folder_round_trip_is_bit_identical(ddpm, tmp_path):
    folder = tmp_path / "out" / "model"
    ddpm.save_pretrained(folder)
    loaded = open_folder(folder, "cpu", None, "again", defaults=Defaults(4, 2.0))
    assert (loaded.name, loaded.classes, loaded.space, loaded.resolution) == ("again", CLASSES, ddpm.space, 8)
    assert all(torch.equal(tensor, loaded.weights[name]) for name, tensor in ddpm.weights.items())
    assert loaded.fingerprint() == ddpm.fingerprint()
    assert torch.equal(loaded.images(PROMPTS, SEEDS), ddpm.images(PROMPTS, SEEDS))
    half = open_folder(folder, "cpu", torch.float16, "half")
    assert half.dtype == torch.float16
    half.save_pretrained(tmp_path / "half")
    assert open_folder(tmp_path / "half", "cpu", None, "stored in half").dtype == torch.float32
    with pytest.raises(FileExistsError, match="exists"):
        ddpm.save_pretrained(folder)
    assert [each.name for each in folder.parent.iterdir()] == ["model"]


def test_other_tools_open_the_folder(tmp_path):
    model = tiny_ddpm("v_prediction")
    folder = tmp_path / "model"
    model.save_pretrained(folder)
    assert json.loads((folder / "model_index.json").read_text())["_class_name"] == "DDPMPipeline"
    assert json.loads((folder / "classes.json").read_text()) == list(CLASSES)
    theirs = DDPMPipeline.from_pretrained(folder)
    assert type(theirs.unet) is UNet2DModel
    assert type(theirs.unet.class_embedding) is torch.nn.Embedding
    x, t, labels = torch.randn(2, 3, 8, 8), torch.tensor([1, 700]), torch.tensor([4, 0])
    with torch.no_grad():
        out = theirs.unet.eval()(x, t, class_labels=labels).sample
        (ours,) = model.predict(x, t, model.encode(["red car", "cat"]))
    assert torch.allclose(out, ours, atol=1e-6)


def test_a_failed_save_leaves_nothing(tmp_path, monkeypatch):
    model = tiny_ddpm()
    monkeypatch.setattr("efface.models.adapters.ddpm.write_classes", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        model.save_pretrained(tmp_path / "model")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("source", ["student", "frozen"])
def test_esd_leaves_it_bit_identical_and_moves_weights(ddpm, source):
    before = {name: (tensor, tensor.detach().clone()) for name, tensor in ddpm.weights.items()}
    edit = efface.erase(ddpm, "cat", method="esd", source=source, templates=("{}", "a {}"), **SHORT)
    assert all(ddpm.weights[name] is tensor and torch.equal(tensor, copy) for name, (tensor, copy) in before.items())
    assert set(edit.values) == set(before)
    moved = [name for name, value in edit.values.items() if not torch.equal(value, before[name][1])]
    assert "unet.class_embedding.weight" in moved
    # The bias of an attention's keys shifts all logits alike: it alone has no gradient.
    assert all(name.endswith("to_k.bias") for name in set(before) - set(moved))
    pictures = ddpm.images(PROMPTS, SEEDS)
    with edit.apply(ddpm):
        assert not torch.equal(ddpm.images(PROMPTS, SEEDS), pictures)
    assert torch.equal(ddpm.images(PROMPTS, SEEDS), pictures)


def test_esd_pushes_the_target_to_the_other_side():
    """Enough updates on one batch bring the student nearer to its target than the frozen model is."""
    model = tiny_ddpm()
    many = {**SHORT, "steps": 30, "lr": 3e-3, "draw_steps": 2}
    edit = efface.erase(model, "cat", method="esd", source="frozen", **many)
    conds = model.encode(["cat"]), model.encode([""])
    draw = model.sample(model.encode(["cat"] * 8), conds[1], range(8), steps=2, guidance=3.0, record=True)
    goal = draw.eps_0[0] - (draw.eps_c[0] - draw.eps_0[0])
    with edit.apply(model), torch.no_grad():
        (after,) = model.predict(draw.states[0], draw.t[0], conds[0])
    assert (after - goal).norm() < 0.7 * (draw.eps_c[0] - goal).norm()


@pytest.mark.parametrize("source", ["student", "frozen"])
def test_eap_searches_among_the_classes(ddpm, source):
    edit = efface.erase(ddpm, "cat", method="eap", source=source, margin=0.0, **SHORT)
    again = efface.erase(ddpm, "cat", method="eap", source=source, margin=0.0, **SHORT)
    candidates = edit.meta["notes"]["candidates"]["cat"]
    assert set(candidates) == set(CLASSES[1:])
    assert set(edit.meta["notes"]["favourites"]["cat"]) <= set(candidates)
    assert all(torch.equal(value, again.values[name]) for name, value in edit.values.items())
    assert any(not torch.equal(value, ddpm.weights[name]) for name, value in edit.values.items())


def test_an_unknown_target_is_refused_before_work(monkeypatch):
    model = tiny_ddpm()
    monkeypatch.setattr(model.unet, "forward", lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(ValueError, match="'vann gogh' names no class of tiny"):
        efface.erase(model, "vann gogh", method="esd", **SHORT)
    with pytest.raises(ValueError, match="'xattn' selects no weight"):
        efface.erase(model, "cat", method="esd", **{**SHORT, "weights": "xattn"})


def test_bf16_compute_is_close():
    model = tiny_ddpm()
    fast = DDPM(model.pipeline, CLASSES, "fast", defaults=model.defaults, compute=torch.bfloat16)
    far = (fast.images(PROMPTS, SEEDS).int() - model.images(PROMPTS, SEEDS).int()).abs()
    assert 0 < far.float().mean() < 8


def test_a_model_without_an_unconditional_prediction_draws_at_guidance_1(monkeypatch):
    model = tiny_ddpm()
    plain = model.images(["cat"], [1], guidance=1.0)
    monkeypatch.setattr(type(model), "has_uncond", False)
    assert torch.equal(model.images(["cat"], [1]), plain)
    with pytest.raises(ValueError, match="no unconditional prediction to guide by; draw it with guidance 1"):
        model.images(["cat"], [1], guidance=2.0)
