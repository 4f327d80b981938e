"""How the embedded flow is made: its conditions, its loss, a training that resumes, and a bundle that opens."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import SD3Transformer2DModel
from transformers import CLIPTokenizer

from efface.models.adapters.sd3 import StableDiffusion3, StableDiffusion3Pipeline
from efface.models.loading import _bundled_facts
from workshop.glyphs import bundle, bundle_flow, flow, loop, world


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
    settings = flow.config(flow.load_towers(build))
    with torch.device("meta"):
        made = SD3Transformer2DModel(**settings)
    assert 11.5e6 < sum(p.numel() for p in made.parameters()) < 12.5e6


def test_levels_are_logit_normal_and_the_loss_is_the_velocitys(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: dict[str, torch.Tensor] = {}

    def said(hidden_states: torch.Tensor, timestep: torch.Tensor, **_: object) -> tuple[torch.Tensor]:
        seen["t"], seen["x"] = timestep, hidden_states
        return (torch.zeros_like(hidden_states),)

    torch.manual_seed(0)
    x_0 = torch.zeros(4000, 1, 2, 2)
    loss, _ = flow.flow_loss(said, x_0, torch.zeros(1), torch.zeros(1))  # type: ignore[arg-type]
    logit = (seen["t"] / 1000).logit()
    assert logit.mean().abs() < 0.02 and abs(logit.std().item() - 1) < 0.02
    # Of x_0 = 0 the state is sigma eps, and the velocity eps.
    assert loss.item() == pytest.approx(
        (seen["x"] / (seen["t"] / 1000).view(-1, 1, 1, 1)).square().mean().item(), rel=1e-4
    )


def test_training_resumes_and_the_bundle_opens_as_stable_diffusion_3(
    build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = world.load("small")
    once = flow.train(here, build, steps=3, batch=2)
    (build / "flow-small.pt").unlink()
    taken = iter(range(2))

    def stop(batch: np.ndarray, pixels=loop.pixels) -> torch.Tensor:
        if next(taken, None) is None:
            raise KeyboardInterrupt
        return pixels(batch)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "pixels", stop)
        flow.train(here, build, steps=3, batch=2)
    assert torch.load(build / "flow-small.pt", weights_only=True)["step"] == 2
    resumed = flow.train(here, build, steps=3, batch=2)
    assert all(torch.equal(p, q) for p, q in zip(once.parameters(), resumed.parameters(), strict=True))
    resumed.save_pretrained(build / "flow")
    bundle_flow.write(here, build, tmp_path / "glyphs-flow")
    defaults, words = _bundled_facts(tmp_path / "glyphs-flow")
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        tmp_path / "glyphs-flow" / "model", text_encoder_3=None, tokenizer_3=None
    ).to(torch.float32)
    model = StableDiffusion3(pipeline, "glyphs-flow", defaults=defaults, words=words)
    assert (defaults.blank_tokens, defaults.guidance, model.latent_shape) == (0, 3.0, (16, 8, 8)) and "cat" in words
    assert model.images(["a cat", "a dog"], [1, 2], steps=2).shape == (2, 3, 64, 64)
    # It reads prompts as it was trained to.
    towers, tokens = flow.load_towers(build), CLIPTokenizer.from_pretrained(build / "tokenizer")
    states, pooled = flow.conditions(towers, tokens, ["a cat"])
    read = model.encode(["a cat"])
    assert torch.allclose(read.tokens, states, atol=0.1) and torch.allclose(read.tensors["pooled"], pooled, atol=0.1)
    assert (read.tokens - model.encode(["a dog"]).tokens).abs().max() > 0.5
