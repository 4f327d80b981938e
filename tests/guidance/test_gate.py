"""Facilitated transport: gate 1 is the merged edit, gate 0 the base, and rows of a batch have gates of their own."""

from __future__ import annotations

import pytest
import torch

from efface.concept import Erasure, Prompt
from efface.edits.edit import Edit, apply
from efface.edits.provenance import describe_run
from efface.guidance.gate import MATCH, Gate, adapt_layers
from efface.methods.guided import add_gate
from efface.models.adapters.sd import StableDiffusion
from tiny_ddpm import tiny_ddpm

LAYERS = (
    "unet.conv_in.weight",
    "unet.down_blocks.0.resnets.0.time_emb_proj.weight",
    "unet.down_blocks.0.downsamplers.0.conv.weight",
    "unet.mid_block.attentions.0.proj_in.weight",
    "unet.mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "unet.mid_block.attentions.0.transformer_blocks.0.ff.net.2.weight",
)


def build_low_rank(model: StableDiffusion, rank: int = 2) -> Edit:
    rng = torch.Generator().manual_seed(4)
    values = {}
    for name in LAYERS:
        flat = model.weights[name].flatten(1)
        values[f"{name}:down"] = torch.randn(rank, flat.shape[1], generator=rng) / flat.shape[1] ** 0.5
        values[f"{name}:up"] = 0.3 * torch.randn(len(flat), rank, generator=rng)
    return Edit(values, describe_run(model, Erasure(("cat",)), "test", {}))


def state(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(1)
    return torch.randn(n, 4, 8, 8, generator=rng), torch.randint(1000, (n,), generator=rng)


@torch.no_grad()
def test_factors_one_nothing_and_mixed(eps_model):
    edit = build_low_rank(eps_model)
    guide = add_gate(edit, ["cat"]).build_guider()
    assert isinstance(guide, Gate)
    (x, t), cond = state(3), eps_model.encode(["a cat", "dog", "car"])
    factors = guide.load_factors(eps_model)
    (base,) = eps_model.predict(x, t, cond)
    with adapt_layers(eps_model, factors, torch.zeros(3)):
        assert torch.equal(eps_model.predict(x, t, cond)[0], base)
    wanted = {}
    for gamma in (1.0, 0.3):
        with edit.apply(eps_model, gamma):
            (wanted[gamma],) = eps_model.predict(x, t, cond)
        with adapt_layers(eps_model, factors, torch.full((3,), gamma)):
            assert torch.allclose(eps_model.predict(x, t, cond)[0], wanted[gamma], atol=1e-5)
    assert (wanted[1.0] - base).abs().max() > 1e-2
    with adapt_layers(eps_model, factors, torch.tensor([1.0, 0.0, 0.3])):
        (mixed,) = eps_model.predict(x, t, cond)
    separate = torch.stack([wanted[1.0][0], base[1], wanted[0.3][2]])
    assert torch.allclose(mixed, separate, atol=1e-5)
    assert torch.equal(eps_model.predict(x, t, cond)[0], base)


def test_how_far_prompts_open_it(eps_model):
    guide = add_gate(build_low_rank(eps_model), ["red cat", "car"]).build_guider()
    texts = ["cat", "a red cat", "dog", "", "a car", "a red dog"]
    plain = eps_model.encode(texts).tokens.flatten(1)
    own = eps_model.encode(["red cat", "car"]).tokens.flatten(1)
    overlap = [[0.5, 0], [1, 0], [0, 0], [0, 0], [0, 1], [0.5, 0]]
    with eps_model.guided_by(guide):
        found = eps_model.encode(texts).tensors[MATCH]
    for row, gamma in enumerate(found.tolist()):
        alike = [float(plain[row] @ concept / plain[row].norm() / concept.norm()) for concept in own]
        assert gamma == pytest.approx(max(*alike, *overlap[row]), abs=1e-5)
    assert MATCH not in eps_model.encode(texts).tensors


@torch.no_grad()
def test_the_release_acts_with_the_square(eps_model):
    """The authors' state dict, both factors times gamma, merged by hand; gamma alone is the paper's."""
    edit = build_low_rank(eps_model)
    (x, t), cond = state(1), eps_model.encode(["a red dog"])
    for power in (1, 2):
        guide = add_gate(edit, ["red cat"], power).build_guider()
        with eps_model.guided_by(guide):
            seen = eps_model.encode(["a red dog"])
            gamma = float(seen.tensors[MATCH])
        with guide.act_in_network(eps_model, seen):
            (found,) = eps_model.predict(x, t, seen)
        assert 0.3 < gamma < 0.999
        scaled = {
            key: value * (gamma if power == 2 or key.endswith(":up") else 1) for key, value in edit.values.items()
        }
        with Edit(scaled, edit.meta).apply(eps_model):
            assert torch.allclose(eps_model.predict(x, t, cond)[0], found, atol=1e-5)
    with pytest.raises(ValueError, match="its power is 1 or 2, got 3"):
        add_gate(edit, ["cat"], 3).build_guider()


def test_an_edit_from_before_there_was_a_power_is_read(eps_model):
    edit = add_gate(build_low_rank(eps_model), ["cat"])
    arguments = {key: value for key, value in edit.meta["guide"]["arguments"].items() if key != "power"}
    old = Edit(edit.values, {**edit.meta, "guide": {"name": "gate", "arguments": arguments}}).build_guider()
    assert isinstance(old, Gate) and old.power == 1
    less = {key: value for key, value in arguments.items() if key != "rank"}
    with pytest.raises(ValueError, match=r"the guide gate takes .*rank"):
        Edit(edit.values, {**edit.meta, "guide": {"name": "gate", "arguments": less}}).build_guider()


def test_words_beyond_what_the_model_reads_open_nothing(eps_model):
    """A concept named after the prompt's last place is cut off, for the overlap of words as for the cosine."""
    guide = add_gate(build_low_rank(eps_model), ["cat"]).build_guider()
    room = eps_model.max_tokens - 2
    long, cut = " ".join(["dog"] * room + ["cat"]), " ".join(["dog"] * room)
    with eps_model.guided_by(guide), pytest.warns(UserWarning, match="loses? (its|their) end"):
        found = eps_model.encode([long, cut]).tensors[MATCH]
    assert found[0] == found[1] < 1


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_drawing_the_concept_is_the_merged_edit_and_the_opposite_the_base(eps_model, guidance):
    edit = build_low_rank(eps_model)
    gate = add_gate(edit, ["cat"])
    # An embedding whose cosine with the concept's is negative: its gate is shut.
    far = Prompt("", -eps_model.encode(["cat"]).tokens[0])
    prompts, seeds = ["a cat", far, "a red cat"], [1, 2, 3]
    base = eps_model.images(prompts, seeds, guidance=guidance)
    with edit.apply(eps_model):
        merged = eps_model.images(prompts, seeds, guidance=guidance)
    with gate.apply(eps_model):
        drawn = eps_model.images(prompts, seeds, guidance=guidance)
        alone = torch.cat([eps_model.images([p], [s], guidance=guidance) for p, s in zip(prompts, seeds, strict=True)])
    assert torch.equal(drawn[1], base[1])
    for row in (0, 2):
        assert (drawn[row].int() - merged[row].int()).abs().max() <= 1
        assert (drawn[row].int() - base[row].int()).abs().max() > 3
    assert (drawn.int() - alone.int()).abs().max() <= 1
    assert torch.equal(eps_model.images(prompts, seeds, guidance=guidance), base)
    assert not any(layer._forward_hooks for layer in eps_model.unet.modules())


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_it_predicts_no_more_often_than_plain_guidance(eps_model, guidance, monkeypatch):
    """The gate is computed from texts; what a network would have to say of it is nothing."""
    edit, rows = build_low_rank(eps_model), []
    network = eps_model._call_network
    monkeypatch.setattr(eps_model, "_call_network", lambda x, t, cond: rows.append(len(x)) or network(x, t, cond))
    with edit.apply(eps_model):
        eps_model.images(["a cat", "dog"], [1, 2], guidance=guidance)
    merged = rows.copy()
    rows.clear()
    with add_gate(edit, ["cat"]).apply(eps_model):
        eps_model.images(["a cat", "dog"], [1, 2], guidance=guidance)
    assert rows == merged == [2 if guidance == 1 else 4] * eps_model.defaults.steps


def test_strength_scales_the_factor_and_recording_stays_plain(eps_model):
    edit = build_low_rank(eps_model)
    gate, (cond, uncond) = add_gate(edit, ["cat"]), (eps_model.encode(["cat"]), eps_model.encode([""]))
    with edit.apply(eps_model, 0.4):
        merged = eps_model.sample(cond, uncond, [5]).x
    with gate.apply(eps_model, 0.4):
        inner = eps_model.encode(["cat"]), eps_model.encode([""])
        assert torch.allclose(eps_model.sample(*inner, [5]).x, merged, atol=1e-4)
        draw = eps_model.sample(*inner, [5], record=True)
    eps_0, eps_c = eps_model.predict(draw.states[1], draw.t[1], uncond, cond)
    assert torch.allclose(draw.x, merged, atol=1e-4)
    assert torch.allclose(draw.eps_c[1], eps_c, atol=1e-5)
    assert torch.allclose(draw.eps_0[1], eps_0, atol=1e-5)


def test_saved_loaded_and_beside_another_edit(eps_model, tmp_path):
    gate = add_gate(build_low_rank(eps_model), ["cat"])
    loaded = Edit.load(gate.save(tmp_path / "gate.safetensors"))
    name = "unet.conv_out.weight"
    other = Edit({name: 0.5 * eps_model.weights[name].detach()}, dict(gate.meta) | {"guide": None})
    pictures = []
    for edits in ([gate], [loaded], [gate, other]):
        with apply(eps_model, edits):
            pictures.append(eps_model.images(["a cat"], [3]))
    assert torch.equal(pictures[0], pictures[1])
    assert not torch.equal(pictures[0], pictures[2])
    assert not gate.names
    with pytest.raises(ValueError, match="it acts while efface draws"):
        gate.export(eps_model, tmp_path / "folder")


def test_what_does_not_fit_is_refused_before_work(eps_model):
    edit = build_low_rank(eps_model)
    with pytest.raises(ValueError, match=r"low-rank changes alone, and 'unet.conv_in.bias'"):
        add_gate(Edit({**edit.values, "unet.conv_in.bias": torch.zeros(8)}, edit.meta), ["cat"])
    with pytest.raises(ValueError, match="adapters of one rank; got 1, 2"):
        one = {key: value for key, value in build_low_rank(eps_model, 1).values.items() if "conv_in" in key}
        add_gate(Edit({**edit.values, **one}, edit.meta), ["cat"])
    parts = {"concepts": ("cat",), "rank": 1, "down": torch.zeros(5), "up": torch.zeros(5)}
    for layer in ("unet.nowhere.weight", "unet.conv_in.bias", "unet.conv_norm_out.weight"):
        with pytest.raises(ValueError, match=f"{layer!r} is no linear"):
            Gate(layers=(layer,), **parts).check(eps_model)
    with pytest.raises(ValueError, match="have 36 and 8 numbers, the gate has 5 and 5"):
        Gate(layers=("unet.conv_in.weight",), **parts).check(eps_model)
    with pytest.raises(ValueError, match="does not read"):
        Gate(layers=("unet.conv_in.weight",), **parts).check(tiny_ddpm())
