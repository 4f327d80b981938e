"""How UnlearnDiff, P4D and MMA search: their steps by hand, and against brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import efface
from efface.attacks.base import build_denoising_error
from efface.attacks.mma import MMA
from efface.attacks.p4d import P4D
from efface.attacks.unlearndiff import UnlearnDiff
from efface.models.base import Model
from white_box_fixtures import ROWS, WHOLE, build_context, list_candidates, shake


def test_unlearndiff_walks_over_the_authors_timesteps(eps_model, monkeypatch):
    times: list[float] = []
    predict = Model.predict
    monkeypatch.setattr(Model, "predict", lambda self, x, t, *c: times.extend(t.tolist()) or predict(self, x, t, *c))
    list_candidates(UnlearnDiff(steps=1, tokens=1), build_context(eps_model), ROWS[:1])
    assert times == list(range(10, 1000, 20))


def test_unlearndiffs_step_by_hand(eps_model):
    """Straight-through, clamped, with the L2 penalty, by torch's Adam and a projection by bisection."""
    context = build_context(eps_model)
    how = UnlearnDiff(queries=1, steps=3, tokens=2, lr=0.05, decay=0.3)
    ((candidate, other, _),) = list_candidates(how, context, ROWS)
    recall = build_denoising_error(context, ROWS, "unlearndiff")
    table = eps_model.get_embedding_table().detach()[[int(eps_model.tokenize([word])[0, 1]) for word in WHOLE]]
    points = torch.full((3, 2, len(WHOLE)), 1 / len(WHOLE), requires_grad=True)
    adam = torch.optim.Adam([points], lr=0.05, weight_decay=0.3)
    for _ in range(3):
        states = recall.draw_states(500)
        picks = [torch.multinomial(p.detach(), 1, generator=rng) for p, rng in zip(points, recall.rngs, strict=True)]
        hot = F.one_hot(torch.stack(picks)[..., 0], len(WHOLE)).float().requires_grad_()
        errors = recall.compute_error(states, eps_model.encode_with_grad([r.prompt for r in ROWS], hot @ table))
        points.grad = torch.autograd.grad(errors.sum(), [hot])[0].clamp(-1, 1)
        adam.step()
        with torch.no_grad():
            low, high = points - 1e3, points.amax(-1, keepdim=True)
            low = points.amin(-1, keepdim=True) - 1
            for _ in range(60):
                middle = (low + high) / 2
                heavy = (points - middle).clamp(min=0).sum(-1, keepdim=True) > 1
                low, high = torch.where(heavy, middle, low), torch.where(heavy, high, middle)
            points.copy_((points - middle).clamp(min=0))
    for found, best in ((candidate, points[0]), (other, points[1])):
        words = [WHOLE[int(v)] for v in best.argmax(-1)]
        assert found.prompt.split()[:2] == words


def test_p4d_asks_for_what_the_base_says(eps_model):
    """With the base's own words at hand the error is zero on the base, and not under an edit."""
    base = dict(eps_model.weights)
    context = build_context(eps_model, base)
    search = efface.attacks.p4d.Prompts(P4D(tokens=2), context, ROWS)
    named = ["cat" if "cat" in r.prompt else f"cat, {r.prompt}" for r in ROWS]
    named = [context.put(r.prompt, "cat") for r in ROWS]
    assert named[2] == "cat, dog"
    states = search._predict_goal(search.denoising.draw_states())
    with torch.no_grad():
        assert search.denoising.compute_error(states, eps_model.encode(named)).max() == pytest.approx(0, abs=1e-10)
        with eps_model.swap_in(shake(eps_model)):
            edited = search._predict_goal(replace(states, known={}))
            assert torch.equal(edited.known["goal"], states.known["goal"])
            assert search.denoising.compute_error(states, eps_model.encode(named)).min() > 1e-6


def test_mma_finds_the_best_single_substitutions(eps_model):
    """With all words promising and all candidates tried, a step is the best of all single changes, by brute force."""
    context = build_context(eps_model)
    words, count = context.list_other_words(), 400
    how = MMA(queries=1, steps=1, tokens=2, top=len(words), candidates=count)
    search = efface.attacks.mma.Readings(how, context, ROWS)
    start = search.ids.clone()
    search.advance(0)
    for i, r in enumerate(ROWS):
        wanted = eps_model.encode([context.put(r.prompt, "cat")]).flatten()[0]

        def likeness(ids, wanted=wanted):
            return float(
                F.cosine_similarity(eps_model.encode([" ".join(words[v] for v in ids)]).flatten()[0], wanted, 0)
            )

        all_changes = [[u, int(start[i, 1])] for u in range(len(words))]
        all_changes += [[int(start[i, 0]), u] for u in range(len(words))]
        best = max(likeness(ids) for ids in all_changes)
        assert likeness(search.ids[i].tolist()) == pytest.approx(best, abs=1e-5)
        assert sum(a != b for a, b in zip(start[i].tolist(), search.ids[i].tolist(), strict=True)) <= 1


def test_mma_never_falls_back_and_comes_near_what_brute_force_finds(eps_model):
    context = build_context(eps_model)
    words = context.list_other_words()
    search = efface.attacks.mma.Readings(MMA(tokens=2, top=len(words), candidates=60), context, ROWS)
    far = [search._measure_distance(search.table[search.ids], search.ids, search.wanted).detach()]
    for _ in range(4):
        search._substitute()
        far.append(search._measure_distance(search.table[search.ids], search.ids, search.wanted).detach())
    assert all((b <= a).all() for a, b in itertools.pairwise(far))
    pairs = torch.tensor(list(itertools.product(range(len(words)), repeat=2)))
    for i in range(len(ROWS)):
        with torch.no_grad():
            every = search._measure_distance(search.table[pairs], pairs, search.wanted[i].expand(len(pairs), -1))
        assert (every < far[-1][i] - 1e-6).float().mean() < 0.05


def test_mma_never_draws_the_same_picture_twice(eps_model):
    """Once no word is better, its queries are other seeds, as they are for random prefixes."""
    rounds = list_candidates(MMA(queries=6, steps=3, tokens=1, top=99, candidates=99), build_context(eps_model), ROWS)
    for row, tries in zip(ROWS, zip(*rounds, strict=True), strict=True):
        assert len({(each.prompt, each.seed) for each in tries}) == 6
        assert len({each.prompt for each in tries}) < 6 and tries[0].seed == row.seed
