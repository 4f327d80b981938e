"""What terms refuse, and the fp32 copies that a dense update keeps of weights in half precision."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.models.cond import Cond
from efface.training.config import TrainConfig
from efface.training.interfaces import Context, Source, States, Step, Term
from efface.training.objectives.denoising import Denoising
from efface.training.objectives.wrong_noise import WrongNoise
from efface.training.preservation.adversarial import Adversarial
from efface.training.preservation.anchoring import Retained
from efface.training.preservation.prompts import FixedPrompts
from efface.training.updates.dense import Dense
from efface.training.vocabulary_search import SearchConfig, Vocabulary, VocabularySearch
from tiny import WORDS, tiny_pipeline

CAT = Erasure(("cat",))


class Drawn(Source):
    """States of a trajectory, which have no noise that was added."""

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        x = torch.zeros(len(prompts), *context.model.latent_shape)
        return States(x, torch.full((len(prompts),), 500), {})


def build_context(model: Any, update: Dense, batch: int = 2) -> Context:
    config = TrainConfig(steps=1, batch=batch, draw_steps=4, templates=("{}",))
    context = Context(model, CAT, config, update, model.encode([""]), method="the test")
    update.prepare(context)
    return context


def make_step(context: Context) -> Step:
    return Step(0, context.update, torch.Generator().manual_seed(0), [0, 0], [0, 0], [0, 1], [0, 0])


@pytest.mark.parametrize(
    ("term", "message"),
    [
        (Denoising(Drawn(), "eps", "erase"), "denoising needs the noise that was added to pictures"),
        (WrongNoise(Drawn(), [], "uniform-noised", "eps"), "'uniform-noised' learns the noise that was added"),
    ],
)
def test_terms_that_learn_an_added_noise_refuse_states_without_one(eps_model: Any, term: Term, message: str) -> None:
    context = build_context(eps_model, Dense("xattn", 1e-3))
    term.prepare(context)
    with pytest.raises(ValueError, match=message):
        term.build_queries(context, make_step(context))


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
        term.prepare(build_context(eps_model, Dense("xattn", 1e-3), batch=1))


def test_in_half_precision_the_network_uses_the_rounded_fp32_copies_after_every_step_and_after_a_resume() -> None:
    """Changes that are smaller than the rounding of bf16 add up in the copies."""
    model = StableDiffusion(tiny_pipeline().to(torch.bfloat16), "tiny", words=WORDS)
    update = Dense("xattn", 1e-5)
    build_context(model, update)
    leaves, masters = update.list_params(), update.list_optimised()
    assert {leaf.dtype for leaf in leaves} == {torch.bfloat16} and {m.dtype for m in masters} == {torch.float32}
    start = [master.detach().clone() for master in masters]
    for _ in range(3):
        update.step([torch.ones_like(leaf) for leaf in leaves])
        assert all(torch.equal(leaf, master.to(leaf.dtype)) for leaf, master in zip(leaves, masters, strict=True))
    for before, master in zip(start, masters, strict=True):
        assert torch.allclose(before - master, torch.full_like(master, 3e-5), rtol=0.02)

    other = Dense("xattn", 1e-5)
    build_context(StableDiffusion(tiny_pipeline().to(torch.bfloat16), "tiny", words=WORDS), other)
    other.step([-torch.ones_like(leaf) for leaf in other.list_params()])
    other.load_state_dict(update.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(other.list_optimised(), masters, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(other.list_params(), leaves, strict=True))


def test_in_fp32_the_network_uses_the_copies_themselves(eps_model: Any) -> None:
    update = Dense("xattn", 1e-3)
    build_context(eps_model, update)
    assert all(leaf is master for leaf, master in zip(update.list_params(), update.list_optimised(), strict=True))
