from __future__ import annotations

import copy
import dataclasses
import math

import pytest
import torch
from torch import Tensor

import efface.training.trainer
from efface.concept import Erasure
from efface.edits.deltas import unpack
from efface.edits.edit import Edit
from efface.functional.masks import binarise
from efface.methods.base import Method
from efface.methods.compose import Compose
from efface.methods.p_ac import PAC
from efface.methods.p_esd import PESD
from efface.methods.salun import SalUn
from efface.methods.spm import SPM
from efface.training.interfaces import Update
from efface.training.objectives.anchor import Anchor
from efface.training.objectives.negative_guidance import NegativeGuidance
from efface.training.preservation.nothing import NoPreservation
from efface.training.trainer import Trainer
from efface.training.updates.dense import Dense
from efface.training.updates.lowrank import LowRank
from efface.training.updates.mask import KeepWeights, Mask
from efface.training.updates.salient import Salient
from oracle import Fixed, OracleModel, loss_and_gradient, stirred, trainer_of
from tiny import tiny_model

RELAXATIONS = ("straight-through", "hard-concrete")


def small_trainer(update: Update, *more, model: OracleModel | None = None) -> Trainer:
    model = model or stirred()
    return trainer_of(
        model, [NegativeGuidance(Fixed(model.sample_states(32)), 1.0, "eps"), *more], update=update, batch=32
    )


def play(trainer: Trainer, moves: int) -> None:
    for index in range(moves):
        trainer.step(trainer.make_step(index, trainer.update))


def tiny_trainer(update: Update) -> Trainer:
    """Many real tensors; nothing is predicted."""
    return trainer_of(tiny_model(), [NoPreservation()], update=update)


def edit_of(trainer: Trainer) -> Edit:
    return Edit(trainer.update.compute_deltas(), {"base": trainer.model.fingerprint()})


# Masks.


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
    trainer = small_trainer(Mask("head", 0.5, relaxation, start=1.0))
    weight = trainer.model.weights["unet.head.weight"]
    before = weight.detach().clone()
    _, (grad,) = loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    assert grad.abs().sum() > 0
    play(trainer, 4)
    assert weight.grad is None
    assert trainer.model.weights["unet.head.weight"] is weight
    assert torch.equal(weight, before)
    assert not torch.equal(trainer.update.logits[0], torch.ones_like(before))


def test_the_gradient_is_that_of_the_product():
    """d L / d s = d L / d (theta m) * theta * sigmoid'(s), by hand."""
    trainer = small_trainer(Mask("head", 0.1, start=0.7))
    weight = trainer.model.weights["unet.head.weight"]
    _, (grad,) = loss_and_gradient(trainer, trainer.make_auxiliary_step(0, 0))
    dense = small_trainer(Dense("head", 0.1), model=trainer.model)
    _, (by_weight,) = loss_and_gradient(dense, dense.make_auxiliary_step(0, 0))
    s = torch.sigmoid(torch.tensor(0.7))
    assert torch.allclose(grad, by_weight * weight.detach() * s * (1 - s), rtol=1e-4, atol=1e-7)


def test_samples_stay_within_a_step_and_change_with_the_next():
    trainer = small_trainer(Mask("head", 1e-6, "hard-concrete", tau=2 / 3, start=0.5))
    one, same = trainer.update.relax()[0], trainer.update.relax()[0]
    play(trainer, 1)
    assert torch.equal(one, same)
    assert not torch.allclose(one, trainer.update.relax()[0], atol=1e-2)
    assert (one == 0).any()
    assert (one == 1).any()


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
    trainer = small_trainer(Mask("head", 0.3, start=0.5), KeepWeights(1e-2))
    play(trainer, 8)
    with trainer.update.swapped_in():
        student = trainer.model.weights["unet.head.weight"].detach().clone()
    assert 0 < trainer.update.collect_metadata()["pruned"] < 1
    with edit_of(trainer).apply(trainer.model):
        assert torch.equal(trainer.model.weights["unet.head.weight"], student)


@pytest.mark.parametrize("relaxation", RELAXATIONS)
def test_the_cost_is_the_share_pruned(relaxation):
    """Alone, and with a slope that brings weights back."""
    trainer = small_trainer(Mask("head", 0.3, relaxation, start=1.0), KeepWeights(0.2))
    with trainer.compute_losses(trainer.make_auxiliary_step(0, 0)) as losses:
        assert set(losses) == {"erase", "cost"}
        (grad,) = torch.autograd.grad(losses["cost"], trainer.update.list_params())
        cost = losses["cost"].item()
    assert (grad < 0).all()
    # sigmoid(1), and for hard-concrete sigmoid(1 - log(0.1 / 1.1)): the share that is not 0.
    kept = 1 / (1 + math.exp(-1) * (1 if relaxation == "straight-through" else 0.1 / 1.1))
    assert cost == pytest.approx(0.2 * (1 - kept), rel=1e-4)
    with pytest.raises(ValueError, match="keeping weights is a cost of pruning"):
        small_trainer(Dense("head", 0.1), KeepWeights(0.2))


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"relaxation": "soft"}, "no relaxation 'soft'; there are straight-through, hard-concrete"),
        ({"sparsity": 1.0}, "from 0 to below 1, got 1.0"),
        ({"start": 0.0}, "above 0, fill is not below: got 0.0"),
        ({"tau": -1.0}, "above 0"),
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
        dear.fit(stirred(), Erasure(("cat",)))
    composed = Compose(**{**PRUNING, "lr": 0.3}, beta=1e6, update_="mask")
    with pytest.raises(ValueError, match="nothing was pruned"):
        composed.fit(stirred(), Erasure(("cat",)))


# Low rank.


def test_low_rank_starts_as_the_base_and_stays_of_its_rank():
    trainer = small_trainer(LowRank("head", 0.1, 2))
    base = trainer.model.weights["unet.head.weight"].detach().clone()
    with trainer.update.swapped_in():
        assert torch.equal(trainer.model.weights["unet.head.weight"], base)
    play(trainer, 6)
    with trainer.update.swapped_in():
        student = trainer.model.weights["unet.head.weight"].detach().clone()
    singular = torch.linalg.svdvals((student - base).double())
    assert singular[1] > 1e-3
    assert singular[2:].max() < 1e-5 * singular[0]
    with edit_of(trainer).apply(trainer.model):
        assert torch.equal(trainer.model.weights["unet.head.weight"], student)


def test_kernels_are_matrices_and_vectors_stay():
    trainer = tiny_trainer(LowRank(r"^unet\.conv_in\.", 0.1, 3))
    assert trainer.update.list_changed_names() == ["unet.conv_in.weight"]
    with torch.no_grad():
        trainer.update.ups[0].normal_(generator=torch.Generator().manual_seed(0))
    base = trainer.model.weights["unet.conv_in.weight"].detach().clone()
    with trainer.update.swapped_in():
        change = (trainer.model.weights["unet.conv_in.weight"] - base).detach().flatten(1)
        student = trainer.model.weights["unet.conv_in.weight"].detach().clone()
    assert torch.linalg.matrix_rank(change.double(), rtol=1e-4) == 3
    with edit_of(trainer).apply(trainer.model):
        assert torch.equal(trainer.model.weights["unet.conv_in.weight"], student)


def test_down_starts_as_spms_adapters_do():
    """Uniform within 1 / sqrt(in), as PyTorch's own linear layers start, which is what the authors' adapters are."""
    model = tiny_model()
    trainer = trainer_of(model, [NoPreservation()], update=SPM().build_update())
    for name, down, up in zip(trainer.update.names, trainer.update.downs, trainer.update.ups, strict=True):
        wide = model.weights[name].flatten(1).shape[1]
        assert down.abs().max() <= wide**-0.5 and not up.any()
    every = torch.cat([down.detach().flatten() * down.shape[1] ** 0.5 for down in trainer.update.downs])
    torch.manual_seed(0)
    theirs = torch.nn.Linear(64, len(every) // 64, bias=False).weight.detach() * 8
    for power in (2, 4):
        assert every.pow(power).mean().item() == pytest.approx(1 / (power + 1), rel=0.05)
        assert theirs.pow(power).mean().item() == pytest.approx(1 / (power + 1), rel=0.05)
    with pytest.raises(ValueError, match="no start 'zero' of low rank; there are normal, uniform"):
        LowRank("head", 0.1, 1, "zero")


def test_bad_ranks():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        LowRank("head", 0.1, 0)
    with pytest.raises(ValueError, match="selects no matrix"):
        tiny_trainer(LowRank(r"^unet\..*\.bias$", 0.1, 2))


# Salient weights.


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_only_the_salient_share_moves_whatever_adam_remembers(share):
    trainer = small_trainer(Salient("head", 0.1, share, looks=3))
    base = trainer.model.weights["unet.head.weight"].detach().clone()
    (mask,) = trainer.update.masks
    assert int(mask.sum()) == round(share * base.numel())
    play(trainer, 5)
    value = trainer.update.compute_deltas()["unet.head.weight"]
    assert torch.equal(value != base, mask)


def test_the_share_is_of_all_tensors_together():
    model = tiny_model()
    states = efface.training.interfaces.States(torch.randn(2, *model.latent_shape), torch.tensor([300, 700]))
    salient = Salient("xattn-strict", 0.1, 0.3, looks=1)
    erasure = Erasure(("cat",), anchor="dog")
    trainer_of(model, [Anchor(Fixed(states), "eps")], erasure, update=salient, batch=2)
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
    model = stirred()
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
        base, wrong = model.exact(states.x, states.t, p).float(), queries["wrong"].cond.pooled
        said = base.flatten(1) + model.unet.extract_features(states.x, states.t, p) @ w.T
        other = model.exact(states.x, states.t, wrong).float() + model.unet(states.x, states.t, wrong)
        (said - other.detach().flatten(1)).square().mean().backward()
        total += w.grad
    size = total.abs()
    (mask,) = trainer.update.masks
    assert int(mask.sum()) == round(0.25 * mask.numel())
    assert size[mask].min() > size[~mask].max() * (1 - 1e-4)


def salun_trainer(model, **settings) -> Trainer:
    method = SalUn(pictures=3, remain_words=1, draw_steps=2, **settings)
    return method.build_trainer(model, Erasure(("cat", "car"), keep=("dog",)))


@pytest.mark.parametrize("micro_batch", [0, 2])
def test_saliency_is_the_guided_loss_on_every_forget_picture_once(micro_batch):
    """On a copy that shares nothing: both targets' pictures, in batches, the guided prediction against the noise."""
    model = tiny_model()
    trainer = salun_trainer(model, weights="xattn-strict", share=0.3, batch=3, micro_batch=micro_batch)
    masks = trainer.update.masks
    source = trainer.terms[0].source
    seen = [(prompt, i) for prompt in ("cat", "car") for i in range(2)]  # three pictures, shared out among two targets
    assert {prompt: len(stack) for prompt, stack in source.store.items()} == {"cat": 2, "car": 2}
    twin, empty = copy.deepcopy(model.unet), model.encode([""]).tokens
    # Batches of three rows; with micro_batch 2 each row is a piece, which draws its own noise.
    for start in (0, 3):
        batch = seen[start : start + 3]
        pieces = [(start + i, [row]) for i, row in enumerate(batch)] if micro_batch else [(start, batch)]
        for first, rows in pieces:
            rng = torch.Generator().manual_seed(2**43 + first)
            x0 = torch.stack([source.store[prompt][i] for prompt, i in rows])
            t = torch.randint(len(model.levels), (len(rows),), generator=rng)
            eps = torch.randn(x0.shape, generator=rng)
            bar = model.levels.alpha.square()[t].view(-1, 1, 1, 1).float()
            x = bar.sqrt() * x0 + (1 - bar).sqrt() * eps
            named = twin(x, t, model.encode([prompt for prompt, _ in rows]).tokens).sample
            plain = twin(x, t, empty.expand(len(rows), -1, -1)).sample
            loss = (8.5 * named - 7.5 * plain - eps).square().flatten(1).mean(1).sum() / len(batch)
            loss.backward()
    grads = [twin.get_parameter(name.removeprefix("unet.")).grad.abs() for name in trainer.update.list_changed_names()]
    picked = torch.cat([grad[mask] for grad, mask in zip(grads, masks, strict=True)])
    left = torch.cat([grad[~mask] for grad, mask in zip(grads, masks, strict=True)])
    assert len(picked) == round(0.3 * sum(mask.numel() for mask in masks))
    assert picked.min() >= left.max() * (1 - 1e-3)


def test_masking_the_update_is_masking_the_gradient():
    """Adam on gradients that are masked from the first step on, as the authors' code has it, gives the same weights."""
    trainer = salun_trainer(tiny_model(), weights="xattn-strict", share=0.3, batch=2, lr=1e-2)
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
    [({"share": 0.0}, "above 0 and at most 1"), ({"share": 1.5}, "1.5"), ({"looks": 0}, "1 to 500 batches")],
)
def test_bad_saliency(bad, message):
    with pytest.raises(ValueError, match=message):
        Salient("head", 0.1, **{"share": 0.5, "looks": 1, **bad})


# Killed and resumed.

PRUNING = {"weights": "head", "steps": 4, "lr": 0.6, "start": 1.0, "batch": 4, "draw_steps": 3, "paths": 2}
KILLED: dict[str, tuple[Method, Erasure]] = {
    "p-esd": (PESD(**PRUNING), Erasure(("cat",))),
    "p-esd-hard-concrete": (PESD(**PRUNING, relaxation="hard-concrete", tau=2 / 3), Erasure(("cat",))),
    "p-esd-share": (PESD(**PRUNING, sparsity=0.2, fill=0.3, source="frozen"), Erasure(("cat",))),
    "p-ac": (PAC(**PRUNING, relaxation="hard-concrete", source="frozen"), Erasure(("cat",), anchor="dog")),
}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(value, two[key]) for key, value in one.items())


@pytest.mark.parametrize("name", KILLED)
def test_killed_at_every_step_pruning_ends_the_same(name, tmp_path, monkeypatch):
    monkeypatch.setattr(efface.training.trainer, "SAVE_EVERY", 1)
    method, erasure = KILLED[name]
    model = stirred()
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
    assert same(dict(whole.values), dict(edit.values))
    assert whole.meta == edit.meta


def test_low_rank_resumes_exactly():
    trainers = [small_trainer(LowRank("head", 0.1, 2)) for _ in range(2)]
    play(trainers[0], 3)
    trainers[1].update.load_state_dict(trainers[0].update.state_dict())
    for trainer in trainers:
        trainer.step(trainer.make_step(3, trainer.update))
    assert same(trainers[0].update.compute_deltas(), trainers[1].update.compute_deltas())
