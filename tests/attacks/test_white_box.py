"""Attacks by gradient: exact budgets, rows that leave, every architecture, and edits that give no gradient."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from efface.attacks.base import build_denoising_error
from efface.attacks.mma import MMA
from efface.attacks.p4d import P4D
from efface.attacks.soft_prompt import SoftPrompt
from efface.attacks.unlearndiff import UnlearnDiff
from efface.edits.edit import Edit
from efface.functional.adversary import NoGradient, NotFinite
from efface.models.adapters.sd import StableDiffusion
from efface.models.base import Model
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl
from white_box_fixtures import (
    BY_GRADIENT,
    QUICK,
    ROWS,
    WHOLE,
    build_context,
    build_row,
    list_candidates,
    name_attack,
    shake,
)


def read_text(candidate) -> str:
    return candidate.prompt if isinstance(candidate.prompt, str) else candidate.prompt.text


def read(candidate) -> str | list[float]:
    return candidate.prompt if isinstance(candidate.prompt, str) else candidate.prompt.embedding.flatten().tolist()


@pytest.mark.parametrize("attack", QUICK, ids=name_attack)
def test_budgets_are_exact_and_rows_that_break_leave(attack, eps_model, monkeypatch):
    context = build_context(eps_model, dict(eps_model.weights))
    rounds = list_candidates(attack, context, ROWS)
    assert len(rounds) == attack.queries
    for r, tries in zip(ROWS, zip(*rounds, strict=True), strict=True):
        # MMA draws a prompt that it drew before with another seed.
        again = [
            i > 0 and isinstance(attack, MMA) and each.prompt == tries[i - 1].prompt for i, each in enumerate(tries)
        ]
        assert [each.seed == r.seed for each in tries] == [not old for old in again]

    seen: list[int] = []
    reads = StableDiffusion.encode_with_grad
    monkeypatch.setattr(
        StableDiffusion, "encode_with_grad", lambda self, *args: seen.append(len(args[0])) or reads(self, *args)
    )
    if attack.threat == "gradients":
        predict, seen = Model.predict, []
        monkeypatch.undo()
        counted = lambda self, x, t, *c: seen.append(len(x)) if torch.is_grad_enabled() else None  # noqa: E731
        monkeypatch.setattr(Model, "predict", lambda self, *a: counted(self, *a) or predict(self, *a))
    left = list_candidates(attack, context, ROWS, [[False, True, False], [True, True, False], [True, True, False]])
    assert [[candidate is not None for candidate in candidates] for candidates in left] == [
        [True, True, True],
        [True, False, True],
        [False, False, True],
    ]
    assert [read_text(candidates[2]) for candidates in left] == [read_text(candidates[2]) for candidates in rounds]
    if attack.threat == "gradients":
        assert seen == [n for n in (3, 2, 1) for _ in range(attack.steps)]
    else:
        # The gradient, then all candidates.
        assert seen == [m for n in (3, 2, 1) for _ in range(attack.steps) for m in (n, n * attack.candidates)]
    assert len(list_candidates(attack, context, ROWS, [[True, True, True]])) == 1


@pytest.mark.parametrize("attack", QUICK, ids=name_attack)
def test_a_row_is_attacked_the_same_whoever_is_beside_it(attack, eps_model):
    context = build_context(eps_model, dict(eps_model.weights))
    together, alone = list_candidates(attack, context, ROWS), list_candidates(attack, context, ROWS[1:2])
    for many, (one,) in zip(together, alone, strict=True):
        assert read_text(many[1]) == read_text(one)
        if not isinstance(one.prompt, str):
            assert torch.allclose(many[1].prompt.embedding, one.prompt.embedding, atol=1e-3)
    if attack.threat == "gradients":  # whatever the seed, MMA finds the best of so few words
        other = list_candidates(attack, replace(context, seed=1), ROWS[1:2])
        assert any(read(a) != read(b) for (a,), (b,) in zip(alone, other, strict=True))


@pytest.mark.parametrize(
    "attack", [a for a in QUICK if name_attack(a) in ("UnlearnDiff", "P4D-hard", "MMA")], ids=name_attack
)
def test_words_can_be_typed_and_spell_the_tokens_meant(attack, eps_model):
    context = build_context(eps_model, dict(eps_model.weights))
    allowed = context.list_other_words() if attack.threat == "encoder" else WHOLE
    for candidates in list_candidates(attack, context, ROWS):
        for candidate, r in zip(candidates, ROWS, strict=True):
            words = candidate.prompt.removesuffix(r.prompt if isinstance(attack, UnlearnDiff) else "").split()
            assert len(words) == attack.tokens
            assert set(words) <= set(allowed)
            assert (eps_model.tokenize([candidate.prompt])[0] == eps_model.tokenize(["cat"])[0, 2]).sum() == 7 - len(
                candidate.prompt.split()
            )
    assert "cat" not in context.list_other_words() and "lion" not in context.list_other_words()


@pytest.mark.parametrize("attack", BY_GRADIENT, ids=name_attack)
def test_it_lowers_the_error_of_an_edited_model(attack, eps_model):
    """Over many states that the attack never saw, against where it starts."""
    context = build_context(eps_model, dict(eps_model.weights))
    rows, more = [build_row(i) for i in range(4)], {"steps": 30, "queries": 1}
    with eps_model.swap_in(shake(eps_model)):
        first = list_candidates(replace(attack, steps=1, queries=1, lr=1e-9), context, rows)[-1]
        last = list_candidates(replace(attack, **more), context, rows)[-1]
        with context.base():
            goal = eps_model.encode(["a cat"])
        means = []
        for candidates in (first, last):
            cond, judge = (
                eps_model.encode([s.prompt for s in candidates]),
                build_denoising_error(context, rows, "judge"),
            )
            total = torch.zeros(len(rows))
            for _ in range(25):
                states = judge.draw_states()
                if isinstance(attack, P4D):
                    with context.base(), torch.no_grad():
                        states.known["goal"] = eps_model.predict(states.x, states.t, goal)[0]  # type: ignore[index]
                with torch.no_grad():
                    total += judge.compute_error(states, cond)
            means.append(float(total.mean()))
    assert means[1] < means[0]


@pytest.mark.parametrize("attack", BY_GRADIENT, ids=name_attack)
def test_edits_that_give_no_gradient_are_refused_and_never_a_silent_zero(attack, eps_model):
    guide = Edit({}, {"guide": {"name": "negative", "arguments": {"prompt": "cat"}}})
    with pytest.raises(ValueError, match=r"the edit is a guide \(negative\): .* attacks by prompts"):
        attack.check(replace(build_context(eps_model), edit=guide))
    deaf = {name: torch.zeros_like(w) for name, w in eps_model.weights.items() if "attn2.to_v" in name}
    with eps_model.swap_in(deaf), pytest.raises(NoGradient, match="no gradient reaches the prompt"):
        next(attack.propose(build_context(eps_model), ROWS))
    broken = {name: torch.full_like(w, torch.nan) for name, w in eps_model.weights.items() if "attn2.to_v" in name}
    with eps_model.swap_in(broken), pytest.raises(NotFinite, match="not finite"):
        next(attack.propose(build_context(eps_model), ROWS))


@pytest.mark.parametrize("attack", QUICK, ids=name_attack)
def test_two_text_encoders(attack):
    """Every attack on Stable Diffusion XL: what it found is read otherwise than the prompt, and is drawn."""
    model = tiny_sdxl()
    attack.check(build_context(model))
    rounds = list_candidates(attack, build_context(model, dict(model.weights)), ROWS)
    assert len(rounds) == attack.queries
    asked = [candidate.prompt for candidate in rounds[-1]]
    own, found = model.encode([r.prompt for r in ROWS]), model.encode(asked)
    for name in ("clip",) if getattr(attack, "where", "") == "encoding" else ("clip", "pooled"):
        assert (own.tensors[name] != found.tensors[name]).flatten(1).any(dim=1).all()
    assert model.images(asked, [0, 1, 2]).shape[0] == 3


def test_a_class_model_hears_no_words():
    model = tiny_ddpm()
    rows = [build_row(0), build_row(1)]
    for attack in QUICK:
        if getattr(attack, "where", "") != "encoding":
            with pytest.raises(ValueError, match="has no text encoder that token embeddings could be given to"):
                attack.check(build_context(model))
            continue
        attack.check(build_context(model))
        before = model.encode([r.prompt for r in rows]).flatten()
        candidates = list_candidates(attack, build_context(model), rows)[-1]
        after = model.encode([candidate.prompt for candidate in candidates])
        assert (after.flatten() != before).any(dim=1).all()
        assert model.images([candidate.prompt for candidate in candidates], [0, 1]).shape[0] == 2


def test_bad_settings(eps_model):
    for make, bad, message in (
        (UnlearnDiff, {"queries": 0}, "queries must be at least 1, got 0"),
        (UnlearnDiff, {"lr": 0.0}, "lr must be positive"),
        (P4D, {"how": "firm"}, "no prompt is 'firm'; give hard"),
        (P4D, {"steps": 0}, "steps must be positive"),
        (SoftPrompt, {"where": "before"}, "not 'before'"),
        (MMA, {"candidates": 0}, "candidates must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**bad)
    for make in (UnlearnDiff, P4D, SoftPrompt, MMA):
        with pytest.raises(ValueError, match="7 tokens before the prompt do not fit; tiny reads 6"):
            make(tokens=7).check(build_context(eps_model))
    with pytest.raises(ValueError, match="knows no word beside 'cat'"):
        MMA(tokens=2).check(replace(build_context(eps_model), words=["cat"]))
