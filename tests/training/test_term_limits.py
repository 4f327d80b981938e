"""What terms refuse, and the fp32 copies that a dense update keeps of weights in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.models.cond import Cond
from efface.training.interfaces import Context, Source, States, Step, Term
from efface.training.objectives.denoising import Denoising
from efface.training.objectives.wrong_noise import WrongNoise
from efface.training.preservation.adversarial import Adversarial
from efface.training.preservation.anchoring import Retained
from efface.training.preservation.prompts import FixedPrompts
from efface.training.vocabulary_search import SearchConfig, Vocabulary, VocabularySearch
from term_fixtures import build_context, build_step
from tiny import WORDS, tiny_pipeline

BOTH = Erasure(("cat", "dog"))


class Drawn(Source):
    """States of a trajectory, which have no noise that was added."""

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        x = torch.zeros(len(prompts), *context.model.latent_shape)
        return States(x, torch.full((len(prompts),), 500), {})


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Denoising(Drawn(), "eps", "erase"), "denoising needs the noise that was added to pictures"),
        (WrongNoise(Drawn(), [], "uniform-noised", "eps"), "'uniform-noised' learns the noise that was added"),
    ],
)
def test_terms_that_learn_an_added_noise_refuse_states_without_one(eps_model: Any, term: Term, message: str) -> None:
    context = build_context(eps_model, BOTH)
    term.prepare(context)
    with pytest.raises(ValueError, match=message):
        term.build_queries(context, build_step(context))


def test_what_preserves_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="there are no prompts to preserve; name at least one"):
        FixedPrompts(Drawn(), [], "eps")
    with pytest.raises(ValueError, match="at least 1 word to retain a step, got 0"):
        Retained(Drawn(), ["rose"], "a {}", 0, "eps")
    assert Retained(Drawn(), ["rose"], "a {}", 1, "eps").count == 1


def test_a_search_by_score_refuses_a_batch_that_has_no_two_words_to_compare(eps_model: Any) -> None:
    how = SearchConfig(lr=1e-2, temperature=1.0, hard=True, steps_per_round=1, gradient="score")
    term = Adversarial(Drawn(), VocabularySearch(Vocabulary(WORDS), how), "eps")
    with pytest.raises(ValueError, match="give a batch of at least 2, got 1"):
        term.prepare(build_context(eps_model, BOTH, batch=1))


def test_where_the_text_encoder_is_trained_a_search_needs_single_words_and_no_gradient(eps_model: Any) -> None:
    """A search by score has none, and neither has one that takes no steps; a mixture of words can't be encoded anew."""
    context = build_context(eps_model, BOTH, r"text_encoder\..*")
    for hard, gradient, steps, fits in (
        *((True, "score", 1, True), (True, "score", 0, True), (True, "straight-through", 0, True)),
        *((True, "straight-through", 1, False), (False, "straight-through", 0, False)),
    ):
        how: Any = {"gradient": gradient, "steps_per_round": steps}
        search = VocabularySearch(Vocabulary(WORDS), SearchConfig(lr=1e-2, temperature=1.0, hard=hard, **how))
        term = Adversarial(Drawn(), search, "eps")
        if fits:
            term.prepare(context)
            continue
        with pytest.raises(ValueError, match="the test trains a text encoder, so that words are encoded anew"):
            term.prepare(context)


def test_in_half_precision_the_network_uses_the_rounded_fp32_copies_after_every_step_and_after_a_resume() -> None:
    """Changes that are smaller than the rounding of bf16 add up in the copies."""
    model = StableDiffusion(tiny_pipeline().to(torch.bfloat16), "tiny", words=WORDS)
    update: Any = build_context(model, BOTH, lr=1e-5).update
    leaves, masters = update.list_params(), update.list_optimised()
    assert {leaf.dtype for leaf in leaves} == {torch.bfloat16} and {m.dtype for m in masters} == {torch.float32}
    start = [master.detach().clone() for master in masters]
    for _ in range(3):
        update.step([torch.ones_like(leaf) for leaf in leaves])
        assert all(torch.equal(leaf, master.to(leaf.dtype)) for leaf, master in zip(leaves, masters, strict=True))
    for before, master in zip(start, masters, strict=True):
        assert torch.allclose(before - master, torch.full_like(master, 3e-5), rtol=0.02)

    again = StableDiffusion(tiny_pipeline().to(torch.bfloat16), "tiny", words=WORDS)
    other: Any = build_context(again, BOTH, lr=1e-5).update
    other.step([-torch.ones_like(leaf) for leaf in other.list_params()])
    other.load_state_dict(update.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other.list_optimised(), masters, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(other.list_params(), leaves, strict=True))


def test_in_fp32_the_network_uses_the_copies_themselves(eps_model: Any) -> None:
    update: Any = build_context(eps_model, BOTH).update
    assert all(leaf is master for leaf, master in zip(update.list_params(), update.list_optimised(), strict=True))
