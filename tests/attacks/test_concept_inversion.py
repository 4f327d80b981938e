"""Concept inversion: where the learned word stands, that it learns, and what interrupts it."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from attack_context import (
    Files,
    build_context,
    build_rows,
    build_shifted,
    drive,
    edit_of,
    is_same,
    let_gradients_overflow,
    take_snapshot,
)
from efface.attacks import inversion
from efface.attacks.base import AttackContext, Candidate
from efface.attacks.inversion import ConceptInversion
from efface.edits.edit import Edit
from efface.functional.adversary import NoGradient
from efface.functional.denoising import measure_denoising_errors
from efface.models.adapters.sd import StableDiffusion
from efface.models.cond import Cond
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl

Short = partial(ConceptInversion, templates=("a {}",))
"""A prompt that the tiny tokenizer has room for."""
ROWS = build_rows("a cat", "red apple", "a rose lion")


def list_embeddings(attack: ConceptInversion, context: AttackContext) -> list[list[Tensor]]:
    """The embedding of each row's prompt, round by round."""
    return drive(
        attack.propose(context, ROWS),
        context.model,
        lambda candidates: [candidate.prompt.embedding for candidate in candidates],
    )


def error(context: AttackContext, embedding: Tensor) -> float:
    """The mean denoising error of the context's pictures under an embedding, at noise that no attack has seen."""
    model = context.model
    with torch.no_grad():
        errors = measure_denoising_errors(
            lambda x_t, t: model.predict(x_t, t, Cond({"clip": embedding[None]}))[0],
            model.encode_pictures(context.pictures).repeat(30, 1, 1, 1),
            model.find_noise_level,
            len(model.levels),
            model.space,
            torch.Generator().manual_seed(99),
        )
    return float(errors.mean())


@pytest.mark.parametrize(
    ("prompt", "spelt"),
    [
        ("a {} car", "a cat car"),
        ("{}", "cat"),
        ("{} red", "cat red"),
        ("a red {}", "a red cat"),
        ("{} red {}", "cat red cat"),
        ("a {} {} {} car rose", "a cat cat cat car rose"),
    ],
)
def test_a_known_word_in_the_slot_reads_as_the_prompt_with_that_word(
    prompt: str, spelt: str, eps_model: StableDiffusion
) -> None:
    word = eps_model.get_embedding_table().detach()[eps_model.tokenize(["cat"])[0, 1]]
    with torch.no_grad():
        read = inversion._read(eps_model, [inversion._leave_room(eps_model, prompt, 1)], word.view(1, 1, -1))
    assert torch.equal(read.tokens, eps_model.encode([spelt]).tokens)


def test_words_of_several_tokens_fit_into_a_prompt_that_then_loses_its_end(eps_model: StableDiffusion) -> None:
    table = eps_model.get_embedding_table().detach()
    words = table[eps_model.tokenize(["cat dog car"])[0, 1:4]][None]
    with torch.no_grad():
        read = inversion._read(eps_model, [inversion._leave_room(eps_model, "a red {} rose lion", 3)], words)
    with pytest.warns(UserWarning, match="loses? (its|their) end"):
        wanted = eps_model.encode(["a red cat dog car rose lion"])
    assert torch.equal(read.tokens, wanted.tokens)
    with pytest.raises(ValueError, match="a word of 7 tokens leaves no room in a prompt of 6"):
        inversion._leave_room(eps_model, "{}", 7)


def test_each_row_is_asked_with_the_learned_word_in_the_names_place(eps_model: StableDiffusion) -> None:
    edit = build_shifted(eps_model)
    context = build_context(eps_model, edit)
    with edit.apply(eps_model):
        before = take_snapshot(eps_model)
        rounds = drive(Short(steps=2, queries=2).propose(context, ROWS), eps_model, list)
        assert is_same(eps_model, before)
    assert len(rounds) == 2, "one picture a row for each word"
    for candidates in rounds:
        assert [candidate.prompt.text for candidate in candidates] == ["a <*>", "<*>, red apple", "a rose <*>"]
        assert [candidate.seed for candidate in candidates] == [row.seed for row in ROWS]
        pictures = eps_model.images(
            [candidate.prompt for candidate in candidates], [candidate.seed for candidate in candidates]
        )
        assert pictures.shape == (3, 3, 16, 16)
    first, second = ([candidate.prompt.embedding for candidate in candidates] for candidates in rounds)
    assert not torch.equal(first[0], second[0])


def test_learning_denoises_the_pictures_better_than_the_word_it_began_with(model: StableDiffusion) -> None:
    context = build_context(model, None)
    attack = Short(steps=40, lr=0.5, batch=16, start="car")
    found = list_embeddings(attack, context)[0][0]
    started = model.encode(["a car"]).tokens[0]
    assert error(context, found) < error(context, started)


def test_learning_lowers_a_factor_with_which_gradients_overflow(
    eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The factor is a power of two, so that the word is the same, bit for bit, as without one."""
    attack = Short(steps=3, batch=4, start="car")
    plain = list_embeddings(attack, build_context(eps_model, None))[0][0]
    let_gradients_overflow(eps_model, monkeypatch)
    assert torch.equal(list_embeddings(attack, build_context(eps_model, None))[0][0], plain)


def test_the_budget_is_the_number_of_passes(eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    predict = eps_model.predict

    def counted(x_t: Tensor, t: Tensor, *conds: Cond) -> tuple[Tensor, ...]:
        calls.append(len(x_t))
        return predict(x_t, t, *conds)

    monkeypatch.setattr(eps_model, "predict", counted)
    drive(Short(steps=7, batch=3, queries=2).propose(build_context(eps_model, None), ROWS), eps_model, len)
    assert calls == [6] * 7


def test_an_interrupted_learning_goes_on_where_it_stood(
    eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inversion, "SAVE_EVERY", 3)
    attack = Short(steps=8)
    whole = list_embeddings(attack, build_context(eps_model, None))
    files = Files(fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        list_embeddings(attack, build_context(eps_model, None, once=files))
    files.fail_at = None
    again = list_embeddings(attack, build_context(eps_model, None, once=files))
    assert files.made == ["3 steps", "6 steps", "8 steps"]
    assert all(torch.equal(a, b) for a, b in zip(whole[0], again[0], strict=True))
    other_rows = Short(steps=8).propose(build_context(eps_model, None, once=files), ROWS[2:])
    (alone,) = drive(other_rows, eps_model, lambda candidates: candidates[0].prompt.embedding)
    assert torch.allclose(alone, whole[0][2], atol=1e-6) and files.made == ["3 steps", "6 steps", "8 steps"]


def test_a_guided_model_is_learned_from_and_drawn_under_its_guide(eps_model: StableDiffusion) -> None:
    guided = Edit({}, {**edit_of(eps_model, {}).meta, "guide": {"name": "negative", "arguments": {"prompt": "cat"}}})
    context = build_context(eps_model, guided)
    attack = Short(steps=2)
    attack.check(context)
    plain = list_embeddings(attack, build_context(eps_model, None))
    with guided.apply(eps_model):
        candidates: list[Candidate] = next(attack.propose(context, ROWS))  # type: ignore[assignment]
        pictures = eps_model.images(
            [candidate.prompt for candidate in candidates], [candidate.seed for candidate in candidates]
        )
    assert torch.equal(candidates[0].prompt.embedding, plain[0][0])  # type: ignore[union-attr]
    without = eps_model.images(
        [candidate.prompt for candidate in candidates], [candidate.seed for candidate in candidates]
    )
    assert not torch.equal(pictures, without)


def test_a_model_that_answers_nothing_gives_nothing_to_follow(
    eps_model: StableDiffusion, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eps_model, "predict", lambda x_t, t, cond: (x_t + 0 * cond.tokens.sum(),))
    with pytest.raises(NoGradient, match="at step 1"):
        next(Short(steps=2).propose(build_context(eps_model, None), ROWS))


def test_a_word_is_learned_for_two_text_encoders() -> None:
    model = tiny_sdxl()
    (first,) = Short(steps=1, lr=1e-6).propose(build_context(model, None), ROWS)
    (later,) = Short(steps=3, lr=0.5).propose(build_context(model, None), ROWS)
    before, after = (model.encode([candidate.prompt for candidate in candidates]) for candidates in (first, later))
    for name in ("clip", "pooled"):
        assert (before.tensors[name] - after.tensors[name]).abs().amax() > 1e-3
    assert len(model.images([candidate.prompt for candidate in later], [0] * len(later))) == len(ROWS)


def test_a_model_without_text_encoder_is_refused() -> None:
    with pytest.raises(ValueError, match="no text encoder that token embeddings could be given to"):
        ConceptInversion().check(build_context(tiny_ddpm(), None))


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"steps": 0}, "steps must be at least 1"),
        ({"templates": ("no slot",)}, "holds the word"),
        ({"tokens": 0}, "tokens"),
    ],
)
def test_settings_that_cannot_be_used_are_refused(settings: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ConceptInversion(**settings)


def test_a_word_as_long_as_the_prompt_is_refused_before_any_work(eps_model: StableDiffusion) -> None:
    with pytest.raises(ValueError, match="leaves no room"):
        ConceptInversion(tokens=7).check(build_context(eps_model, None))
