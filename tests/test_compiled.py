"""A compiled network; apart from the rest, for a compiler takes its time."""

from __future__ import annotations

import pytest
import torch

import efface
from efface.concept import Erasure
from efface.guidance.gate import Gate
from efface.methods.esd import ESD
from efface.models.adapters.sd import StableDiffusion
from efface.models.hooks import activations
from efface.models.hooks.attention import record_cross_attention
from tiny import small_pipeline

QUICK = {"steps": 2, "batch": 2, "draw_steps": 3, "lr": 1e-3, "paths": 2, "source": "frozen", "weights": "noxattn"}


def test_a_compiled_network_says_and_learns_the_same(monkeypatch):
    """Traced, with the student's weights swapped in by reference: masters of one turn are not baked in for the next.

    In fp32 it differs by the order of sums: by 1e-5 of a prediction, by a level or none of a picture.
    """
    inner = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **k: inner(call, backend="aot_eager", **k))
    torch._dynamo.reset()
    plain, traced = (efface.load(small_pipeline(), "cpu", compile=compile) for compile in (False, True))
    one, two = (ESD(**QUICK).fit(model, Erasure(("cat",))) for model in (plain, traced))
    base = plain.weights
    for name, value in one.values.items():
        moved = (value - base[name]).norm()
        assert (two.values[name] - value).norm() <= 0.05 * moved + 1e-7, name
    found = []
    for model, edit in ((plain, one), (traced, two)):
        pictures = [model.images(["a cat", "a dog"], [1, 2], steps=2)]
        with edit.apply(model):
            pictures.append(model.images(["a cat", "a dog"], [1, 2], steps=2))
        found.append(pictures)
    assert not torch.equal(*found[1])
    for eager, compiled in zip(*found, strict=True):
        assert (eager.int() - compiled.int()).abs().max() <= 1


def draw_through_a_gate(model: StableDiffusion) -> torch.Tensor:
    names = tuple(name for name in model.weights if name.endswith("attn2.to_v.weight"))
    wide = sum(model.weights[name].shape[1] for name in names)
    high = sum(model.weights[name].shape[0] for name in names)
    rng = torch.Generator().manual_seed(5)
    down, up = (3 * torch.randn(n, generator=rng) for n in (wide, high))
    gate = Gate(concepts=("cat",), layers=names, rank=1, down=down, up=up)
    with model.guided_by(gate):
        return model.images(["a cat"], [1], steps=2).float()


def record_attention(model: StableDiffusion) -> torch.Tensor:
    with record_cross_attention(model) as maps:
        model.predict(torch.ones(1, *model.latent_shape), 1, model.encode(["a cat"]))
    return torch.cat([each.detach().flatten() for each in maps.values()])


def record_neurons(model: StableDiffusion) -> torch.Tensor:
    layers, x = activations.find_layers(model), torch.ones(1, *model.latent_shape)
    return activations.measure_activations(model, layers, x, torch.ones(1), model.encode(["a cat"]), 1)


@pytest.mark.parametrize("look", [draw_through_a_gate, record_attention, record_neurons])
def test_hooks_act_on_a_network_that_was_compiled_before(look, monkeypatch):
    """A compiled network passes over hooks that came later, so it runs uncompiled while they are in place."""
    inner = torch.compile
    monkeypatch.setattr(torch, "compile", lambda call, **k: inner(call, backend="eager", **k))
    torch._dynamo.reset()
    plain, traced = (efface.load(small_pipeline(), "cpu", compile=compile) for compile in (False, True))
    before = traced.images(["a cat"], [1], steps=2)
    assert torch.allclose(look(traced), look(plain), atol=1e-5)
    assert traced.network._compiled_call_impl is not None
    if look is draw_through_a_gate:
        assert (look(traced) - before).abs().max() > 3
