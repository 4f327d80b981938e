"""What every term does alike: it announces its prompts, takes part in the update's steps alone, and keeps its words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product
from typing import Any

import pytest
import torch

from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.models.cond import Cond
from efface.training.balance.sum import Sum
from efface.training.config import TrainConfig
from efface.training.interfaces import Context, Source, States, Step, Term
from efface.training.objectives.adaptive_anchor import AdaptiveAnchor
from efface.training.objectives.anchor import Anchor
from efface.training.objectives.attacked import Attacked, Latest, PrefixAttack
from efface.training.objectives.attention import Attention
from efface.training.objectives.composition import Composition
from efface.training.objectives.denoising import Denoising
from efface.training.objectives.gem import GEM
from efface.training.objectives.guidance import Guidance
from efface.training.objectives.negative_guidance import NegativeGuidance
from efface.training.objectives.wrong_noise import WrongNoise
from efface.training.preservation.adversarial import Adversarial
from efface.training.preservation.anchoring import Anchoring, Retained
from efface.training.preservation.prompts import FixedPrompts
from efface.training.preservation.unconditional import Unconditional
from efface.training.updates.mask import KeepWeights, Mask
from efface.training.vocabulary_search import SearchConfig, Vocabulary, VocabularySearch
from oracle import compute_grad
from term_fixtures import build_context, build_step
from tiny import WORDS
from tiny_ddpm import tiny_ddpm


class Noted(Source):
    """Noised nothing, and the prompts that were announced and asked for."""

    def __init__(self) -> None:
        self.expected: list[str] = []
        self.asked: list[list[str]] = []
        self.steps: list[Step] = []

    def expect(self, prompts: Sequence[str]) -> None:
        self.expected.extend(prompts)

    def sample_states(self, context: Context, step: Step, prompts: Sequence[str], cond: Cond) -> States:
        self.asked.append(list(prompts))
        self.steps.append(step)
        x = torch.zeros(len(prompts), *context.model.latent_shape)
        return States(x, torch.full((len(prompts),), 500), {"noise": x, "x0": x})


def search_of(**more: Any) -> VocabularySearch:
    how = {"lr": 1e-2, "temperature": 1.0, "hard": True, "steps_per_round": 1, **more}
    return VocabularySearch(Vocabulary(WORDS), SearchConfig(**how))


BOTH = Erasure(("cat", "dog"), anchor="car")
ALL = ["cat", "a cat", "dog", "a dog"]
OURS = ["a cat", "dog"]
PREFIX = PrefixAttack(1, 1e-2, 1, 0)
MAKES: dict[str, tuple[Callable[[Source], Term], list[str], Sequence[str]]] = {
    # How it is made, the prompts that it announces, and those of which it may ask for states.
    "adaptive anchor": (lambda s: AdaptiveAnchor(s, search_of(), 1.0, "eps"), ALL, OURS),
    "anchor": (lambda s: Anchor(s, "eps"), ALL, OURS),
    "anchor at its own": (lambda s: Anchor(s, "eps", states="anchor"), ["car", "a car"], ["car", "a car"]),
    "attacked": (lambda s: Attacked(s, 1.0, "eps", PREFIX), ALL, OURS),
    "attention": (lambda s: Attention(s, 0.5, True, None), [], OURS),
    "denoising": (lambda s: Denoising(s, "eps", "erase"), ALL, OURS),
    "denoising of others": (
        lambda s: Denoising(s, "eps", "keep", ["rose", "lion"]),
        ["rose", "lion"],
        ["rose", "lion"],
    ),
    "gem": (lambda s: GEM(s, 1.0, "eps"), ALL, OURS),
    "guidance": (lambda s: Guidance(s, "alternative", 1.0, True, "eps"), ALL, OURS),
    "negative guidance": (lambda s: NegativeGuidance(s, 1.0, "eps"), ALL, OURS),
    "wrong noise": (lambda s: WrongNoise(s, ["car"], "label", "eps"), ALL, OURS),
    "fixed prompts": (lambda s: FixedPrompts(s, ["rose", "lion"], "eps"), ["rose", "lion"], ["rose", "lion"]),
    "unconditional": (lambda s: Unconditional(s, "eps"), ALL, OURS),
    "anchoring": (lambda s: Anchoring(s, ["rose", "lion"], 2, "eps"), [], OURS),
    "retained": (lambda s: Retained(s, ["rose", "cats"], "a {}", 3, "eps"), [], ["a rose"]),
}


@pytest.mark.parametrize("name", [n for n in MAKES if n != "adaptive anchor"])
def test_a_term_announces_its_prompts_and_asks_for_its_rows_in_the_updates_steps(eps_model, name):
    make, announced, rows = MAKES[name]
    source = Noted()
    term, context = make(source), build_context(eps_model, BOTH)
    term.prepare(context)
    assert source.expected == announced
    assert term.build_queries(context, build_step(context, search_of())) is None
    assert not source.asked
    assert term.build_queries(context, build_step(context))
    (asked,) = source.asked
    assert asked == rows if rows is OURS else set(asked) <= set(rows)


@pytest.mark.parametrize("anchor", ["car", ""])
@pytest.mark.parametrize("teacher", ["frozen", "student"])
def test_for_the_anchor_the_base_predicts_or_the_student(eps_model, teacher, anchor):
    context = build_context(eps_model, Erasure(("cat", "dog"), anchor=anchor))
    queries = Anchor(Noted(), "eps", teacher=teacher).build_queries(context, build_step(context))
    assert queries is not None
    assert queries["student"].role == "student"
    assert queries["anchor"].role == {"frozen": "teacher", "student": "student"}[teacher]
    goal = ["a car", "car"] if anchor else ["", ""]
    assert torch.equal(queries["anchor"].cond.tokens, eps_model.encode(goal).tokens)
    if teacher == "frozen":  # what a source of the target's states knows of the empty prompt, and of no other anchor
        assert queries["anchor"].known == ("" if anchor else "eps_0")


@pytest.mark.parametrize("anchor", ["car", ""])
def test_gem_pulls_to_the_anchor_or_to_the_empty_prompt_and_away_from_the_target(eps_model, anchor):
    """mean over rows of relu(|s - a|^2 - eta |s - t|^2), by loops."""
    context, term = build_context(eps_model, Erasure(("cat", "dog"), anchor=anchor)), GEM(Noted(), 0.8, "eps")
    queries = term.build_queries(context, build_step(context))
    assert queries is not None
    assert {key: query.role for key, query in queries.items()} == {
        "student": "student",
        "anchor": "teacher",
        "target": "teacher",
    }
    goal = eps_model.encode(["a car", "car"] if anchor else [""]).tokens
    assert torch.equal(queries["anchor"].cond.tokens, goal)
    assert queries["anchor"].known == ("" if anchor else "eps_0")  # what a source knows of the empty prompt
    assert torch.equal(queries["target"].cond.tokens, eps_model.encode(OURS).tokens)
    rng = torch.Generator().manual_seed(3)
    said, target = (torch.randn(2, 4, 8, 8, generator=rng) for _ in range(2))
    replies = {"student": said, "anchor": said + 0.5 * torch.tensor([1.0, 8.0]).view(2, 1, 1, 1), "target": target}
    rows = [
        max(0.0, sum(a * a - 0.8 * t * t for a, t in zip(one.tolist(), other.tolist(), strict=True)) / len(one))
        for one, other in zip((said - replies["anchor"]).flatten(1), (said - replies["target"]).flatten(1), strict=True)
    ]
    assert rows[0] == 0 < rows[1]
    assert term.compute_loss(context, queries, replies).item() == pytest.approx(sum(rows) / 2, rel=1e-4)


def test_adaptive_anchors_and_their_preservation_search_the_same_words(eps_model):
    source, held, search = Noted(), Noted(), search_of()
    erase, keep = AdaptiveAnchor(source, search, 1.0, "eps"), Adversarial(held, search, "eps")
    context = build_context(eps_model, BOTH)
    for term in (keep, erase):
        term.prepare(context)
    assert source.expected == ALL
    candidates = {form.format(word) for words in search.lists for word in words for form in ("{}", "a {}")}
    assert set(held.expected) == candidates
    assert keep.list_searches() == (search,)
    assert erase.build_queries(context, build_step(context, search)) is None
    assert erase.build_queries(context, build_step(context)) and source.asked == [OURS]
    # The search takes steps too, in which what is preserved is what it maximises; another learner's are not its own.
    for learner in (context.update, search):
        assert keep.build_queries(context, build_step(context, learner))
    assert keep.build_queries(context, build_step(context, search_of())) is None
    assert Adversarial(held, search_of(steps_per_round=0), "eps").list_searches() == ()


def test_by_score_the_search_makes_words_of_a_larger_loss_likelier(eps_model):
    """Of two rows with errors a and b, the logits get (a - b) / 2 times the gradient of the first log-probability."""
    search = search_of(gradient="score")
    term, context = Adversarial(Noted(), search, "eps"), build_context(eps_model, BOTH)
    term.prepare(context)
    queries = term.build_queries(context, build_step(context, search))
    assert queries is not None and search.last is not None
    assert not queries["student"].cond.tokens.requires_grad
    replies = {key: torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(len(key))) for key in queries}
    errors = (replies["student"] - replies["eps_c"]).square().mean(dim=(1, 2, 3))
    loss = term.compute_loss(context, queries, replies)
    assert loss.item() == pytest.approx(errors.mean().item(), rel=1e-5)
    found = torch.autograd.grad(loss, search.logits)
    for i, words in enumerate(search.lists):
        chosen = [form.format(word) for word in words for form in [["a {}", "{}"][i]]].index(
            queries["student"].prompts[i]
        )
        slope = torch.nn.functional.one_hot(torch.tensor(chosen), len(words)) - search.logits[i].detach().softmax(0)
        assert torch.allclose(found[i], (errors[i] - errors[1 - i]) / 2 * slope, atol=1e-5)
        assert found[i].abs().max() > 1e-3


def test_compositions_draw_under_what_brings_the_target_back_in_the_updates_steps(eps_model):
    source, context = Noted(), build_context(eps_model, BOTH)
    negatives = [{f"{t} #{k}": eps_model.encode([t]) for k in range(3)} for t in BOTH.targets]
    term = Composition(source, negatives, [["car"], ["rose", "lion"]], 1.0, 1.0, "eps")
    assert term.build_queries(context, build_step(context, search_of())) is None
    asked = [term.build_queries(context, build_step(context, seed=seed)) for seed in range(40)]
    assert {one for one, _ in source.asked} == set(negatives[0]) and {two for _, two in source.asked} == set(
        negatives[1]
    )
    pulls = {tuple(queries["pull"].cond.tokens.flatten(1)[1].tolist()) for queries in asked if queries}
    assert pulls == {tuple(eps_model.encode([a]).tokens.flatten().tolist()) for a in ("rose", "lion")}


def test_a_sum_weighs_what_is_kept_and_what_it_costs():
    """grad erase + 0.5 grad keep + 3 grad cost; without a weight all count alike."""
    x = torch.tensor([1.0, -2.0], requires_grad=True)
    losses = {"erase": x[0].pow(3), "keep": x.prod(), "cost": x.sum()}
    for balance, wanted in ((Sum(keep=0.5, cost=3.0), [3 - 1 + 3, 0.5 + 3]), (Sum(), [3 - 2 + 1, 1 + 1])):
        assert balance(compute_grad(losses, [x]), None)[0].tolist() == wanted


def test_a_cost_has_no_predictions_and_counts_in_the_updates_steps(eps_model):
    update = Mask("xattn", 1e-2)
    context = Context(eps_model, BOTH, TrainConfig(steps=1, batch=2, draw_steps=4), update, eps_model.encode([""]))
    update.prepare(context)
    term = KeepWeights(0.5)
    term.prepare(context)
    assert term.build_queries(context, build_step(context)) == {}
    assert term.build_queries(context, build_step(context, search_of())) is None
    with pytest.raises(ValueError, match="keeping weights is a cost of pruning"):
        term.prepare(build_context(eps_model, BOTH))


def test_each_word_of_a_long_vocabulary_has_a_chance_of_its_own(eps_model):
    """More words than are encoded at once: proportional to 1 - cos of the flattened embeddings, for each target."""
    words = ["".join(pair) for pair in product("bdfghjklmnpqrtvwxyz", "bdfghjklmnpqrtvwxyz" + "aeiou")][:400]
    term, context = Anchoring(Noted(), ["cats", *words], 1, "eps"), build_context(eps_model, BOTH)
    term.prepare(context)
    assert list(term.words) == words
    assert term.chance.shape == (2, 400)
    rows = torch.cat([eps_model.encode([word]).tokens.flatten(1).double() for word in words])
    for i, target in enumerate(BOTH.targets):
        own = eps_model.encode([target]).tokens.flatten().double()
        wanted = 1 - rows @ own / rows.norm(dim=1) / own.norm()
        assert torch.allclose(term.chance[i].double(), wanted, atol=1e-5)


def test_anchoring_needs_words_that_differ_and_embeddings_to_scale(eps_model, monkeypatch):
    term = Anchoring(Noted(), ["rose", "lion"], 1, "eps")
    with pytest.raises(ValueError, match="reads no text; anchoring scales the embeddings of words"):
        term.prepare(build_context(tiny_ddpm(), Erasure(("cat",)), "full"))
    with pytest.raises(ValueError, match="the test trains a text encoder, and anchoring keeps scaled embeddings"):
        term.prepare(build_context(eps_model, BOTH, r"text_encoder\..*"))
    context, encode = build_context(eps_model, BOTH), StableDiffusion.encode
    alike = {"rose": "dog", "lion": "dog"}
    monkeypatch.setattr(eps_model, "encode", lambda texts: encode(eps_model, [alike.get(text, text) for text in texts]))
    # Both words are encoded as the second target is, so that it has no word left.
    with pytest.raises(ValueError, match="none of 2 words differs from cat, dog; give other words"):
        term.prepare(context)
    alike["lion"] = "cat"  # a word left for each, and one that it never draws
    term.prepare(context)
    assert (term.chance > 0).tolist() == [[True, False], [False, True]]


def test_rows_that_retain_words_are_of_no_target(eps_model):
    """They choose a start noise and a point of the trajectory, and as targets and templates the first."""
    source, context = Noted(), build_context(eps_model, BOTH)
    term = Retained(source, ["rose"], "a {}", 40, "eps")
    term.prepare(context)
    assert term.build_queries(context, build_step(context))
    (step,) = source.steps
    assert list(step.targets) == list(step.templates) == [0] * 40
    assert set(step.points) == {0, 1, 2, 3} and len(set(step.noise)) == 40
    assert all(0 <= each < 2**31 for each in step.noise) and max(step.noise) > 2**30


def test_an_attack_goes_on_from_a_checkpoint_whatever_its_step():
    for index in (0, 1, 2, 7):
        latest = Latest()
        latest.load_state_dict({"found": torch.ones(2, 1, 3)})
        before = latest.get_before(index)
        assert before is not None and torch.equal(before, torch.ones(2, 1, 3))
        latest.found = torch.zeros(2, 1, 3)
        assert latest.get_before(index) is before
        after = latest.get_before(index + 1)
        assert after is not None and torch.equal(after, torch.zeros(2, 1, 3))
    assert Latest().state_dict() == {} and Latest().get_before(0) is None
    attacked = [Attacked(Noted(), 1.0, "eps", PREFIX) for _ in range(2)]
    attacked[0].latest.found = torch.full((2, 1, 3), 5.0)
    attacked[1].load_state_dict(attacked[0].state_dict())
    assert torch.equal(attacked[1].state_dict()["found"], torch.full((2, 1, 3), 5.0))


def test_the_error_of_an_attack_is_the_mean_square_of_each_row(eps_model):
    """Between the prediction for the hardened prompt and the teacher's for the prompt alone, by loops."""
    term, context = Attacked(Noted(), 1.0, "eps", PREFIX), build_context(eps_model, BOTH)
    rng = torch.Generator().manual_seed(0)
    x, known = (torch.randn(2, *eps_model.latent_shape, generator=rng) for _ in range(2))
    prefix = torch.randn(2, 1, eps_model.get_embedding_table().shape[1], generator=rng)
    states = States(x, torch.tensor([300, 600]), {"eps_c": known})
    with torch.no_grad():
        found = term.compute_error(context, states, OURS, prefix).tolist()
        said = eps_model.predict(x, states.t, eps_model.encode_with_grad(OURS, prefix))[0]
    for row, one, other in zip(found, said, known, strict=True):
        squares = [(a - b) ** 2 for a, b in zip(one.flatten().tolist(), other.flatten().tolist(), strict=True)]
        assert row == pytest.approx(sum(squares) / len(squares), rel=1e-4)
