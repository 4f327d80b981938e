"""Masks that prune weights: their gradient, their cost, the Edit that is left, and a training that is killed."""

from __future__ import annotations

import math

import pytest
import torch

import efface.training.trainer
from efface.concept import Erasure
from efface.edits.deltas import unpack
from efface.functional.masks import binarise
from efface.methods.base import Method
from efface.methods.compose import Compose
from efface.methods.p_ac import PAC
from efface.methods.p_esd import PESD
from efface.training.updates.dense import Dense
from efface.training.updates.mask import KeepWeights, Mask, check_reach
from oracle import build_stirred, compute_loss_and_gradient
from update_fixtures import build_small_trainer, edit_of, is_same, play, tiny_trainer

RELAXATIONS = ("straight-through", "hard-concrete")


def test_a_mask_of_ones_is_the_base_bit_for_bit():
    trainer = tiny_trainer(Mask("full", 1e-2))
    base, model = trainer.model.weights, trainer.model
    x, t, cond = torch.randn(1, *model.latent_shape), torch.tensor([500]), model.encode(["a cat"])
    with torch.no_grad():
        before = model.predict(x, t, cond)[0]
        with trainer.update.swapped_in():
            assert all(torch.equal(tensor, base[name]) for name, tensor in model.weights.items())
            assert torch.equal(model.predict(x, t, cond)[0], before)
    assert all(tensor is base[name] for name, tensor in model.weights.items())
    assert trainer.update.compute_deltas() == {}
    assert trainer.update.collect_metadata() == {"pruned": 0}


def test_biases_and_norms_are_never_pruned():
    trainer = tiny_trainer(Mask("full", 1e-2))
    base = trainer.model.weights
    assert all(base[name].dim() >= 2 for name in trainer.update.names)
    assert any(name.endswith(".bias") and name.startswith("unet.") for name in base)
    with pytest.raises(ValueError, match="selects no weight that can be pruned"):
        tiny_trainer(Mask(r"^unet\..*\.bias$", 1e-2))


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_the_gradient_reaches_the_logits_and_no_weight_moves(relaxation):
    trainer = build_small_trainer(Mask("head", 0.5, relaxation, start=1.0))
    weight = trainer.model.weights["unet.head.weight"]
    before = weight.detach().clone()
    _, (grad,) = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    assert grad.abs().sum() > 0
    play(trainer, 4)
    assert weight.grad is None
    assert trainer.model.weights["unet.head.weight"] is weight
    assert torch.equal(weight, before)
    assert not torch.equal(trainer.update.logits[0], torch.ones_like(before))


def test_the_gradient_is_that_of_the_product():
    """d L / d s = d L / d (theta m) * theta * sigmoid'(s), by hand."""
    trainer = build_small_trainer(Mask("head", 0.1, start=0.7))
    weight = trainer.model.weights["unet.head.weight"]
    _, (grad,) = compute_loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    dense = build_small_trainer(Dense("head", 0.1), model=trainer.model)
    _, (by_weight,) = compute_loss_and_gradient(dense, dense.make_auxiliary_step(0, 0))
    s = torch.sigmoid(torch.tensor(0.7))
    assert torch.allclose(grad, by_weight * weight.detach() * s * (1 - s), rtol=1e-4, atol=1e-7)


def test_samples_stay_within_a_step_and_change_with_the_next():
    trainer = build_small_trainer(Mask("head", 1e-6, "hard-concrete", tau=2 / 3, start=0.5))
    one, same = trainer.update.relax()[0], trainer.update.relax()[0]
    play(trainer, 1)
    assert torch.equal(one, same)
    assert not torch.allclose(one, trainer.update.relax()[0], atol=1e-2)
    assert (one == 0).any()
    assert (one == 1).any()


def test_a_step_draws_its_samples_from_the_seed_and_the_number_of_steps_before_it():
    """So that an edit can be trained again, bit for bit, by any later version."""
    trainer = build_small_trainer(Mask("head", 0.1, "hard-concrete", tau=0.5, start=0.3), seed=3)
    for taken in range(3):
        (logits,) = trainer.update.logits
        u = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3 * 1_000_003 + taken)).clamp(min=1e-6)
        soft = torch.sigmoid(((u / (1 - u)).log() + logits.detach()) / 0.5)
        wanted = (1.2 * soft - 0.1).clamp(0, 1)  # stretched to [-0.1, 1.1] and cut
        assert torch.allclose(trainer.update.relax()[0], wanted, atol=1e-5)
        assert trainer.update.state_dict()["taken"].item() == taken
        play(trainer, 1)


def test_pruned_weights_are_filled_from_the_seed_alone():
    """In the order of the names, of the spread of each tensor; so by any later version too."""
    trainer = build_small_trainer(Mask("head", 0.1, sparsity=0.25, fill=0.5), seed=3)
    weight, (mask,) = trainer.model.weights["unet.head.weight"], binarise(trainer.update.logits, 0.25)
    noise = torch.randn(int((~mask).sum()), generator=torch.Generator().manual_seed(0x5EED + 3))
    filled = trainer.update.compute_deltas()["unet.head.weight:fill"]
    assert torch.allclose(filled.float(), noise * 0.5 * weight.std(), rtol=1e-2, atol=1e-4)


@pytest.mark.parametrize("sparsity", [0.0, 0.013, 0.25])
@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_packed_bits_are_the_mask_and_pruned_weights_are_gone(sparsity, fill):
    trainer = tiny_trainer(Mask("xattn,selfattn", 1e-2, sparsity=sparsity, fill=fill))
    update, model = trainer.update, trainer.model
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for logits in update.logits:
            logits.copy_(torch.randn(logits.shape, generator=rng) + 1)
    masks = dict(zip(update.names, binarise(update.logits, sparsity), strict=True))
    of = sum(mask.numel() for mask in masks.values())
    pruned = sum(int((~mask).sum()) for mask in masks.values())
    edit = edit_of(trainer)
    assert pruned == round(sparsity * of) if sparsity else pruned > 0
    assert update.collect_metadata()["pruned"] == pruned / of
    assert all(torch.equal(unpack(edit.values[f"{n}:mask"], m.shape), m) for n, m in masks.items() if not m.all())
    base = dict(model.weights)
    with edit.apply(model):
        now = model.weights
        for name, mask in masks.items():
            assert torch.equal(now[name][mask], base[name][mask])
            assert fill or (now[name][~mask] == 0).all()
            assert not fill or not (now[name][~mask] == base[name][~mask]).any()
        if fill:
            gone = torch.cat([now[name][~mask] / base[name].std() for name, mask in masks.items()])
            assert (gone == 0).float().mean() < 0.01
            assert gone.std().item() == pytest.approx(fill, rel=0.3)
    packed = sum(bits.numel() for key, bits in edit.values.items() if key.endswith(":mask"))
    assert packed <= of / 8 + len(masks)


def test_bound_and_payload_are_one_when_the_mask_is_binary():
    """No gap opens between the student that was trained and the Edit that is left."""
    trainer = build_small_trainer(Mask("head", 0.3, start=0.5), KeepWeights(1e-2))
    play(trainer, 8)
    with trainer.update.swapped_in():
        student = trainer.model.weights["unet.head.weight"].detach().clone()
    assert 0 < trainer.update.collect_metadata()["pruned"] < 1
    with edit_of(trainer).apply(trainer.model):
        assert torch.equal(trainer.model.weights["unet.head.weight"], student)


@pytest.mark.parametrize("tau", [1.0, 0.5])
@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_the_cost_is_the_share_pruned(relaxation, tau):
    """Alone, and with a slope that brings weights back."""
    trainer = build_small_trainer(Mask("head", 0.3, relaxation, tau=tau, start=1.0), KeepWeights(0.2))
    with trainer.compute_losses(trainer.make_auxiliary_step(0, 0)) as losses:
        assert set(losses) == {"erase", "cost"}
        (grad,) = torch.autograd.grad(losses["cost"], trainer.update.list_params())
        cost = losses["cost"].item()
    assert (grad < 0).all()
    # sigmoid(1 / tau), and for hard-concrete sigmoid(1 - tau log(0.1 / 1.1)): the share that is not 0.
    odds = math.exp(-1 / tau) if relaxation == "straight-through" else math.exp(-1) * (0.1 / 1.1) ** tau
    kept = 1 / (1 + odds)
    assert cost == pytest.approx(0.2 * (1 - kept), rel=1e-4)
    with pytest.raises(ValueError, match="keeping weights is a cost of pruning"):
        build_small_trainer(Dense("head", 0.1), KeepWeights(0.2))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"relaxation": "soft"}, "no relaxation 'soft'; there are straight-through, hard-concrete"),
        ({"sparsity": 1.0}, "from 0 to below 1, got 1.0"),
        ({"start": 0.0}, "above 0, fill is not below: got 0.0"),
        ({"sparsity": -0.1}, "from 0 to below 1, got -0.1"),
        ({"tau": 0.0}, "above 0"),
        ({"fill": -1.0}, "fill is not below"),
    ],
)
def test_bad_masks(bad, message):
    with pytest.raises(ValueError, match=message):
        Mask("head", 1e-2, **bad)


def test_pruning_nothing_is_refused_before_and_told_after():
    with pytest.raises(ValueError, match=r"in 40 steps of 0\.05 no logit gets from 4 to 0.* 0\.1 is the least"):
        PESD(steps=40)
    assert PESD(steps=40, sparsity=0.1).sparsity
    dear = PESD(**{**PRUNING, "lr": 0.3}, beta=1e6)
    with pytest.raises(ValueError, match=r"nothing was pruned: in 4 steps of 0\.3 .* beta 1e.06; a smaller beta"):
        dear.fit(build_stirred(), Erasure(("cat",)))
    composed = Compose(**{**PRUNING, "lr": 0.3}, beta=1e6, update_="mask")
    with pytest.raises(ValueError, match="nothing was pruned"):
        composed.fit(build_stirred(), Erasure(("cat",)))


def test_steps_that_just_reach_zero_are_enough_and_a_sparsity_needs_none():
    check_reach(16, 0.25, 4.0, 0.0)
    check_reach(1, 0.25, 4.0, 0.1)
    with pytest.raises(ValueError, match=r"in 15 steps of 0\.25 no logit gets from 4 to 0"):
        check_reach(15, 0.25, 4.0, 0.0)


# Killed and resumed.

PRUNING = {"weights": "head", "steps": 4, "lr": 0.6, "start": 1.0, "batch": 4, "draw_steps": 3, "paths": 2}
KILLED: dict[str, tuple[Method, Erasure]] = {
    "p-esd": (PESD(**PRUNING), Erasure(("cat",))),
    "p-esd-hard-concrete": (PESD(**PRUNING, relaxation="hard-concrete", tau=2 / 3), Erasure(("cat",))),
    "p-esd-share": (PESD(**PRUNING, sparsity=0.2, fill=0.3, source="frozen"), Erasure(("cat",))),
    "p-ac": (PAC(**PRUNING, relaxation="hard-concrete", source="frozen"), Erasure(("cat",), anchor="dog")),
}


@pytest.mark.parametrize("name", KILLED)
def test_killed_at_every_step_pruning_ends_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setattr(efface.training.trainer, "SAVE_EVERY", 1)
    method, erasure = KILLED[name]
    model = build_stirred()
    whole, edit, kills = method.fit(model, erasure), None, 0

    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    while edit is None:
        try:
            edit = method.fit(model, erasure, progress=kill, checkpoint=tmp_path / "checkpoint")
        except KeyboardInterrupt:
            kills += 1
    assert kills == method.steps
    assert 0 < whole.meta["notes"]["pruned"] < 1
    assert any(key.endswith(":mask") for key in whole.values)
    assert is_same(dict(whole.values), dict(edit.values))
    assert whole.meta == edit.meta
