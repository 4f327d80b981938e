"""Stable Diffusion 3: the same pictures as its diffusers pipeline draws, and how it reads a prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import efface
from efface import methods
from efface.concept import Erasure, Prompt
from efface.functional.schedules import NoiseLevel
from efface.models.adapters.flat import flatten_parts, replace_parts
from efface.models.adapters.sd3 import StableDiffusion3
from efface.models.ddim_inversion import invert, redraw
from efface.models.trajectory import draw_noise
from efface.training.subsets import JOINT, select
from text_map_checks import check_text_maps
from tiny_flux import tiny_flux
from tiny_language import tiny_sana
from tiny_pixart import LENGTH
from tiny_sd3 import tiny_sd3, tiny_sd3_pipeline

PROMPTS, SEEDS = ["a red cat", "a dog"], [3, 4]


@pytest.fixture
def model() -> StableDiffusion3:
    return tiny_sd3()


def draw_by_diffusers(model: StableDiffusion3, guidance: float, steps: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and uint8 pictures that the pipeline itself draws from our noise."""
    noise, tokens = draw_noise(SEEDS, model.latent_shape)[1], LENGTH if model.t5 is not None else 3
    asked: dict[str, Any] = {"num_inference_steps": steps, "guidance_scale": guidance, "max_sequence_length": tokens}
    asked |= {"height": 16, "width": 16}
    latents = model.pipeline(PROMPTS, latents=noise, output_type="latent", **asked).images
    pictures = model.pipeline(PROMPTS, latents=noise, output_type="np", **asked).images
    return latents, torch.from_numpy(np.asarray(pictures)).permute(0, 3, 1, 2).mul(255).round().to(torch.uint8)


DYNAMIC = {"use_dynamic_shifting": True, "shift": 1.0, "base_image_seq_len": 4, "max_image_seq_len": 64}
KINDS: dict[str, dict[str, Any]] = {
    "3.5-medium": {},
    "one attention": {"dual": False},
    "no T5": {"t5": False},
    "dynamic shift": DYNAMIC,
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 4.5])
def test_it_draws_as_its_pipeline_does(kind: str, guidance: float) -> None:
    model = tiny_sd3(**KINDS[kind])
    latents, pictures = draw_by_diffusers(model, guidance)
    ours = model.sample(model.encode(PROMPTS), model.encode([""]), SEEDS, steps=3, guidance=guidance)
    torch.testing.assert_close(ours.x, latents, rtol=1e-5, atol=1e-5)
    drawn = model.images(PROMPTS, SEEDS, steps=3, guidance=guidance)
    assert drawn.float().std() > 1 and (drawn.int() - pictures.int()).abs().max() <= 1


def test_what_its_own_pipeline_is_told_is_what_matters(model: StableDiffusion3) -> None:
    """The comparison above could fail: another guidance, shift or T5 draws other latents."""
    latents, _ = draw_by_diffusers(model, 4.5)
    for other in (tiny_sd3(shift=1.0), tiny_sd3(t5=False), tiny_sd3(seed=1)):
        drawn = other.sample(other.encode(PROMPTS), other.encode([""]), SEEDS, steps=3, guidance=4.5).x
        assert (drawn - latents).abs().max() > 1e-3


@pytest.mark.parametrize("sampler", ["ddim", "ddim-unclipped", "dpm", "unipc"])
def test_other_samplers_come_to_the_same_picture(sampler: Any) -> None:
    """Of one ODE: with many steps they agree, and Euler's method is DDIM's on a flow."""
    model = tiny_sd3()
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    own = model.sample(cond, uncond, SEEDS, steps=60, guidance=2.0).x
    other = model.sample(cond, uncond, SEEDS, steps=60, guidance=2.0, sampler=sampler).x
    assert torch.equal(own, other) if sampler.startswith("ddim") else (own - other).abs().mean() < 0.05 * own.std()


def test_a_trajectory_goes_on_from_its_middle(model: StableDiffusion3) -> None:
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    how = {"steps": 5, "guidance": 2.0}
    whole = model.sample(cond, uncond, SEEDS, record=True, **how)
    half = model.sample(cond, uncond, SEEDS, until=2, **how).x
    assert torch.equal(half, whole.states[2])
    assert torch.equal(model.sample(cond, uncond, SEEDS, start=half, since=2, **how).x, whole.x)
    levels = model.find_noise_level(model.list_timesteps(5))
    clean = torch.randn(2, *model.latent_shape)
    noise = draw_noise(SEEDS, model.latent_shape)[1]
    expected = levels.alpha[2].float() * clean + levels.sigma[2].float() * noise
    assert torch.allclose(model.add_noise(clean, SEEDS, 2, steps=5), expected, atol=1e-6)


def test_levels_are_those_of_the_straight_way(model: StableDiffusion3) -> None:
    level = model.find_noise_level(torch.tensor([0.0, 250.0, 1000.0]))
    assert torch.equal(level.sigma, torch.tensor([0.0, 0.25, 1.0], dtype=torch.double))
    assert torch.equal(level.alpha, 1 - level.sigma)
    scheduler = model.build_scheduler()
    scheduler.set_timesteps(7)
    assert torch.allclose(model.find_noise_level(scheduler.timesteps).sigma.float(), scheduler.sigmas[:-1], atol=1e-6)
    assert torch.equal(NoiseLevel.from_flow(level.sigma).alpha, level.alpha)


def test_pictures_are_walked_back_to_their_noise_by_euler(model: StableDiffusion3) -> None:
    cond, uncond = model.encode(PROMPTS), model.encode([""])
    latents = redraw(model, draw_noise(SEEDS, model.latent_shape)[1], cond, uncond, steps=8, guidance=1.0)
    noise = invert(model, latents, cond, uncond, steps=8, refine=30)
    again = redraw(model, noise, cond, uncond, steps=8, guidance=1.0)
    assert (again - latents).abs().max() < 1e-3


def test_text_maps_say_what_reads_the_prompt(model: StableDiffusion3) -> None:
    check_text_maps(model)


def test_token_embeddings_read_as_their_text_does_but_for_t5(model: StableDiffusion3) -> None:
    read = model.encode_embedded(model.embed(model.tokenize(PROMPTS)))
    own, silent = model.encode(PROMPTS), model.encode([""])
    assert torch.allclose(read.sequence["clip"], own.sequence["clip"], atol=1e-5)
    assert torch.allclose(read.tensors["pooled"], own.tensors["pooled"], atol=1e-5)
    assert torch.allclose(read.sequence["t5"], silent.sequence["t5"].expand(2, -1, -1), atol=1e-5)
    prefix, passes = torch.zeros(2, 1, 28, requires_grad=True), []
    counting = model.t5.register_forward_hook(lambda *_: passes.append(1))
    moved = model.encode_with_grad(PROMPTS, prefix)
    counting.remove()
    assert len(passes) == 1
    assert torch.allclose(moved.sequence["t5"], own.sequence["t5"], atol=1e-5)
    (grad,) = torch.autograd.grad(moved.sequence["clip"].sum() + moved.tensors["pooled"].square().sum(), [prefix])
    assert grad.any()


def test_an_embedding_stands_for_all_that_is_read(model: StableDiffusion3) -> None:
    cat = model.encode(["a cat"])
    own = model.encode([Prompt("a dog", model.get_embedding(cat)[0])])
    assert all(torch.equal(part, cat.tensors[name]) for name, part in own.tensors.items())
    with pytest.raises(ValueError, match=r"an embedding for tiny-sd3 is \(8, 28\) and \(10, 32\), or"):
        model.encode([Prompt("", torch.zeros(3))])


@pytest.mark.parametrize("t5", [True, False])
def test_it_opens_from_a_folder_and_from_memory(t5: bool, tmp_path: Path) -> None:
    ours = efface.load(tiny_sd3_pipeline(t5=t5))
    assert isinstance(ours, StableDiffusion3) and (ours.defaults.guidance, ours.defaults.steps) == (7.0, 28)
    ours.save_pretrained(tmp_path / "model")
    again = efface.load(tmp_path / "model", "cpu")
    assert again.fingerprint() == ours.fingerprint()
    drawn = [each.images(PROMPTS, SEEDS, steps=2, guidance=3.0) for each in (ours, again)]
    assert torch.equal(*drawn)


def test_weights_have_the_names_of_published_checkpoints(model: StableDiffusion3) -> None:
    names = {*model.weights}
    assert "text_encoder.text_model.embeddings.token_embedding.weight" in names
    assert "text_encoder_2.text_projection.weight" in names
    assert "text_encoder_3.shared.weight" in names
    assert "transformer.transformer_blocks.0.attn.add_k_proj.weight" in names
    before = model.encode(["a cat"]).sequence["t5"]
    with model.swap_in({"text_encoder_3.shared.weight": 2 * model.weights["text_encoder_3.shared.weight"]}):
        assert not torch.allclose(model.encode(["a cat"]).sequence["t5"], before)


def test_named_subsets_select_by_role(model: StableDiffusion3) -> None:
    """`attn2` of 3.5-medium reads the picture; what reads the prompt is the text's stream."""
    chosen = {name: select(model.weights, name) for name in (*JOINT,) if name not in ("xlayer", "selflayer")}
    roles = {
        role: [e.weight for e in model.list_text_maps() if e.role == role] for role in ("cross", "embedder", "pooled")
    }
    for role, weights in roles.items():
        assert {*weights} <= {*chosen[role]}
    assert not any(".attn2." in name for name in chosen["xattn"] + chosen["cross"])
    assert any(".attn2." in name for name in chosen["selfattn"]) and any(".attn2." in n for n in chosen["noxattn"])
    assert not {*chosen["xattn"]} & {*chosen["noxattn"], *chosen["selfattn"]}
    assert {n.split(".attn.")[1].split(".")[0] for n in chosen["qk"]} == {
        "to_q",
        "to_k",
        "add_q_proj",
        "add_k_proj",
    }
    assert {n.split(".attn.")[1].split(".")[0] for n in chosen["text-qk"]} == {"add_q_proj", "add_k_proj"}
    assert {name.split(".")[0] for name in chosen["text-encoders"]} == {
        "text_encoder",
        "text_encoder_2",
        "text_encoder_3",
    }
    assert not [n for n in chosen["notime"] if "timestep_embedder" in n or "proj_out" in n]


@pytest.mark.parametrize("make", [tiny_sd3, tiny_flux, tiny_sana])
def test_prompts_are_encoded_once_and_the_text_encoders_may_go(make: Any) -> None:
    model = make()
    before, drawn = model.fingerprint(), model.images(PROMPTS, SEEDS, steps=2)
    model.drop_text_encoders()
    assert not any(name.startswith("text_encoder") for name in model.weights)
    assert model.fingerprint() == before and torch.equal(model.images(PROMPTS, SEEDS, steps=2), drawn)
    with pytest.raises(ValueError, match=r"dropped its text encoders before it read 'a car'"):
        model.images("a car")
    edit = methods.get("esd")(steps=1, batch=1, draw_steps=2).fit(model, Erasure(("a dog",)))
    assert edit.names
    with edit.apply(model), pytest.raises(ValueError, match="leave it before dropping text encoders"):
        model.drop_text_encoders()


def test_a_search_in_the_encoding_moves_every_way_in(model: StableDiffusion3) -> None:
    cond = model.encode(PROMPTS)
    at = flatten_parts(cond).requires_grad_()
    moved = replace_parts(cond, at, model.name)
    assert all(torch.equal(part, cond.tensors[name]) for name, part in moved.tensors.items())
    (said,) = model.predict(torch.randn(2, *model.latent_shape), 500.0, moved)
    (grad,) = torch.autograd.grad(said.square().sum(), [at])
    sizes = [part[0].numel() for part in cond.sequence.values()]
    assert all(part.any() for part in grad.split([*sizes, cond.tensors["pooled"].shape[1]], dim=1))


def test_uce_on_the_context_embedder_is_what_a_numerical_minimiser_finds(model: StableDiffusion3) -> None:
    """sum |W c - W0 c*|^2 + lamb |W - W0|^2 over both encoders' last tokens, descended by L-BFGS."""
    edit = methods.get("uce")(lamb=0.5).fit(model, Erasure(("cat",), anchor="dog"))
    read = [model.get_text_inputs(model.encode([word]), "joint.text")[0].detach().double() for word in ("cat", "dog")]
    places = (1, 8)  # CLIP's first word stands after the start; T5's first word is its first row, after CLIP's eight
    for name, rows in (
        ("transformer.context_embedder.weight", [(read[0][i], read[1][i]) for i in places]),
        (
            "transformer.time_text_embed.text_embedder.linear_1.weight",
            [tuple(model.encode([word]).tensors["pooled"][0].double() for word in ("cat", "dog"))],
        ),
    ):
        w0 = model.weights[name].detach().double()
        w = w0.clone().requires_grad_()
        search = torch.optim.LBFGS([w], max_iter=500, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

        def loss(w: torch.Tensor = w, w0: torch.Tensor = w0, rows: Any = rows, search: Any = search) -> torch.Tensor:
            search.zero_grad()
            total = 0.5 * (w - w0).square().sum() + sum((w @ c - w0 @ goal).square().sum() for c, goal in rows)
            total.backward()
            return total

        search.step(loss)
        assert torch.allclose(edit.values[name].double(), w.detach(), atol=1e-4)
