"""How the embedded flow is made: its conditions, its loss, a training that resumes, and a bundle that opens."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel
from transformers import CLIPTokenizer

import efface
from efface.models import loading
from efface.models.adapters.sd3 import StableDiffusion3, StableDiffusion3Pipeline
from efface.models.opening.shared import assemble
from workshop.glyphs import bundle, bundle_flow, flow, loop, unet, world


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled parts, and a square of its own colour for every thing."""
    folder, here = tmp_path_factory.mktemp("build"), world.load("small")
    bundle.unpack(folder)
    rng, art = np.random.default_rng(0), {}
    for style in here.styles:
        for thing in here.things:
            art[f"{style.name}/{thing.name}"] = np.full((96, 96, 4), 255, np.uint8)
            art[f"{style.name}/{thing.name}"][..., :3] = rng.integers(0, 256, 3)
    np.savez(folder / "art.npz", **art)
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    fit = loop.fit
    monkeypatch.setattr(flow, "LAYERS", 2)
    monkeypatch.setattr(loop, "fit", lambda *args, **more: fit(*args, **more, workers=0, save_every=0.0))


def test_it_has_about_twelve_million_parameters(monkeypatch: pytest.MonkeyPatch, build: Path) -> None:
    monkeypatch.undo()
    settings = flow.build_config(flow.load_towers(build))
    with torch.device("meta"):
        made = SD3Transformer2DModel(**settings)
    assert 11.5e6 < sum(p.numel() for p in made.parameters()) < 12.5e6


def test_levels_are_half_logit_normal_and_half_even() -> None:
    torch.manual_seed(0)
    sigma = flow.draw_levels(4000)
    assert sigma.shape == (4000,) and sigma.min() > 0 and sigma.max() < 1
    # The shares below a few levels are those of the mixture, whose parts have known distributions.
    for level in (0.1, 0.5, 0.9):
        normal = 0.5 * (1 + math.erf(math.log(level / (1 - level)) / math.sqrt(2)))
        assert (sigma < level).float().mean().item() == pytest.approx((normal + level) / 2, abs=2e-3)
    assert (sigma[:1000].mean() - 0.5).abs() < 0.05  # in random order


def test_the_loss_is_the_velocitys_without_a_teacher() -> None:
    seen: dict[str, torch.Tensor] = {}

    def said(hidden_states: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        seen["t"], seen["x"] = timestep, hidden_states
        return (torch.zeros_like(hidden_states),)

    torch.manual_seed(0)
    loss, _ = flow.flow_loss(said, torch.zeros(4000, 1, 2, 2), torch.zeros(1), torch.zeros(1))  # type: ignore[arg-type]
    # Of x_0 = 0 the state is sigma eps, and the velocity eps.
    assert loss.item() == pytest.approx(
        (seen["x"] / (seen["t"] / 1000).view(-1, 1, 1, 1)).square().mean().item(), rel=1e-4
    )


def test_a_teacher_that_knows_picture_and_noise_says_their_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    alphas = unet.build_scheduler().alphas_cumprod
    teacher = flow.Teacher(None, alphas)  # type: ignore[arg-type]
    wanted = torch.tensor([0.1, 0.5, 0.9, 0.97])
    t, sigma = teacher.find_levels(wanted)
    assert (sigma - wanted).abs().max() < 1e-3
    x_0, noise, a = torch.randn(4, 2, 3, 3), torch.randn(4, 2, 3, 3), alphas[t].view(-1, 1, 1, 1)

    def oracle(_: object, x_t: torch.Tensor, steps: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
        assert torch.equal(steps, t)
        torch.testing.assert_close(x_t, a.sqrt() * x_0 + (1 - a).sqrt() * noise)
        return a.sqrt() * noise - (1 - a).sqrt() * x_0

    monkeypatch.setattr(flow, "predict_in_float32", oracle)
    level = sigma.view(-1, 1, 1, 1)
    torch.testing.assert_close(
        teacher.predict_velocity((1 - level) * x_0 + level * noise, t, torch.zeros(4, 1, 1)), noise - x_0
    )


def test_training_resumes_and_the_bundle_opens_as_stable_diffusion_3(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world.load("small")
    once = flow.train(here, build, steps=3, batch=2)
    (build / "flow-small.pt").unlink()
    taken = iter(range(2))

    def stop(batch: np.ndarray, pixels=loop.scale_pixels) -> torch.Tensor:
        if next(taken, None) is None:
            raise KeyboardInterrupt
        return pixels(batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "scale_pixels", stop)
        flow.train(here, build, steps=3, batch=2)
    assert torch.load(build / "flow-small.pt", weights_only=True)["step"] == 2
    resumed = flow.train(here, build, steps=3, batch=2)
    assert all(torch.equal(p, q) for p, q in zip(once.parameters(), resumed.parameters(), strict=True))
    resumed.save_pretrained(build / "flow")
    shutil.copytree(bundle.TARGET, tmp_path / "glyphs", ignore=shutil.ignore_patterns("unet", "judges"))
    bundle_flow.write(here, build, tmp_path / "glyphs-flow")
    held = {file.parent.name: file.stat().st_size for file in (tmp_path / "glyphs-flow").rglob("*.safetensors")}
    assert held.keys() == {"transformer", "text_encoder"} and held["text_encoder"] < 100_000  # its projection alone
    monkeypatch.setattr(loading, "BUNDLED", tmp_path)
    model = efface.load("glyphs-flow", "cpu", compute="own")
    assert isinstance(model, StableDiffusion3)
    defaults, words = model.defaults, model.list_words(500)
    assert (defaults.blank_tokens, defaults.guidance, model.latent_shape) == (0, 3.0, (16, 8, 8)) and "cat" in words
    assert model.images(["a cat", "a dog"], [1, 2], steps=2).shape == (2, 3, 64, 64)
    # It reads prompts as it was trained to.
    towers, tokens = flow.load_towers(build), CLIPTokenizer.from_pretrained(build / "tokenizer")
    states, pooled = flow.encode_conditions(towers, tokens, ["a cat"])
    read = model.encode(["a cat"])
    assert torch.allclose(read.tokens, states, atol=0.1) and torch.allclose(read.tensors["pooled"], pooled, atol=0.1)
    assert (read.tokens - model.encode(["a dog"]).tokens).abs().max() > 0.5
    # diffusers opens what is put together, bit for bit.
    folder = assemble(tmp_path / "glyphs-flow" / "model", tmp_path / "whole")
    plain = StableDiffusion3Pipeline.from_pretrained(folder, text_encoder_3=None, tokenizer_3=None).to(torch.float32)
    theirs = efface.load(plain).weights
    assert all(torch.equal(theirs[name], weight) for name, weight in model.weights.items())
    assert all(
        torch.equal(one, two) for one, two in zip(plain.vae.parameters(), model.pipeline.vae.parameters(), strict=True)
    )
    # Other towers beside it are noticed.
    weights = tmp_path / "glyphs" / "model" / "text_encoder" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    with pytest.raises(ValueError, match=r"text_encoder holds other weights than the model that shares them was made"):
        efface.load("glyphs-flow", "cpu")
    with pytest.raises(ValueError, match=r"text_encoder differs from that of .*; run the stage bundle first"):
        bundle_flow.write(here, build, tmp_path / "glyphs-flow")
