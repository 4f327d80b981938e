"""Concept neurons: the formulas against loops, the hooks against a forward pass by hand."""

from __future__ import annotations

import itertools

import pytest
import torch

from efface.concept import Erasure
from efface.diagnostics.neurons import NeuronConfig, diagnose
from efface.edits.edit import Edit
from efface.edits.provenance import describe_run
from efface.functional.neurons import (
    find_strongest,
    measure_change,
    measure_contrast,
    measure_correlation,
    measure_relative_change,
)
from efface.guidance.negative import Negative
from efface.guidance.registry import to_json
from efface.models.hooks import activations as watch
from efface.reporting.neurons import render_neurons
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm

ADVERSARIAL = ("dog", "a red tiger")
HOW = NeuronConfig(seeds=3, points=2, steps=4, guidance=2.0, top=0.25, draws=50)


def test_change_is_the_mean_distance():
    one, other = torch.rand(4, 3), torch.rand(4, 3)
    for i in range(3):
        by_hand = sum(abs(float(one[r, i]) - float(other[r, i])) for r in range(4)) / 4
        assert measure_change(one, other)[i].item() == pytest.approx(by_hand, rel=1e-5)
        shares = [abs(float(one[r, i]) - float(other[r, i])) / float(one[r, i]) for r in range(4)]
        assert measure_relative_change(one, other)[i].item() == pytest.approx(sum(shares) / 4, rel=1e-5)
    with pytest.raises(ValueError, match="same rows and neurons"):
        measure_change(one, other[:2])


def test_the_correlation_is_signed_as_in_the_paper():
    """Switched off counts, woken counts against it; a neuron that does both in turn has none, and half a change."""
    base, erased = torch.tensor([[4.0, 1.0, 2.0], [2.0, 1.0, 2.0]]), torch.tensor([[1.0, 4.0, 3.0], [1.0, 2.0, 1.0]])
    assert measure_correlation(base, erased).tolist() == [2.0, -2.0, 0.0]
    assert measure_change(base, erased).tolist() == [2.0, 2.0, 1.0]
    with pytest.raises(ValueError, match="same rows and neurons"):
        measure_correlation(base, erased[:1])


def test_the_strongest_share():
    assert find_strongest(torch.tensor([1.0, 5.0, 2.0, 4.0]), 0.5).tolist() == [1, 3]
    assert find_strongest(torch.tensor([1.0, 5.0]), 0.01).tolist() == [1]
    with pytest.raises(ValueError, match="above 0 and below 1"):
        find_strongest(torch.ones(3), 1.0)


def test_random_sets_are_as_by_enumeration():
    values, chosen = torch.tensor([1.0, 2.0, 3.0, 4.0, 10.0]).double(), torch.tensor([3, 4])
    sets = [sum(float(values[i]) for i in two) / 2 for two in itertools.combinations(range(5), 2)]
    found = measure_contrast(values, chosen, 20_000, torch.Generator().manual_seed(0))
    assert found.mean == 7.0
    assert found.random == pytest.approx(sum(sets) / len(sets), rel=0.01)
    assert found.p == pytest.approx(sum(s >= 7.0 for s in sets) / len(sets), abs=0.01)
    assert min(sets) <= found.low < found.high <= max(sets)


def test_random_sets_of_the_same_layers_explain_layers_away():
    values, strata = torch.tensor([1.0, 1.0, 1.0, 1.0, 50.0, 50.0]).double(), [0, 0, 0, 0, 1, 1]
    rng = torch.Generator().manual_seed(0)
    chosen = torch.tensor([4, 0])
    assert measure_contrast(values, chosen, 500, rng).random == pytest.approx(values.mean().item(), rel=0.15)
    within = measure_contrast(values, chosen, 500, rng, strata)
    assert (within.random, within.low, within.high, within.p) == (25.5, 25.5, 25.5, 1.0)


def build_small_edit(model, scale: float = 0.5) -> Edit:
    """Scales the values of every cross-attention."""
    values = {name: w.detach() * scale for name, w in model.weights.items() if ".attn2.to_v." in name}
    return Edit(values, describe_run(model, Erasure(("cat",)), "test", {}))


def test_activations_are_those_of_a_forward_pass_by_hand(model):
    looked_at = watch.find_layers(model)
    assert [layer.name.rpartition("transformer_blocks.0.")[2] for layer in looked_at[:2]] == [
        "attn2.to_out.0",
        "ff.net.2",
    ]
    states, t = torch.randn(5, 4, 8, 8), torch.tensor([1, 100, 300, 500, 900])
    cond = model.encode(["cat"])
    ours = watch.measure_activations(model, looked_at, states, t, cond, batch=2)
    assert ours.shape == (5, sum(layer.neurons for layer in looked_at))
    block = dict(model.unet.named_modules())[looked_at[0].name.removeprefix("unet.").removesuffix(".to_out.0")]
    caught = []
    handle = block.register_forward_hook(lambda _m, _a, out: caught.append(out.detach()))
    for i in range(5):
        model.predict(states[i : i + 1], t[i : i + 1], cond)
    handle.remove()
    for i, out in enumerate(caught):
        # The attention's own output: no residual, no rescaling in these blocks.
        by_hand = [sum(abs(float(v)) for v in out[0, :, c]) / out.shape[1] for c in range(out.shape[2])]
        torch.testing.assert_close(
            ours[i, : looked_at[0].neurons], torch.tensor(by_hand).double(), rtol=1e-4, atol=1e-6
        )


def test_convolutions_have_their_channels_elsewhere(eps_model):
    (layer,) = watch.find_layers(eps_model, r"unet\.conv_in$")
    states, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([5, 6]), eps_model.encode(["cat"])
    by_hand = eps_model.unet.conv_in(states).double().abs().mean((2, 3))
    torch.testing.assert_close(watch.measure_activations(eps_model, [layer], states, t, cond, 8), by_hand.detach())
    assert watch.find_layers(tiny_ddpm(), r"\.to_out\.0$")


def test_layers_without_positions_have_one_number_for_each_picture(eps_model):
    """Those that embed the timestep give [n, channels], where others give [n, positions, channels]."""
    states, t, cond = torch.randn(3, 4, 8, 8), torch.tensor([5, 60, 700]), eps_model.encode(["cat"])
    looked_at = watch.find_layers(eps_model, r"time_embedding\.linear_2$")
    by_hand = eps_model.unet.time_embedding(eps_model.unet.time_proj(t)).detach().double().abs()
    torch.testing.assert_close(watch.measure_activations(eps_model, looked_at, states, t, cond, 2), by_hand)
    every = watch.find_layers(eps_model, ".")
    found = watch.measure_activations(eps_model, every, states, t, cond, 2)
    assert found.shape == (3, sum(layer.neurons for layer in every))


def test_layers_without_a_number_for_each_picture_and_numbers_that_are_none_are_refused(eps_model):
    states, t, cond = torch.randn(2, 4, 8, 8), torch.tensor([5, 60]), eps_model.encode(["cat"])
    unused = watch.Layer("unet.unused", torch.nn.Linear(2, 2), 2)
    with pytest.raises(ValueError, match=r"unet\.unused \(1 such\) has no output for each row"):
        watch.measure_activations(eps_model, [unused], states, t, cond, 2)
    states[1, 0, 0, 0] = torch.inf
    with pytest.raises(ArithmeticError, match="NaN or infinite"):
        watch.measure_activations(eps_model, watch.find_layers(eps_model), states, t, cond, 2)


def test_hooks_are_gone_afterwards(eps_model):
    def broken(*_: object) -> None:
        raise RuntimeError("on the way")

    eps_model.predict = broken
    looked_at = watch.find_layers(eps_model)
    with pytest.raises(RuntimeError, match="on the way"):
        watch.measure_activations(
            eps_model, looked_at, torch.zeros(1, 4, 8, 8), torch.ones(1), eps_model.encode(["cat"]), 1
        )
    assert not any(layer.module._forward_hooks for layer in looked_at)


@pytest.mark.parametrize(("relative", "correlation"), [(False, "signed"), (True, "signed"), (False, "absolute")])
def test_the_diagnosis_is_what_loops_over_the_model_say(relative, correlation):
    model = tiny_model()
    how = NeuronConfig(
        seeds=3, points=2, steps=4, guidance=2.0, top=0.25, draws=50, relative=relative, correlation=correlation
    )
    edit = build_small_edit(model)
    found = diagnose(model, {"edit": edit}, "cat", ADVERSARIAL, how, batch=4)

    layers = watch.find_layers(model)
    names = [f"{layer.name}/{c}" for layer in layers for c in range(layer.neurons)]
    assert list(found.neurons) == names
    assert found.timesteps == [int(t) for t in model.list_timesteps(4, "ddim")[[1, 3]]]

    def seen(x, t, prompt):
        outs: dict[str, torch.Tensor] = {}
        handles = [
            layer.module.register_forward_hook(lambda _m, _a, out, name=layer.name: outs.__setitem__(name, out))
            for layer in layers
        ]
        with torch.no_grad():
            model.predict(x, t, model.encode([prompt]))
        for handle in handles:
            handle.remove()
        return [float(outs[layer.name][0, :, c].abs().mean()) for layer in layers for c in range(layer.neurons)]

    rho, delta = [0.0] * len(names), [0.0] * len(names)
    for seed in range(3):
        draw = model.sample(
            model.encode(["cat"]),
            model.encode([""]),
            [2**42 + seed],
            steps=4,
            guidance=2.0,
            record=True,
            sampler="ddim",
        )
        for point in (1, 3):
            x, t = draw.states[point], draw.t[point]
            base = seen(x, t, "cat")
            with edit.apply(model):
                plain, others = seen(x, t, "cat"), [seen(x, t, prompt) for prompt in ADVERSARIAL]
            for i in range(len(names)):
                fall = base[i] - plain[i]
                rho[i] += (fall if correlation == "signed" else abs(fall)) / 6
                unit = plain[i] if relative else 1.0
                delta[i] += sum(abs(o[i] - plain[i]) for o in others) / unit / 12
    torch.testing.assert_close(torch.tensor(found.rho), torch.tensor(rho), rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(torch.tensor(found.models["edit"].delta), torch.tensor(delta), rtol=1e-3, atol=1e-5)
    assert max(rho) > 0 and max(delta) > 0
    best = sorted(range(len(names)), key=lambda i: -found.rho[i])[: len(found.chosen)]
    assert list(found.chosen) == best and len(best) == round(0.25 * len(names))
    of_chosen = [found.models["edit"].delta[i] for i in best]
    told = found.models["edit"]
    assert told.any_layer.mean == pytest.approx(sum(of_chosen) / len(best))
    assert told.interval and told.interval[0] <= told.any_layer.mean <= told.interval[1]
    assert set(found.models) == {"base", "edit"}


def test_it_leaves_the_model_as_it_was_and_makes_a_page(eps_model):
    before = {name: (tensor, tensor.detach().clone()) for name, tensor in eps_model.weights.items()}
    edits = {"one": build_small_edit(eps_model), "<two>": build_small_edit(eps_model, 0.1)}
    found = diagnose(eps_model, edits, "cat", ADVERSARIAL, HOW)
    assert all(eps_model.weights[name] is t and torch.equal(t, copy) for name, (t, copy) in before.items())
    html = render_neurons(found, "Neurons of <cat>", "a mean absolute change")
    assert "Neurons of &lt;cat&gt;" in html and "<two>" not in html and "http" not in html
    assert html.count("<circle") == 3 + 3 * len(found.neurons)
    assert f"{found.models['one'].same_layers.mean:.3g}" in html


@pytest.mark.parametrize(
    ("prompts", "how", "says"),
    [
        ((), HOW, "at least one other"),
        (("cat",), HOW, "at least one other"),
        (ADVERSARIAL, NeuronConfig(layers="nowhere", seeds=1), r"no layer .* names end in .*attn2"),
        (ADVERSARIAL, NeuronConfig(layers="(", seeds=1), "no regular expression"),
        (ADVERSARIAL, NeuronConfig(points=5, steps=4), "5 timesteps of a trajectory of 4"),
    ],
)
def test_bad_requests_are_refused_before_work(eps_model, monkeypatch, prompts, how, says):
    monkeypatch.setattr(eps_model, "sample", lambda *_, **__: pytest.fail("work began"))
    with pytest.raises(ValueError, match=says):
        diagnose(eps_model, {"edit": build_small_edit(eps_model)}, "cat", prompts, how)
    with pytest.raises(ValueError, match="at least one edit; got none"):
        diagnose(eps_model, {}, "cat", ADVERSARIAL, HOW)
    with pytest.raises(ValueError, match="must be at least 1"):
        NeuronConfig(seeds=0)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        NeuronConfig(top=1.5)
    with pytest.raises(ValueError, match="no correlation 'squared'; there are signed, absolute"):
        NeuronConfig(correlation="squared")


def test_an_edit_that_only_guides_is_refused(eps_model):
    guide = Edit(
        {}, {**describe_run(eps_model, Erasure(("cat",)), "test", {}), "guide": to_json(Negative(prompt="cat"))}
    )
    with pytest.raises(ValueError, match="changes no weights"):
        diagnose(eps_model, {"guide": guide}, "cat", ADVERSARIAL, HOW)
