"""Salient weights: which weights they are, by a gradient computed by hand, and that no others move."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from efface.concept import Erasure
from efface.methods.salun import SalUn
from efface.training.interfaces import States
from efface.training.objectives.anchor import Anchor
from efface.training.trainer import Trainer
from efface.training.updates.salient import Salient
from oracle import Fixed, build_stirred, build_trainer
from tiny import tiny_model
from update_fixtures import build_small_trainer, play


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_only_the_salient_share_moves_whatever_adam_remembers(share):
    trainer = build_small_trainer(Salient("head", 0.1, share, looks=3))
    base = trainer.model.weights["unet.head.weight"].detach().clone()
    (mask,) = trainer.update.masks
    assert int(mask.sum()) == round(share * base.numel())
    play(trainer, 5)
    value = trainer.update.compute_deltas()["unet.head.weight"]
    assert torch.equal(value != base, mask)


def test_the_share_is_of_all_tensors_together():
    model = tiny_model()
    states = States(torch.randn(2, *model.latent_shape), torch.tensor([300, 700]))
    salient = Salient("xattn-strict", 0.1, 0.3, looks=1)
    erasure = Erasure(("cat",), anchor="dog")
    build_trainer(model, [Anchor(Fixed(states), "eps")], erasure, update=salient, batch=2)
    of = sum(mask.numel() for mask in salient.masks)
    assert sum(int(mask.sum()) for mask in salient.masks) == round(0.3 * of)
    assert len({mask.float().mean().item() for mask in salient.masks}) > 1
    # The gradient of the erasing loss at the base, on a copy that shares nothing, by hand.
    twin = copy.deepcopy(model.unet)
    cat, dog = (model.encode([word]).expand(2).tokens for word in ("cat", "dog"))
    (
        twin(states.x, states.t, cat).sample - model.unet(states.x, states.t, dog).sample.detach()
    ).square().mean().backward()
    grads = [twin.get_parameter(name.removeprefix("unet.")).grad.abs() for name in salient.list_changed_names()]
    picked = torch.cat([grad[mask] for grad, mask in zip(grads, salient.masks, strict=True)])
    left = torch.cat([grad[~mask] for grad, mask in zip(grads, salient.masks, strict=True)])
    assert picked.min() >= left.max() * (1 - 1e-3)


def test_saliency_is_the_sum_over_the_looks():
    """Over noised pictures, other ones at every look: |sum of gradients|, not the sum of sizes."""
    model = build_stirred()
    method = SalUn(weights="head", share=0.25, looks=4, batch=8, pictures=8, draw_steps=3)
    erasure = Erasure(("cat",), anchor="dog", keep=("car",))
    parts = {
        "terms": method.build_terms(model, erasure),
        "update": method.build_update(),
        "balance": method.build_balance(),
    }
    trainer = Trainer(
        model, erasure, name="test", arguments=dataclasses.asdict(method), config=method.build_config(), **parts
    )
    total = torch.zeros_like(trainer.update.list_params()[0])
    for k in range(4):
        queries = trainer.terms[0].build_queries(trainer.context, trainer.make_auxiliary_step(0, stream=500 + k))
        states, p = queries["student"].states, queries["student"].cond.pooled
        w = model.unet.head.weight.detach().clone().requires_grad_()
        base, wrong = model.predict_exactly(states.x, states.t, p).float(), queries["wrong"].cond.pooled
        said = base.flatten(1) + model.unet.extract_features(states.x, states.t, p) @ w.T
        other = model.predict_exactly(states.x, states.t, wrong).float() + model.unet(states.x, states.t, wrong)
        (said - other.detach().flatten(1)).square().mean().backward()
        total += w.grad
    size = total.abs()
    (mask,) = trainer.update.masks
    assert int(mask.sum()) == round(0.25 * mask.numel())
    assert size[mask].min() > size[~mask].max() * (1 - 1e-4)


def build_salun_trainer(model, **settings) -> Trainer:
    method = SalUn(pictures=3, remain_words=1, draw_steps=2, **settings)
    return method.build_trainer(model, Erasure(("cat", "car"), keep=("dog",)))


@pytest.mark.parametrize(("micro_batch", "seed"), [(0, 0), (2, 5)])
def test_saliency_is_the_guided_loss_on_every_forget_picture_once(micro_batch, seed):
    """On a copy that shares nothing: both targets' pictures, in batches, the guided prediction against the noise."""
    model = tiny_model()
    trainer = build_salun_trainer(model, weights="xattn-strict", share=0.3, batch=3, micro_batch=micro_batch, seed=seed)
    masks = trainer.update.masks
    source = trainer.terms[0].source
    seen = [(prompt, i) for prompt in ("cat", "car") for i in range(2)]  # three pictures, shared out among two targets
    assert {prompt: len(stack) for prompt, stack in source.store.items()} == {"cat": 2, "car": 2}
    twin, empty = copy.deepcopy(model.unet), model.encode([""]).tokens
    # Batches of three rows, with random choices of their own, which with micro_batch 2 are read row by row.
    for start in (0, 3):
        rows = seen[start : start + 3]
        rng = torch.Generator().manual_seed(2**43 + seed * 1_000_003 + start)
        x0 = torch.stack([source.store[prompt][i] for prompt, i in rows])
        t = torch.randint(len(model.levels), (len(rows),), generator=rng)
        eps = torch.randn(x0.shape, generator=rng)
        bar = model.levels.alpha.square()[t].view(-1, 1, 1, 1).float()
        x = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
        named = twin(x, t, model.encode([prompt for prompt, _ in rows]).tokens).sample
        plain = twin(x, t, empty.expand(len(rows), -1, -1)).sample
        (8.5 * named - 7.5 * plain - eps).square().flatten(1).mean(1).mean().backward()
    grads = [twin.get_parameter(name.removeprefix("unet.")).grad.abs() for name in trainer.update.list_changed_names()]
    picked = torch.cat([grad[mask] for grad, mask in zip(grads, masks, strict=True)])
    left = torch.cat([grad[~mask] for grad, mask in zip(grads, masks, strict=True)])
    assert len(picked) == round(0.3 * sum(mask.numel() for mask in masks))
    assert picked.min() >= left.max() * (1 - 1e-3)


def test_a_loss_that_is_scaled_for_half_precision_gives_the_same_gradient(monkeypatch):
    trainer = build_salun_trainer(tiny_model(), weights="xattn-strict", share=0.3, batch=2)
    saliency, dense = trainer.update.saliency, trainer.update.dense
    plain = saliency.compute_gradient(trainer.context, dense)
    monkeypatch.setattr(type(trainer.model), "loss_factor", 64.0)
    for one, other in zip(plain, saliency.compute_gradient(trainer.context, dense), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-9) and other.any()


def test_masking_the_update_is_masking_the_gradient():
    """Adam on gradients that are masked from the first step on, as the authors' code has it, gives the same weights."""
    trainer = build_salun_trainer(tiny_model(), weights="xattn-strict", share=0.3, batch=2, lr=1e-2)
    update, steps = trainer.update, []
    base = [master.detach().clone().requires_grad_() for master in update.dense.masters]
    masks, own = update.masks, update.step
    update.step = lambda grads: (steps.append([grad.clone() for grad in grads]), own(grads))
    play(trainer, 3)
    adam = torch.optim.Adam(base, lr=1e-2)
    for grads in steps:
        for param, grad, mask in zip(base, grads, masks, strict=True):
            param.grad = grad * mask
        adam.step()
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(update.dense.masters, base, strict=True))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        *(({"share": 0.0}, "above 0 and at most 1"), ({"share": 1.5}, "1.5")),
        *(({"looks": 0}, "1 to 500 batches"), ({"looks": 501}, "got 501")),
    ],
)
def test_bad_saliency(bad, message):
    with pytest.raises(ValueError, match=message):
        Salient("head", 0.1, **{"share": 0.5, "looks": 1, **bad})


def test_all_weights_may_change_and_500_batches_may_be_looked_at():
    trainer = build_small_trainer(Salient("head", 0.1, 1.0, looks=500))
    trainer.update.looks = 1
    assert all(mask.all() for mask in trainer.update.masks)


def test_at_least_one_weight_may_change():
    trainer = build_small_trainer(Salient("head", 0.1, 1e-9, looks=500))
    trainer.update.looks = 1
    (mask,) = trainer.update.masks
    assert int(mask.sum()) == 1
