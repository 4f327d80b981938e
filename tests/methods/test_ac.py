"""Concept ablation: its teacher, and the start token whose keys and values give no gradient."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from efface.concept import Erasure
from efface.methods.ac import AC
from efface.models.base import Model
from efface.training.loss_scale import compute_gradients
from efface.training.trainer import Trainer
from tiny import tiny_model
from tiny_pixart import tiny_pixart
from tiny_sdxl import tiny_sdxl

REQUEST = Erasure(("cat",), anchor="dog")
QUICK = {"pictures": 2, "draw_steps": 2, "batch": 2, "steps": 1, "lr": 1e-2}


class Detaching:
    """Cross-attention as the authors' processor computes it: ones and zeros beside the first token's key and value."""

    def __call__(self, attn, hidden_states, encoder_hidden_states=None, attention_mask=None, **_):
        words = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(words), attn.to_v(words)
        if encoder_hidden_states is not None:
            kept = torch.ones_like(key)
            kept[:, :1] = 0
            key, value = (kept * part + (1 - kept) * part.detach() for part in (key, value))
        query, key, value = (attn.head_to_batch_dim(part) for part in (query, key, value))
        out = torch.bmm(attn.get_attention_scores(query, key, attention_mask), value)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(out)))


def build_moved_trainer(method: AC, model: Model) -> Trainer:
    """A training whose student has left the base."""
    trainer = method.build_trainer(model, REQUEST)
    with torch.no_grad():
        for i, master in enumerate(trainer.update.masters):
            master.add_(0.05 * torch.randn(master.shape, generator=torch.Generator().manual_seed(i)))
    return trainer


def compute_ours(trainer: Trainer) -> tuple[float, list[Tensor]]:
    with trainer.compute_losses(trainer.make_step(0, trainer.update)) as losses:
        return losses["erase"].item(), list(compute_gradients(trainer.update.list_params(), losses["erase"]))


def compute_theirs(trainer: Trainer, detach: bool, teacher: str) -> tuple[float, list[Tensor]]:
    """The loss and its gradient by the authors' attention, on copies that share nothing."""
    model = trainer.model
    student = copy.deepcopy(model.unet)
    for master, name in zip(trainer.update.masters, trainer.update.names, strict=True):
        student.get_parameter(name.removeprefix("unet.")).data.copy_(master)
    if detach:
        student.set_attn_processor(Detaching())
    states = trainer.terms[0].build_queries(trainer.context, trainer.make_step(0, trainer.update))["student"].states
    cat, dog = (model.encode([word] * 2).tokens for word in ("cat", "dog"))
    with torch.no_grad():
        goal = (student if teacher == "student" else copy.deepcopy(model.unet))(states.x, states.t, dog).sample
    loss = (student(states.x, states.t, cat).sample - goal).square().mean()
    loss.backward()
    return loss.item(), [student.get_parameter(name.removeprefix("unet.")).grad for name in trainer.update.names]


@pytest.mark.parametrize("teacher", ["student", "frozen"])
@pytest.mark.parametrize("detach", [True, False])
def test_loss_and_gradient_are_those_of_the_authors_attention(detach, teacher):
    trainer = build_moved_trainer(AC(**QUICK, teacher=teacher, detach_start=detach), tiny_model())
    loss, grads = compute_ours(trainer)
    their_loss, their_grads = compute_theirs(trainer, detach, teacher)
    assert loss == pytest.approx(their_loss, rel=1e-4)
    for mine, other in zip(grads, their_grads, strict=True):
        assert (mine - other).norm() <= 1e-4 * other.norm()
    # The start token matters: with its gradient the direction is another.
    _, others = compute_theirs(trainer, not detach, teacher)
    far = sum(float((a - b).square().sum()) for a, b in zip(grads, others, strict=True)) ** 0.5
    assert far > 0.01 * sum(float(b.square().sum()) for b in others) ** 0.5


def test_the_published_teacher_is_the_model_in_training():
    assert (AC().teacher, AC().detach_start) == ("student", True)
    with pytest.raises(ValueError, match="no teacher 'ema'; there are frozen, student"):
        AC(**QUICK, teacher="ema").build_trainer(tiny_model(), REQUEST)


@pytest.mark.parametrize("build", [tiny_sdxl, tiny_pixart])
def test_only_models_with_a_start_token_detach_it(build):
    """T5 begins with the prompt's first word, which keeps its gradient; nothing stays hooked afterwards."""
    grads = []
    for detach in (True, False):
        trainer = build_moved_trainer(AC(**QUICK, teacher="frozen", detach_start=detach), build())
        grads.append(compute_ours(trainer)[1])
        assert not any(layer._forward_hooks for layer in trainer.model.network.modules())
    same = all(torch.equal(a, b) for a, b in zip(*grads, strict=True))
    assert same == (build is tiny_pixart)
