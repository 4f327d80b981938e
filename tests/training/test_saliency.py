"""SalUn's saliency, on states that are known: its gradient, its batches, and the random choices of each."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.models.cond import Cond
from efface.training.interfaces import Context, States, Step
from efface.training.updates.saliency import GuidedDenoising
from efface.training.updates.salient import Salient
from term_fixtures import build_context
from tiny import WORDS, tiny_pipeline

CAT = Erasure(("cat",))
PICTURES = {"cat": 2, "a cat": 1}


class Asked:
    """A source that gives for each row the latents of its prompt and picture, and notes what it is asked for."""

    def __init__(self) -> None:
        self.expected: list[str] = []
        self.steps: list[Step] = []
        self.rows: list[list[tuple[str, int]]] = []
        self.states: list[States] = []

    def expect(self, prompts: Sequence[str]) -> None:
        assert not self.steps, "all prompts are announced before the first is drawn"
        self.expected.extend(prompts)

    def count(self, context: Context, prompt: str) -> int:
        assert prompt in self.expected, "a prompt is announced before its pictures are counted"
        return PICTURES[prompt]

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        rng = torch.Generator().manual_seed(len(self.steps))
        x, noise = (torch.randn(len(prompts), *context.model.latent_shape, generator=rng) for _ in range(2))
        self.steps.append(step)
        self.rows.append(list(zip(prompts, step.noise, strict=True)))
        self.states.append(States(x, torch.arange(1, len(prompts) + 1) * 300, {"noise": noise}))
        return self.states[-1]


@pytest.mark.parametrize(
    ("batch", "micro_batch", "batches", "pieces"),
    [(2, 0, [2, 1], [2, 1]), (3, 4, [3], [2, 1]), (3, 3, [3], [1, 1, 1]), (2, 9, [2, 1], [2, 1])],
)
def test_the_gradient_is_that_of_the_guided_loss_over_all_pictures(
    eps_model, batch, micro_batch, batches, pieces, monkeypatch
):
    """Its sign too. Each picture counts once, and a batch as one mean at the same states, in however many pieces."""
    read: list[int] = []
    predict = eps_model.predict
    monkeypatch.setattr(eps_model, "predict", lambda x, *more: (read.append(len(x)), predict(x, *more))[1])
    context, source = build_context(eps_model, CAT, "xattn-strict"), Asked()
    context = replace(context, config=replace(context.config, batch=batch, micro_batch=micro_batch))
    found = GuidedDenoising(source, 2.5).compute_gradient(context, context.update)
    assert source.expected == list(PICTURES)
    assert [len(rows) for rows in source.rows] == batches and read == pieces
    assert [row for rows in source.rows for row in rows] == [("cat", 0), ("cat", 1), ("a cat", 0)]
    twin, empty = copy.deepcopy(eps_model.unet), eps_model.encode([""]).tokens
    for rows, states in zip(source.rows, source.states, strict=True):
        named = twin(states.x, states.t, eps_model.encode([prompt for prompt, _ in rows]).tokens).sample
        plain = twin(states.x, states.t, empty.expand(len(rows), -1, -1)).sample
        errors = (plain + 3.5 * (named - plain) - states.known["noise"]).square().flatten(1).mean(dim=1)
        whole = 1 if batch == 2 and rows == [("a cat", 0)] else batch  # of two at once, the third is a batch by itself
        (errors.sum() / whole).backward()
    for name, grad in zip(context.update.list_changed_names(), found, strict=True):
        wanted = twin.get_parameter(name.removeprefix("unet.")).grad
        assert torch.allclose(grad, wanted, rtol=1e-3, atol=1e-6 + 1e-3 * wanted.abs().max().item())


def test_a_selected_weight_that_no_prediction_reads_has_no_saliency(eps_model):
    """The text encoder's, whose conditions are encoded without a gradient."""
    context = build_context(eps_model, CAT, r"unet\..*attn2\.to_k\.weight|text_encoder\..*final_layer_norm\.weight")
    found = GuidedDenoising(Asked()).compute_gradient(context, context.update)
    names = context.update.list_changed_names()
    assert {name.partition(".")[0] for name in names} == {"unet", "text_encoder"}
    assert all(grad.any() == name.startswith("unet.") for name, grad in zip(names, found, strict=True))


def test_each_batch_and_each_training_has_a_seed_of_its_own_above_all_others(eps_model):
    seen: list[int] = []
    for seed in (0, 1):
        context, source = build_context(eps_model, CAT, "xattn-strict"), Asked()
        context = replace(context, config=replace(context.config, seed=seed))
        GuidedDenoising(source).compute_gradient(context, context.update)
        seen += [step.generator.initial_seed() for step in source.steps]
        assert all(step.learner is context.update and step.index == step.round == 0 for step in source.steps)
        chosen = [(step.targets, step.templates, step.points) for step in source.steps]
        assert chosen == [([0] * len(rows),) * 3 for rows in source.rows]  # no choice but the picture
    assert len(set(seen)) == 4
    assert all(2**43 <= each < 2**44 for each in seen)


def test_in_half_precision_the_network_uses_the_rounded_copies_of_the_salient_weights():
    """After a step of the size of several roundings, in which only the salient weights move."""
    model = StableDiffusion(tiny_pipeline().to(torch.bfloat16), "tiny", words=WORDS)
    context, update = build_context(model, CAT), Salient("xattn", 1e-1, 0.5, looks=1)
    update.prepare(context)
    params: Any = update.list_params()
    before = [param.detach().clone() for param in params]
    update.begin(lambda _: [torch.ones_like(param, dtype=torch.float32).cumsum(-1) for param in params])
    update.step([torch.ones_like(param) for param in params])
    assert {param.dtype for param in params} == {torch.bfloat16}
    for param, old, mask, master in zip(params, before, update.masks, update.list_optimised(), strict=True):
        assert torch.equal(param, master.to(torch.bfloat16))
        assert torch.equal(param != old, mask)
