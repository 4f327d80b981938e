"""Attacks by gradient: finite differences, brute force, exact budgets, rows that leave, and edits that give nothing."""

from __future__ import annotations

import itertools
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

import efface
from efface.attacks.base import Attack, AttackContext, build_denoising_error, propose_within_budget
from efface.attacks.denoising_error import DenoisingError
from efface.attacks.mma import MMA
from efface.attacks.p4d import P4D
from efface.attacks.soft_prompt import SoftPrompt
from efface.attacks.unlearndiff import UnlearnDiff
from efface.concept import Erasure, Prompt
from efface.edits.edit import Edit
from efface.functional.adversary import NoGradient, NotFinite, measure_steepness
from efface.functional.tokens import compute_slopes
from efface.guidance.gate import MATCH, Gate
from efface.methods.spm import SPM
from efface.models.adapters.sd import StableDiffusion
from efface.models.adapters.sdxl import StableDiffusionXL
from efface.models.base import Model
from efface.suites.spec import Row
from tiny import WORDS, tiny_pipeline
from tiny_ddpm import tiny_ddpm
from tiny_sdxl import tiny_sdxl, tiny_sdxl_pipeline

WHOLE = [word for word in WORDS if len(word) > 1]
QUICK = (
    UnlearnDiff(queries=3, steps=4, tokens=2, lr=0.1),
    P4D(queries=3, steps=4, tokens=3, how="hard"),
    P4D(queries=3, steps=4, tokens=3, how="soft", lr=0.5),
    SoftPrompt(queries=3, steps=4, tokens=2, lr=0.5),
    SoftPrompt(queries=3, steps=4, where="encoding", lr=0.1),
    MMA(queries=3, steps=2, tokens=2, top=4, candidates=6),
)
BY_GRADIENT = [attack for attack in QUICK if attack.threat == "gradients"]


def label(attack: Attack) -> str:
    return "-".join([type(attack).__name__, *(v for v in (getattr(attack, n, "") for n in ("how", "where")) if v)])


def row(i: int, prompt: str = "a cat") -> Row:
    return Row(f"target/cat/{i:04d}", prompt, i, "target", "erase", "object", "cat", ("cat",), thing="cat")


ROWS = [row(0), row(1, "a red cat"), row(2, "dog")]


def context_of(model: Model, base: dict[str, torch.Tensor] | None = None, edit: Edit | None = None) -> AttackContext:
    """Cat is to come back; the base's weights are the model's own unless given."""
    pictures = torch.randint(256, (4, 3, 16, 16), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    if model.architecture == "ddpm":
        pictures = pictures[..., :8, :8]
    return AttackContext(
        model, edit, "cat", lambda: model.swap_in(base) if base else nullcontext(), ("lion",), WHOLE, pictures
    )


def shaken(model: Model) -> dict[str, torch.Tensor]:
    """The U-Net's weights, moved: as an edit would."""
    rng = torch.Generator().manual_seed(5)
    return {
        name: w + 0.5 * w.std(correction=0) * torch.randn(w.shape, generator=rng).to(w)
        for name, w in ((name, w.detach()) for name, w in model.weights.items())
        if name.startswith("unet.") and "attn2" in name
    }


def shots_of(attack: Attack, context: AttackContext, rows: list[Row], broken: list[list[bool]] | None = None) -> list:
    """All rounds; `broken` answers them one by one, nothing breaks by default."""
    rounds, game = [], propose_within_budget(attack, context, rows)
    answers = iter(broken or [])
    try:
        candidates = next(game)
        while True:
            rounds.append(candidates)
            candidates = game.send(next(answers, [False] * len(rows)))
    except StopIteration:
        return rounds


def text_of(candidate) -> str:
    return candidate.prompt if isinstance(candidate.prompt, str) else candidate.prompt.text


def read(candidate) -> str | list[float]:
    return candidate.prompt if isinstance(candidate.prompt, str) else candidate.prompt.embedding.flatten().tolist()


@pytest.mark.parametrize("where", ["before", "encoding"])
def test_the_gradient_through_the_model_by_finite_differences(where):
    model = StableDiffusion(tiny_pipeline("v_prediction").to(torch.float64), "tiny", words=WORDS)
    recall = build_denoising_error(context_of(model), ROWS, "test")
    states = recall.draw_states()
    prompts = [r.prompt for r in ROWS]
    own = model.encode(prompts)
    rng = torch.Generator().manual_seed(1)
    if where == "before":
        at = model.get_embedding_table().detach()[torch.randint(50, (3, 2), generator=rng)].double()
        error = lambda e: recall.compute_error(states, model.encode_with_grad(prompts, e))  # noqa: E731
    else:
        at = own.tokens.detach().double()
        error = lambda e: recall.compute_error(states, type(own)({"clip": e}))  # noqa: E731
    errors, grad = measure_steepness(error, at)
    assert grad.abs().amax(dim=(1, 2)).min() > 0
    for i in range(3):
        way = torch.randn(at.shape, generator=rng, dtype=torch.double)
        with torch.no_grad():
            up, down = (error(at + s * 1e-3 * way).double() for s in (1, -1))
        along = (grad * way).sum(dim=(1, 2))
        assert along[i].item() == pytest.approx((up - down)[i].item() / 2e-3, rel=2e-2, abs=1e-6)
    with torch.no_grad():
        assert torch.allclose(error(at), errors)


def test_the_error_is_that_of_the_noise_in_eps(model):
    """For both predictions: turned into noise by hand, against the noise that was added."""
    recall = build_denoising_error(context_of(model), ROWS, "test")
    same = DenoisingError(model, recall.latents, [torch.Generator().manual_seed(0) for _ in ROWS])
    again = DenoisingError(model, recall.latents, [torch.Generator().manual_seed(0) for _ in ROWS])
    assert torch.equal(same.draw_states(500).x, again.draw_states(500).x)
    states = recall.draw_states()
    cond = model.encode([r.prompt for r in ROWS])
    with torch.no_grad():
        errors, said = recall.compute_error(states, cond), model.predict(states.x, states.t, cond)[0]
    a = model.levels.alpha.square()[states.t.long()].float()[:, None, None, None]
    if model.space == "v":
        said, goal = ((1 - a).sqrt() * states.x + a.sqrt() * v for v in (said, states.known["goal"]))
    else:
        goal = states.known["goal"]
    assert torch.allclose(errors, (said - goal).square().mean(dim=(1, 2, 3)), rtol=1e-4)
    x0 = (states.x - (1 - a).sqrt() * goal) / a.sqrt()
    for picture in x0:
        assert min((picture - known).abs().max() for known in recall.latents) < 1e-3
    assert abs(float(goal.std()) - 1) < 0.2


@pytest.mark.parametrize("attack", QUICK, ids=label)
def test_budgets_are_exact_and_rows_that_break_leave(attack, eps_model, monkeypatch):
    context = context_of(eps_model, dict(eps_model.weights))
    rounds = shots_of(attack, context, ROWS)
    assert len(rounds) == attack.queries
    assert all(
        candidate is not None and candidate.seed == r.seed
        for candidates in rounds
        for candidate, r in zip(candidates, ROWS, strict=True)
    )

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
    left = shots_of(attack, context, ROWS, [[False, True, False], [True, True, False], [True, True, False]])
    assert [[candidate is not None for candidate in candidates] for candidates in left] == [
        [True, True, True],
        [True, False, True],
        [False, False, True],
    ]
    assert [text_of(candidates[2]) for candidates in left] == [text_of(candidates[2]) for candidates in rounds]
    if attack.threat == "gradients":
        assert seen == [n for n in (3, 2, 1) for _ in range(attack.steps)]
    else:
        # The gradient, then all candidates.
        assert seen == [m for n in (3, 2, 1) for _ in range(attack.steps) for m in (n, n * attack.candidates)]
    assert len(shots_of(attack, context, ROWS, [[True, True, True]])) == 1


@pytest.mark.parametrize("attack", QUICK, ids=label)
def test_a_row_is_attacked_the_same_whoever_is_beside_it(attack, eps_model):
    context = context_of(eps_model, dict(eps_model.weights))
    together, alone = shots_of(attack, context, ROWS), shots_of(attack, context, ROWS[1:2])
    for many, (one,) in zip(together, alone, strict=True):
        assert text_of(many[1]) == text_of(one)
        if not isinstance(one.prompt, str):
            assert torch.allclose(many[1].prompt.embedding, one.prompt.embedding, atol=1e-3)
    if attack.threat == "gradients":  # whatever the seed, MMA finds the best of so few words
        other = shots_of(attack, replace(context, seed=1), ROWS[1:2])
        assert any(read(a) != read(b) for (a,), (b,) in zip(alone, other, strict=True))


@pytest.mark.parametrize("attack", [a for a in QUICK if label(a) in ("UnlearnDiff", "P4D-hard", "MMA")], ids=label)
def test_words_can_be_typed_and_spell_the_tokens_meant(attack, eps_model):
    context = context_of(eps_model, dict(eps_model.weights))
    allowed = context.list_other_words() if attack.threat == "encoder" else WHOLE
    for candidates in shots_of(attack, context, ROWS):
        for candidate, r in zip(candidates, ROWS, strict=True):
            words = candidate.prompt.removesuffix(r.prompt if isinstance(attack, UnlearnDiff) else "").split()
            assert len(words) == attack.tokens
            assert set(words) <= set(allowed)
            assert (eps_model.tokenize([candidate.prompt])[0] == eps_model.tokenize(["cat"])[0, 2]).sum() == 7 - len(
                candidate.prompt.split()
            )
    assert "cat" not in context.list_other_words() and "lion" not in context.list_other_words()


def test_unlearndiff_walks_over_the_authors_timesteps(eps_model, monkeypatch):
    times: list[float] = []
    predict = Model.predict
    monkeypatch.setattr(Model, "predict", lambda self, x, t, *c: times.extend(t.tolist()) or predict(self, x, t, *c))
    shots_of(UnlearnDiff(steps=1, tokens=1), context_of(eps_model), ROWS[:1])
    assert times == list(range(10, 1000, 20))


def test_unlearndiffs_step_by_hand(eps_model):
    """Straight-through, clamped, with the L2 penalty, by torch's Adam and a projection by bisection."""
    context = context_of(eps_model)
    how = UnlearnDiff(queries=1, steps=3, tokens=2, lr=0.05, decay=0.3)
    ((candidate, other, _),) = shots_of(how, context, ROWS)
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


@pytest.mark.parametrize("attack", BY_GRADIENT, ids=label)
def test_it_lowers_the_error_of_an_edited_model(attack, eps_model):
    """Over many states that the attack never saw, against where it starts."""
    context = context_of(eps_model, dict(eps_model.weights))
    rows, more = [row(i) for i in range(4)], {"steps": 30, "queries": 1}
    with eps_model.swap_in(shaken(eps_model)):
        first = shots_of(replace(attack, steps=1, queries=1, lr=1e-9), context, rows)[-1]
        last = shots_of(replace(attack, **more), context, rows)[-1]
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


def test_p4d_asks_for_what_the_base_says(eps_model):
    """With the base's own words at hand the error is zero on the base, and not under an edit."""
    base = dict(eps_model.weights)
    context = context_of(eps_model, base)
    search = efface.attacks.p4d.Prompts(P4D(tokens=2), context, ROWS)
    named = ["cat" if "cat" in r.prompt else f"cat, {r.prompt}" for r in ROWS]
    named = [context.put(r.prompt, "cat") for r in ROWS]
    assert named[2] == "cat, dog"
    states = search._predict_goal(search.denoising.draw_states())
    with torch.no_grad():
        assert search.denoising.compute_error(states, eps_model.encode(named)).max() == pytest.approx(0, abs=1e-10)
        with eps_model.swap_in(shaken(eps_model)):
            edited = search._predict_goal(replace(states, known={}))
            assert torch.equal(edited.known["goal"], states.known["goal"])
            assert search.denoising.compute_error(states, eps_model.encode(named)).min() > 1e-6


def test_mma_finds_the_best_single_substitutions(eps_model):
    """With all words promising and all candidates tried, a step is the best of all single changes, by brute force."""
    context = context_of(eps_model)
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
    context = context_of(eps_model)
    words = context.list_other_words()
    search = efface.attacks.mma.Readings(MMA(tokens=2, top=len(words), candidates=60), context, ROWS)
    far = [search._measure_distance(search.table[search.ids], search.wanted).detach()]
    for _ in range(4):
        search._substitute()
        far.append(search._measure_distance(search.table[search.ids], search.wanted).detach())
    assert all((b <= a).all() for a, b in itertools.pairwise(far))
    pairs = torch.tensor(list(itertools.product(range(len(words)), repeat=2)))
    for i in range(len(ROWS)):
        with torch.no_grad():
            every = search._measure_distance(search.table[pairs], search.wanted[i].expand(len(pairs), -1))
        assert (every < far[-1][i] - 1e-6).float().mean() < 0.05


def test_slopes_predict_what_a_substitution_brings(eps_model):
    """To first order: a hundredth of the way to another word, either way, changes the error by as much of the gap."""
    model = StableDiffusion(tiny_pipeline().to(torch.float64), "tiny", words=WORDS)
    recall = build_denoising_error(context_of(model), ROWS[:1], "test")
    states, table = recall.draw_states(), model.get_embedding_table().detach()
    ids = model.tokenize(["dog car"])[:, 1:3]
    error = lambda e: recall.compute_error(states, model.encode_with_grad(["a cat"], e))  # noqa: E731
    at, grad = table[ids], measure_steepness(error, table[ids])[1]
    slope = compute_slopes(grad, table)
    for place, other in ((0, 60), (1, 61), (1, 70)):
        way = torch.zeros_like(at)
        way[0, place] = table[other] - at[0, place]
        with torch.no_grad():
            up, down = (float(error(at + s * 1e-2 * way)) for s in (1, -1))
        promised = float(slope[0, place, other] - slope[0, place, ids[0, place]])
        assert (up - down) / 2e-2 == pytest.approx(promised, rel=0.03, abs=3e-5)


@pytest.mark.parametrize("attack", BY_GRADIENT, ids=label)
def test_edits_that_give_no_gradient_are_refused_and_never_a_silent_zero(attack, eps_model):
    guide = Edit({}, {"guide": {"name": "negative", "arguments": {"prompt": "cat"}}})
    with pytest.raises(ValueError, match=r"the edit is a guide \(negative\): .* attacks by prompts"):
        attack.check(replace(context_of(eps_model), edit=guide))
    deaf = {name: torch.zeros_like(w) for name, w in eps_model.weights.items() if "attn2.to_v" in name}
    with eps_model.swap_in(deaf), pytest.raises(NoGradient, match="no gradient reaches the prompt"):
        next(attack.propose(context_of(eps_model), ROWS))
    broken = {name: torch.full_like(w, torch.nan) for name, w in eps_model.weights.items() if "attn2.to_v" in name}
    with eps_model.swap_in(broken), pytest.raises(NotFinite, match="not finite"):
        next(attack.propose(context_of(eps_model), ROWS))


def test_mma_needs_no_denoiser_and_works_under_guides(eps_model):
    guide = Edit({}, {"guide": {"name": "negative", "arguments": {}}})
    QUICK[-1].check(replace(context_of(eps_model), edit=guide))
    edit = efface.erase(eps_model, "cat", method="negative")
    plain = shots_of(QUICK[-1], context_of(eps_model), ROWS)
    with edit.apply(eps_model):
        assert shots_of(QUICK[-1], context_of(eps_model), ROWS) == plain


@pytest.fixture
def gated(eps_model):
    """SPM of cat, whose adapters change every answer."""
    edit = SPM(steps=1, lr=0.3, draw_steps=2, anchors=1, source="frozen", paths=1).fit(eps_model, Erasure(("cat",)))
    with edit.apply(eps_model):
        yield replace(context_of(eps_model, edit=edit), base=eps_model.unguided)


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
        lambda e: search.denoising.compute_error(states, detached(search._encode(e, slice(None)))), at
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


def detached(cond):
    return cond.with_extra({MATCH: cond.tensors[MATCH].detach()})


@pytest.mark.parametrize("attack", QUICK, ids=label)
def test_a_gate_is_attacked_through_its_adapters(attack, gated, monkeypatch):
    """Every step of an attack by the denoiser's gradient; MMA follows the text encoder alone."""
    seen, answering = [], Gate.act_in_network
    monkeypatch.setattr(Gate, "act_in_network", lambda self, *a: seen.append(self) or answering(self, *a))
    attack.check(gated)
    assert len(shots_of(attack, gated, ROWS)) == attack.queries
    assert len(seen) == (attack.queries * attack.steps if attack.threat == "gradients" else 0)


@pytest.mark.parametrize("attack", QUICK, ids=label)
def test_two_text_encoders(attack):
    """Every attack on Stable Diffusion XL: what it found is read otherwise than the prompt, and is drawn."""
    model = tiny_sdxl()
    attack.check(context_of(model))
    rounds = shots_of(attack, context_of(model, dict(model.weights)), ROWS)
    assert len(rounds) == attack.queries
    asked = [candidate.prompt for candidate in rounds[-1]]
    own, found = model.encode([r.prompt for r in ROWS]), model.encode(asked)
    for name in ("clip",) if getattr(attack, "where", "") == "encoding" else ("clip", "pooled"):
        assert (own.tensors[name] != found.tensors[name]).flatten(1).any(dim=1).all()
    assert model.images(asked, [0, 1, 2]).shape[0] == 3


@pytest.mark.parametrize("where", ["clip", "pooled"])
def test_the_gradient_through_two_text_encoders_by_finite_differences(where):
    pipeline = tiny_sdxl_pipeline().to(torch.float64)
    model = StableDiffusionXL(pipeline, "tiny-xl", words=WORDS)
    recall = build_denoising_error(context_of(model), ROWS, "test")
    states, prompts, rng = recall.draw_states(), [r.prompt for r in ROWS], torch.Generator().manual_seed(1)
    other = model.encode(prompts)
    at = model.get_embedding_table().detach()[torch.randint(50, (3, 2), generator=rng)].double()

    def error(e: torch.Tensor) -> torch.Tensor:
        read = model.encode_with_grad(prompts, e)
        moved = replace(other, pooled=read.pooled) if where == "pooled" else other.with_embedding(read.tokens)
        return recall.compute_error(states, moved)

    _, grad = measure_steepness(error, at)
    for i in range(3):
        way = torch.randn(at.shape, generator=rng, dtype=torch.double)
        with torch.no_grad():
            up, down = (error(at + s * 5e-2 * way).double() for s in (1, -1))
        assert (grad * way).sum(dim=(1, 2))[i].item() == pytest.approx((up - down)[i].item() / 1e-1, rel=2e-2, abs=3e-6)


def test_a_class_model_hears_no_words():
    model = tiny_ddpm()
    rows = [row(0), row(1)]
    for attack in QUICK:
        if getattr(attack, "where", "") != "encoding":
            with pytest.raises(ValueError, match="has no text encoder that token embeddings could be given to"):
                attack.check(context_of(model))
            continue
        attack.check(context_of(model))
        before = model.encode([r.prompt for r in rows]).flatten()
        candidates = shots_of(attack, context_of(model), rows)[-1]
        after = model.encode([candidate.prompt for candidate in candidates])
        assert (after.flatten() != before).any(dim=1).all()
        assert model.images([candidate.prompt for candidate in candidates], [0, 1]).shape[0] == 2


def test_bad_settings(eps_model):
    for make, bad, message in (
        (UnlearnDiff, {"queries": 0}, "queries must be at least 1, got 0"),
        (UnlearnDiff, {"lr": 0.0}, "lr must be positive"),
        (P4D, {"how": "firm"}, "no prompt is 'firm'; there are hard, soft"),
        (P4D, {"steps": 0}, "steps must be positive"),
        (SoftPrompt, {"where": "before"}, "not 'before'"),
        (MMA, {"candidates": 0}, "candidates must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            make(**bad)
    for make in (UnlearnDiff, P4D, SoftPrompt, MMA):
        with pytest.raises(ValueError, match="7 tokens before the prompt do not fit; tiny reads 6"):
            make(tokens=7).check(context_of(eps_model))
    with pytest.raises(ValueError, match="knows no word beside 'cat'"):
        MMA(tokens=2).check(replace(context_of(eps_model), words=["cat"]))
