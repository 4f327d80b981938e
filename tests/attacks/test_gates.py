"""Attacks by gradient on edits that act while pictures are drawn: gated adapters and guides."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import efface
from efface.attacks.base import build_denoising_error
from efface.attacks.p4d import P4D
from efface.attacks.soft_prompt import SoftPrompt
from efface.concept import Erasure, Prompt
from efface.edits.edit import Edit
from efface.functional.adversary import measure_steepness
from efface.guidance.gate import MATCH, Gate
from efface.methods.spm import SPM
from white_box_fixtures import QUICK, ROWS, build_context, list_candidates, name_attack


def test_mma_needs_no_denoiser_and_works_under_guides(eps_model):
    guide = Edit({}, {"guide": {"name": "negative", "arguments": {}}})
    QUICK[-1].check(replace(build_context(eps_model), edit=guide))
    edit = efface.erase(eps_model, "cat", method="negative")
    plain = list_candidates(QUICK[-1], build_context(eps_model), ROWS)
    with edit.apply(eps_model):
        assert list_candidates(QUICK[-1], build_context(eps_model), ROWS) == plain


@pytest.fixture
def gated(eps_model):
    """SPM of cat, whose adapters change every answer."""
    edit = SPM(steps=1, lr=0.3, draw_steps=2, anchors=1, source="frozen", paths=1).fit(eps_model, Erasure(("cat",)))
    with edit.apply(eps_model):
        yield replace(build_context(eps_model, edit=edit), base=eps_model.unguided)


@pytest.mark.parametrize("text", [True, False], ids=["text", "embedding"])
def test_the_network_answers_under_a_gate_as_the_drawing_does(gated, text):
    """At guidance 1 a drawing's step is the answer itself."""
    model = gated.model
    asked = "a cat" if text else Prompt("a cat", model.encode(["a red cat"]).tokens[0])
    cond, x = model.encode([asked]), torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        said = model.begin_sampling(cond, cond, 1.0).combine(0, x, torch.tensor(500), {})
        answer, bare = model.predict_guided(x, 500, cond), model.predict(x, 500, cond)[0]
    assert torch.equal(answer, said)
    assert (answer - bare).abs().max() > 1e-3


def test_the_gradient_through_a_gate_by_finite_differences(gated):
    """Of the error, through the adapters and through how far the prompt opens them; the latter alone is not zero."""
    model = gated.model
    states, soft = build_denoising_error(gated, ROWS, "test").draw_states(), SoftPrompt(tokens=2)
    search = efface.attacks.soft_prompt.Embeddings(soft, gated, ROWS)
    at = search.soft.at
    shut = measure_steepness(
        lambda e: search.denoising.compute_error(states, detach_match(search._encode(e, slice(None)))), at
    )[1]
    errors, grad = measure_steepness(
        lambda e: search.denoising.compute_error(states, search._encode(e, slice(None))), at
    )
    assert (grad - shut).abs().max() > 1e-3 * grad.abs().max()
    rng = torch.Generator().manual_seed(1)
    for i in range(3):
        way = torch.randn(at.shape, generator=rng)
        with torch.no_grad():
            moved = [search._encode(at + s * 3e-2 * way, slice(None)) for s in (1, -1)]
            up, down = (search.denoising.compute_error(states, cond).double() for cond in moved)
        along = (grad * way).sum(dim=(1, 2))
        assert along[i].item() == pytest.approx((up - down)[i].item() / 6e-2, rel=0.05, abs=1e-4)
    with model.unguided(), torch.no_grad():
        assert not torch.allclose(search.denoising.compute_error(states, search._encode(at, slice(None))), errors)


def detach_match(cond):
    return cond.with_extra({MATCH: cond.tensors[MATCH].detach()})


def test_a_gate_opens_for_searched_words_as_for_typed_ones(gated):
    """A prompt that contains the concept word for word opens it wholly; the embeddings alone open it less."""
    search = efface.attacks.p4d.Prompts(P4D(tokens=2), gated, ROWS[:2])
    ids = [[gated.words.index(word) for word in words] for words in (("red", "cat"), ("red", "dog"))]
    search.soft.at = search.table[torch.tensor(ids)]
    with torch.no_grad():
        found = search._encode(*search._project()).tensors[MATCH]
    assert torch.allclose(found, gated.model.encode(["red cat", "red dog"]).tensors[MATCH], atol=1e-5)
    assert found[0] == 1 > found[1]


@pytest.mark.parametrize("attack", QUICK, ids=name_attack)
def test_a_gate_is_attacked_through_its_adapters(attack, gated, monkeypatch):
    """Every step of an attack by the denoiser's gradient; MMA follows the text encoder alone."""
    seen, answering = [], Gate.act_in_network
    monkeypatch.setattr(Gate, "act_in_network", lambda self, *a: seen.append(self) or answering(self, *a))
    attack.check(gated)
    assert len(list_candidates(attack, gated, ROWS)) == attack.queries
    assert len(seen) == (attack.queries * attack.steps if attack.threat == "gradients" else 0)
