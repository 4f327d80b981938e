"""Edits that were trained: several at once, at any strength, on another base or dtype, and exported."""

from __future__ import annotations

import pytest
import torch

import efface
from efface.concept import Erasure
from efface.edits.edit import Edit, WrongBase, apply
from efface.methods.esd import ESD
from efface.models.adapters.sd import StableDiffusion
from tiny import tiny_model, tiny_pipeline
from trainer_fixtures import QUICK


def build_edits(model: StableDiffusion) -> tuple[Edit, Edit]:
    one = ESD(**QUICK, weights="xattn").fit(model, Erasure(("cat",)))
    two = ESD(**QUICK, weights="xattn-strict,selfattn").fit(model, Erasure(("dog",)))
    return one, two


def test_several_edits_add_up_and_overlaps_are_reported(eps_model):
    one, two = build_edits(eps_model)
    base = eps_model.weights
    shared = next(name for name in one.values if name in two.values)
    with (
        pytest.warns(UserWarning, match="weights are changed by several edits"),
        apply(eps_model, [one, two], [1, 0.5]),
    ):
        now = eps_model.weights
        expected = base[shared] + (one.values[shared] - base[shared]) + 0.5 * (two.values[shared] - base[shared])
        assert torch.allclose(now[shared], expected)
    assert all(now is before for now, before in zip(eps_model.weights.values(), base.values(), strict=True))


def test_strength_is_linear(eps_model):
    one, _ = build_edits(eps_model)
    name = next(iter(one.values))
    base = eps_model.weights[name].detach().clone()
    with one.apply(eps_model, 2.0):
        assert torch.allclose(eps_model.weights[name], base + 2 * (one.values[name] - base))


def test_another_base_is_refused_with_both_fingerprints(eps_model):
    one, _ = build_edits(eps_model)
    other = tiny_model(seed=1)
    with pytest.raises(WrongBase, match="made for 'tiny' with fingerprint") as caught, one.apply(other):
        pass
    assert one.meta["base"]["fp32"][:12] in str(caught.value)
    assert other.fingerprint()["fp32"][:12] in str(caught.value)


def test_the_base_at_another_dtype_is_accepted():
    one, _ = build_edits(tiny_model())
    half = efface.load(tiny_pipeline(), dtype="bf16")
    with one.apply(half):
        assert half.weights[next(iter(one.values))].dtype == torch.bfloat16


def test_export_opens_elsewhere(eps_model, tmp_path):
    one, _ = build_edits(eps_model)
    one.export(eps_model, tmp_path / "out")
    plain = efface.load(str(tmp_path / "out"), device="cpu")
    with one.apply(eps_model):
        expected = eps_model.images(["a cat"], [0])
    assert torch.equal(plain.images(["a cat"], [0], steps=4, guidance=3.0), expected)


def test_swap_in_refuses_unknown_names(eps_model):
    with pytest.raises(KeyError, match="no weight 'nonsense'"), eps_model.swap_in({"nonsense": torch.zeros(1)}):
        pass
