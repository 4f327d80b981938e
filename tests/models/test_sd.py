from __future__ import annotations

import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
)

import efface
from efface.concept import Prompt
from efface.functional.losses import apply_guidance
from efface.models.adapters.sd import StableDiffusion, lay_out_for_amx
from efface.models.cond import Cond
from efface.planning.tracker import AllocationTracker
from tiny import tiny_model, tiny_pipeline

PROMPTS, SEEDS = ["a cat", "dog", "red car"], [5, 6, 7]
SCHEDULERS = [
    DDIMScheduler,
    EulerDiscreteScheduler,
    PNDMScheduler,
    DPMSolverMultistepScheduler,
    EulerAncestralDiscreteScheduler,
]


def compute_theirs(pipeline: StableDiffusionPipeline, steps: int, guidance: float) -> torch.Tensor:
    """uint8 pictures as the diffusers pipeline draws them."""
    rngs = [torch.Generator().manual_seed(seed) for seed in SEEDS]
    out = pipeline(PROMPTS, num_inference_steps=steps, guidance_scale=guidance, generator=rngs, output_type="pil")
    return torch.from_numpy(np.stack([np.asarray(image) for image in out.images])).permute(0, 3, 1, 2)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_equals_the_diffusers_pipeline(model, scheduler):
    model.pipeline.scheduler = scheduler.from_config(model.pipeline.scheduler.config)
    ours = model.images(PROMPTS, SEEDS, steps=5, guidance=4.0)
    assert ours.float().std() > 1
    assert (ours.int() - compute_theirs(model.pipeline, 5, 4.0).int()).abs().max() <= 1
    assert torch.equal(ours, model.images(PROMPTS, SEEDS, steps=5, guidance=4.0))


def test_equals_the_diffusers_pipeline_without_guidance(eps_model):
    ours = eps_model.images(PROMPTS, SEEDS, steps=3, guidance=1.0)
    assert (ours.int() - compute_theirs(eps_model.pipeline, 3, 1.0).int()).abs().max() <= 1


def test_a_shift_of_latents_that_the_pipeline_does_not_read_is_not_read():
    pipeline = tiny_pipeline()
    pipeline.vae.register_to_config(shift_factor=0.3)
    ours = StableDiffusion(pipeline, "tiny").images(PROMPTS, SEEDS, steps=2, guidance=2.0)
    assert (ours.int() - compute_theirs(pipeline, 2, 2.0).int()).abs().max() <= 1


def test_a_seed_is_a_picture_at_any_batch_size(eps_model):
    eps_model.pipeline.scheduler = EulerAncestralDiscreteScheduler.from_config(eps_model.pipeline.scheduler.config)
    together = eps_model.images(PROMPTS, SEEDS)
    alone = torch.cat([eps_model.images([p], [s]) for p, s in zip(PROMPTS, SEEDS, strict=True)])
    assert (together.int() - alone.int()).abs().max() <= 1
    calls = []
    assert (
        eps_model.images(PROMPTS, SEEDS, batch=2, progress=lambda *a: calls.append(a)).int() - alone.int()
    ).abs().max() <= 1
    assert calls == [(2, 3), (3, 3)]


@pytest.mark.parametrize("scheduler", SCHEDULERS[:3])
def test_until_stops_exactly_there(model, scheduler):
    """The state at `until` is the one recorded there, and what was recorded are the network's own predictions."""
    model.pipeline.scheduler = scheduler.from_config(model.pipeline.scheduler.config)
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    whole = model.sample(cond, uncond, SEEDS, steps=5, guidance=3.0, record=True)
    assert torch.equal(whole.t.double(), model.list_timesteps(5).double())
    for k in (0, 2, 4):
        part = model.sample(cond, uncond, SEEDS, steps=5, guidance=3.0, until=k)
        assert torch.allclose(part.x, whole.states[k], atol=1e-6)
        assert not len(part.t)
        eps_0, eps_c = model.predict(whole.states[k], whole.t[k], uncond, cond)
        assert torch.allclose(eps_c, whole.eps_c[k], atol=1e-6)
        assert torch.allclose(eps_0, whole.eps_0[k], atol=1e-6)


def test_one_ddim_step_by_hand(model):
    cond, uncond = model.encode(["cat"]), model.encode([""])
    draw = model.sample(cond, uncond, [0], steps=4, guidance=2.0, record=True, sampler="ddim")
    a, b = model.find_noise_level(draw.t[:2]).alpha.square().float()
    x, out = draw.states[0], apply_guidance(draw.eps_0[0], draw.eps_c[0], 2.0)
    if model.space == "eps":
        eps, x0 = out, (x - (1 - a).sqrt() * out) / a.sqrt()
    else:
        eps, x0 = a.sqrt() * out + (1 - a).sqrt() * x, a.sqrt() * x - (1 - a).sqrt() * out
    assert torch.allclose(b.sqrt() * x0 + (1 - b).sqrt() * eps, draw.states[1], atol=1e-4)


def test_predict_batches_conditions(eps_model):
    x, t = torch.randn(2, *eps_model.latent_shape), torch.tensor([10, 700])
    one, many = eps_model.encode(["cat"]), eps_model.encode(["dog", "car"])
    with torch.no_grad():
        together = eps_model.predict(x, t, one, many)
        apart = [eps_model.predict(x, t, cond)[0] for cond in (one, many)]
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(together, apart, strict=True))
    with pytest.raises(ValueError, match="3 conditions for 2 rows"):
        eps_model.predict(x, t, eps_model.encode(PROMPTS))


def test_noise_level_between_timesteps(eps_model):
    a = eps_model.find_noise_level(torch.tensor([10.0, 10.5, 11.0, 999.0])).alpha.square()
    assert a[0] > a[1] > a[2]
    assert torch.allclose(a[[0, 2, 3]], eps_model.levels.alpha.square()[[10, 11, 999]], rtol=1e-5)


def test_embedding_of_ones_own(eps_model):
    tokens = eps_model.encode(["cat"]).tokens[0]
    cond = eps_model.encode([Prompt("dog", tokens), "cat"])
    assert torch.equal(cond.tokens[0], cond.tokens[1])
    with pytest.raises(ValueError, match=r"an embedding for tiny is \(8, 16\), got \(3,\)"):
        eps_model.encode([Prompt("dog", torch.zeros(3))])


def test_long_prompts_are_cut_with_a_warning(eps_model):
    with pytest.warns(UserWarning, match="exceeds? 8 tokens"):
        assert len(eps_model.encode(["a " * 20])) == 1


def test_text_encodings_follow_the_text_encoder(eps_model):
    before = eps_model.encode(["cat"]).flatten()
    name = next(name for name in eps_model.weights if name.endswith("final_layer_norm.weight"))
    assert name.startswith("text_encoder.text_model.")
    with eps_model.swap_in({name: 2 * eps_model.weights[name]}):
        assert not torch.allclose(eps_model.encode(["cat"]).flatten(), before)
    assert torch.equal(eps_model.encode(["cat"]).flatten(), before)


def test_mixing_conditions():
    cond = Cond({"clip": torch.arange(12.0).reshape(3, 2, 2)})
    mixed = cond.mix(torch.tensor([[0.0, 0, 1], [0.5, 0.5, 0]]))
    assert torch.equal(mixed[[0]].flatten(), cond[[2]].flatten())
    assert torch.equal(mixed[[1]].flatten(), (cond[[0]].flatten() + cond[[1]].flatten()) / 2)


def test_fingerprint_survives_a_change_of_dtype(tmp_path):
    model = tiny_model()
    half = efface.load(tiny_pipeline(), dtype="fp16")
    assert half.dtype == torch.float16
    mine, its, other = model.fingerprint(), half.fingerprint(), tiny_model(seed=1).fingerprint()
    assert mine["fp16"] == its["fp16"]
    assert mine["fp32"] != its["fp32"]
    assert not set(mine.items()) & set(other.items())
    with model.swap_in({name: tensor + 1 for name, tensor in model.weights.items()}):
        assert model.fingerprint() == mine


def test_folder_round_trip(eps_model, tmp_path):
    folder = tmp_path / "model"
    eps_model.save_pretrained(folder)
    loaded = efface.load(str(folder), device="cpu")
    assert isinstance(loaded, StableDiffusion)
    assert (loaded.defaults.steps, loaded.defaults.guidance, loaded.resolution) == (50, 7.5, 16)
    assert torch.equal(loaded.images(PROMPTS, SEEDS, steps=3), eps_model.images(PROMPTS, SEEDS, steps=3, guidance=7.5))
    with pytest.raises(FileExistsError, match="exists"):
        eps_model.save_pretrained(folder)


def test_bf16_compute_is_close(eps_model):
    fast = efface.load(eps_model.pipeline, compute="bf16")
    assert fast.compute == torch.bfloat16
    assert fast.dtype == torch.float32
    far = (fast.images(PROMPTS, SEEDS, steps=3).int() - eps_model.images(PROMPTS, SEEDS, steps=3).int()).abs()
    assert far.float().mean() < 8


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("nonsense", {}, "no model 'nonsense': .*an embedded model"),
        ("./missing/model", {}, "no model"),
        (3, {}, "cannot open a int"),
        ("{tmp}", {}, "holds no diffusers pipeline"),
        ("glyphs", {"dtype": "int8"}, "no dtype 'int8'; there are fp32"),
    ],
)
def test_bad_sources(tmp_path, source, options, message):
    source = str(tmp_path) if source == "{tmp}" else source
    with pytest.raises(ValueError, match=message):
        efface.load(source, **options)


def test_words_of_the_tokenizer(eps_model):
    plain = StableDiffusion(eps_model.pipeline, "plain")
    words = plain.list_words(5)
    assert len(words) == 5
    assert {"cat", "dog"} <= set(plain.list_words(1000))
    assert "a" not in plain.list_words(1000)


def test_layout_for_bf16_changes_no_value_and_exports(tmp_path):
    plain, laid_out = tiny_model(), tiny_pipeline()
    lay_out_for_amx(laid_out)
    model = StableDiffusion(laid_out, "tiny", compute=torch.bfloat16)
    assert model.fingerprint() == plain.fingerprint()
    drawn = [each.images(PROMPTS, SEEDS, steps=3, guidance=4.0).int() for each in (model, plain)]
    assert (drawn[0] - drawn[1]).abs().float().mean() < 8
    model.save_pretrained(tmp_path / "out")
    assert efface.load(str(tmp_path / "out"), device="cpu").fingerprint() == plain.fingerprint()


def test_few_encodings_are_kept_and_all_are_right(eps_model, monkeypatch):
    monkeypatch.setattr("efface.models.base.ENCODINGS_KEPT", 2)
    words = ["cat", "dog", "car", "tiger"]
    together = eps_model.encode(words).flatten()
    assert len(eps_model._encoded) == 2
    assert torch.allclose(together, torch.cat([eps_model.encode([word]).flatten() for word in words]), atol=1e-5)


def test_the_autoencoder_takes_few_pictures_at_once_and_draws_the_same(eps_model, monkeypatch):
    """The same pixels by slices, from memory that does not grow with the number of pictures."""
    pictures = eps_model.images(["a cat"] * 6, list(range(6)), steps=2)
    z = torch.randn(6, *eps_model.latent_shape, generator=torch.Generator().manual_seed(0))
    whole, peaks = (eps_model.decode(z), eps_model.encode_pictures(pictures)), {}
    monkeypatch.setattr("efface.models.adapters.latent.SLICE", 2 * eps_model.resolution**2)
    assert torch.equal(eps_model.decode(z), whole[0])
    assert torch.allclose(eps_model.encode_pictures(pictures), whole[1], atol=1e-6)
    for n in (2, 6):
        with AllocationTracker(eps_model.vae.parameters()) as tracker:
            eps_model.decode(z[:n])
        peaks[n] = tracker.peak - z[:n].nbytes
    assert peaks[6] < 1.5 * peaks[2]  # three times as much without slices


def test_a_very_large_picture_goes_by_tiles(eps_model, monkeypatch):
    monkeypatch.setattr("efface.models.adapters.latent.TILED", eps_model.resolution**2 - 1)
    seen: list[bool] = []
    plain = eps_model.vae.decode

    def watched(*args, **named):
        seen.append(eps_model.vae.use_tiling)
        return plain(*args, **named)

    monkeypatch.setattr(eps_model.vae, "decode", watched)
    eps_model.decode(torch.zeros(1, *eps_model.latent_shape))
    assert seen == [True] and not eps_model.vae.use_tiling
