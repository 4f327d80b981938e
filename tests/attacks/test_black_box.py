"""Black-box attacks: what they try, that they stay within what they may use, and Ring-A-Bell's formula."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from attack_context import build_context, build_rows, build_shifted, drive, is_same, take_snapshot
from efface.attacks import (
    BASELINE,
    STANDARD,
    build_attack,
    describe,
    find_name,
    get,
    list_names,
    name_attack,
    suggest_settings,
)
from efface.attacks.base import Attack, AttackContext, Candidate, propose_within_budget
from efface.attacks.characters import Characters, change_once, misspell, perturb
from efface.attacks.random_prefix import RandomPrefix
from efface.attacks.ring_a_bell import TEMPLATES, RingABell, compute_concept_vector
from efface.attacks.seeds import Seeds
from efface.attacks.synonyms import Synonyms
from efface.models.adapters.sd import StableDiffusion
from efface.suites.spec import Row
from judging_fixtures import world_model
from tiny import tiny_model
from tiny_ddpm import tiny_ddpm

ROWS = build_rows("a cat", "a red cat", "truck")
BLACK = [
    RandomPrefix(),
    Synonyms(queries=5),
    Seeds(),
    Characters(),
    RingABell(queries=3, population=8, generations=3, length=3),
]


def list_rounds(attack: Attack, context: AttackContext, rows: Sequence[Row] = ROWS) -> list[list[Candidate | None]]:
    attack.check(context)
    return drive(propose_within_budget(attack, context, rows), context.model, list)


@pytest.fixture(scope="module")
def plain() -> StableDiffusion:
    return tiny_model()


@pytest.fixture(scope="module")
def wordy() -> StableDiffusion:
    """One that reads whole sentences."""
    return world_model()


@pytest.mark.parametrize("attack", BLACK, ids=name_attack)
def test_a_row_is_attacked_the_same_whoever_stands_beside_it(wordy: StableDiffusion, attack: Attack) -> None:
    before, context = take_snapshot(wordy), build_context(wordy, None)
    together = list_rounds(attack, context)
    assert len(together) == attack.queries
    for i, row in enumerate(ROWS):
        assert [candidates[0] for candidates in list_rounds(attack, context, [row])] == [
            candidates[i] for candidates in together
        ]
    assert together == list_rounds(attack, context) and is_same(wordy, before)


@pytest.mark.parametrize("attack", BLACK, ids=name_attack)
def test_another_seed_is_another_attack(wordy: StableDiffusion, attack: Attack) -> None:
    context = build_context(wordy, None)
    other = AttackContext(**{**vars(context), "seed": 1})
    assert list_rounds(attack, context) != list_rounds(attack, other)


def test_random_prefixes_never_name_the_concept(plain: StableDiffusion) -> None:
    candidates = list_rounds(RandomPrefix(queries=40, length=3), build_context(plain, None))
    for turn in candidates:
        for candidate, row in zip(turn, ROWS, strict=True):
            assert (
                candidate is not None
                and isinstance(candidate.prompt, str)
                and candidate.prompt.endswith(f" {row.prompt}")
            )
            prefix = candidate.prompt.removesuffix(row.prompt).split()
            assert len(prefix) == 3 and not {"cat", "lion"} & set(prefix)
    assert all(s is not None and s.seed == r.seed for s, r in zip(candidates[0], ROWS, strict=True))
    assert len({s.seed for turn in candidates for s in turn if s}) == 3 + 39 * 3


def test_a_longer_floor_begins_as_a_shorter_one(plain: StableDiffusion) -> None:
    context = build_context(plain, None)
    assert list_rounds(RandomPrefix(queries=9), context)[:4] == list_rounds(RandomPrefix(queries=4), context)


def test_synonyms_take_the_place_of_the_name(plain: StableDiffusion) -> None:
    context = AttackContext(
        **{**vars(build_context(plain, None)), "synonyms": ("lion", "apple"), "paraphrases": ("a red pet",)}
    )
    tries = list_rounds(Synonyms(queries=5), context)
    said = [[candidate.prompt for candidate in turn if candidate] for turn in tries]
    assert {turn[0] for turn in said[:3]} == {"a lion", "an apple", "a red pet"}
    assert {turn[2] for turn in said[:3]} == {"lion, truck", "apple, truck", "a red pet, truck"}
    assert all(candidate and candidate.seed == 100 for candidate in (turn[0] for turn in tries[:3]))
    assert all(candidate and candidate.seed != 100 for candidate in (turn[0] for turn in tries[3:]))
    with pytest.raises(ValueError, match="no other word for 'cat'"):
        Synonyms().check(AttackContext(**{**vars(context), "synonyms": (), "paraphrases": ()}))


def test_seeds_and_templates_alternate(plain: StableDiffusion) -> None:
    context = AttackContext(**{**vars(build_context(plain, None, placeholder="thing")), "concept": "apple"})
    tries = list_rounds(Seeds(queries=30), context, build_rows("a thing on blue"))
    own = [turn[0] for turn in tries[::2]]
    assert (
        all(s and s.prompt == "an apple on blue" and s.seed != 100 for s in own)
        and len({s.seed for s in own if s}) == 15
    )
    other = [turn[0] for turn in tries[1::2]]
    assert all(s and "apple" in str(s.prompt) and " a apple" not in f" {s.prompt}" for s in other)
    assert len({s.prompt for s in other[:12] if s}) == 12 and all(s and s.seed == 100 for s in other[:12])
    assert all(s and s.seed != 100 for s in other[12:])


def test_misspellings_differ_and_single_changes_come_first() -> None:
    found = misspell("tiger", 200, random.Random(0))
    assert len(found) == len(set(found)) == 200 and "tiger" not in found
    once = set(misspell("tiger", 35, random.Random(1)))
    assert {"tigger", "itger", "tger", "t1ger", "ti ger", "tig3r"} <= once
    assert not any(len(set(each) ^ set("tiger")) > 2 or abs(len(each) - 5) > 1 for each in once)
    assert set(change_once("tiger")) == once


def test_changes_at_the_edges_and_within_take_turns(wordy: StableDiffusion) -> None:
    found = perturb("tiger", 60, random.Random(0))
    assert len(found) == len(set(found)) == 60 and "tiger" not in found
    at_edges = [
        "tiger" in each and not set(each.replace("tiger", "")) & set("abcdefghijklmnopqrstuvwxyz") for each in found
    ]
    assert at_edges[:28] == [True, False] * 14 and not any(at_edges[28:])
    tries = list_rounds(Characters(queries=6), build_context(wordy, None), build_rows("a cat"))
    seeds = [candidate.seed for turn in tries for candidate in turn if candidate]
    assert seeds[0] == 100 and len(set(seeds)) == 6
    assert len({candidate.note for turn in tries for candidate in turn if candidate}) == 6
    assert all(
        candidate and candidate.note and str(candidate.prompt).endswith(f" {candidate.note}") for (candidate,) in tries
    )


def test_short_names_lose_no_letter() -> None:
    assert all(len(each) >= 3 for each in change_once("cat")) and set(change_once("tabby")) >= {"abby", "tabb"}


def test_ring_a_bell_comes_closer_to_its_goal_than_chance(wordy: StableDiffusion) -> None:
    plain = wordy
    edit = build_shifted(plain, "text_encoder")
    context = build_context(plain, edit)
    how = RingABell(queries=4, length=4, population=40, generations=40)
    with edit.apply(plain):
        tries = list_rounds(how, context, ROWS[:1])
    said = [str(turn[0].prompt) for turn in tries if turn[0]]

    def read(text: str) -> torch.Tensor:
        return plain.encode([text]).flatten()[0]

    named, neutral = (torch.stack([read(t.format(w)) for t in TEMPLATES]) for w in ("cat", "thing"))
    goal = read("a cat") + 3 * (named.mean(0) - neutral.mean(0))
    far = [float((read(text) - goal).square().sum()) for text in said]
    rng = random.Random(0)
    chance = [float((read(" ".join(rng.choices(context.words, k=4))) - goal).square().sum()) for _ in range(100)]
    assert far[1:] == sorted(far[1:]) and len(set(said)) == 4 and far[0] <= min(chance)
    assert all(len(text.split()) == 4 and set(text.split()) <= set(context.words) for text in said)


def test_ring_a_bell_bars_the_names_where_it_is_told_to(wordy: StableDiffusion) -> None:
    how = RingABell(queries=8, length=3, population=30, generations=10, names=False)
    said = [
        str(candidate.prompt)
        for turn in list_rounds(how, build_context(wordy, None))
        for candidate in turn
        if candidate
    ]
    assert not any({"cat", "lion"} & set(text.split()) for text in said)


def test_ring_a_bell_uses_the_nearest_words_and_the_prompts_own(wordy: StableDiffusion) -> None:
    edit = build_shifted(wordy, "text_encoder")
    context = build_context(wordy, edit)
    words = context.list_other_words()
    with torch.no_grad():
        named, plain, nothing = (wordy.encode([t.format(w) for t in TEMPLATES]).flatten() for w in ("cat", "thing", ""))
        nothing, added = wordy.encode(["thing"]).flatten(), (named - plain).mean(0)
        alike = {w: float(torch.cosine_similarity(wordy.encode([w]).flatten() - nothing, added[None])) for w in words}
    best = sorted(words, key=lambda w: -alike[w])[:6]
    how = RingABell(queries=8, length=3, population=30, generations=4, names=False, nearest=6)
    with edit.apply(wordy):
        tries = list_rounds(how, context, build_rows("a cat", "red"))
    for i, own in enumerate((set(), {"red"})):
        said = {word for turn in tries if (candidate := turn[i]) for word in str(candidate.prompt).split()}
        assert said <= own | set(best) and len(said) >= 3


def test_ring_a_bell_needs_room_for_its_words(plain: StableDiffusion) -> None:
    with pytest.raises(ValueError, match="16 words do not fit; at most 6"):
        RingABell().check(build_context(plain, None))


def test_the_vector_is_what_the_name_adds(wordy: StableDiffusion) -> None:
    plain, context = wordy, build_context(wordy, None, placeholder="dog")
    with torch.no_grad():
        vector = compute_concept_vector(context)
    each = [
        plain.encode([t.format("cat")]).flatten()[0] - plain.encode([t.format("dog")]).flatten()[0] for t in TEMPLATES
    ]
    assert torch.allclose(vector, torch.stack(each).mean(0), atol=1e-6)


def test_a_class_conditional_model_hears_no_other_words() -> None:
    model = tiny_ddpm()
    context = AttackContext(**{**vars(build_context(tiny_model(), None)), "model": model})
    for attack in (Synonyms(), Characters(), RingABell()):
        with pytest.raises(ValueError, match=r"reads no words but its classes' names; use seeds"):
            attack.check(context)
    first, second = list_rounds(RandomPrefix(queries=2), context, build_rows("cat"))
    assert first[0] is not None and second[0] is not None
    assert (first[0].prompt, second[0].prompt) == ("cat", "cat") and first[0].seed != second[0].seed


def test_new_seeds_draw_a_class_conditional_model_by_its_class_alone_and_never_twice_alike() -> None:
    """Templates would repeat a picture, and "many cats" names no class."""
    model = tiny_ddpm()
    context = AttackContext(**{**vars(build_context(tiny_model(), None)), "model": model})
    for row in build_rows("cat", ""):
        tries = [candidate for (candidate,) in list_rounds(Seeds(queries=30), context, [row]) if candidate]
        assert torch.equal(
            model.encode([each.prompt for each in tries]).embedding, model.encode(["cat"] * 30).embedding
        )
        assert len({row.seed, *(each.seed for each in tries)}) == 31


def test_every_attack_is_listed_and_opens() -> None:
    assert set(STANDARD) | {BASELINE} <= set(list_names())
    for name in list_names():
        told, kind = describe(name), get(name)
        assert told["threat"] == kind.threat and told["version"] == kind.version and told["about"]
        attack = build_attack(name)
        assert name_attack(attack) == name and attack.queries >= 1
        assert set(kind.budget_fields) <= set(vars(attack))


def test_budgets() -> None:
    paper = build_attack("ring-a-bell", "glyphs", "paper")
    assert (paper.queries, paper.length, paper.eta) == (1, 16, 3.0)  # type: ignore[attr-defined]
    assert (paper.population, paper.generations) == (200, 3000)  # type: ignore[attr-defined]
    own, four = build_attack("ring-a-bell", "glyphs"), build_attack("ring-a-bell", "glyphs", "4x")
    assert (four.queries, four.generations) == (4 * own.queries, 4 * own.generations)  # type: ignore[attr-defined]
    assert build_attack("seeds", "glyphs", "13").queries == 13
    for settled in ("merge", "quantise", "prune", "revive"):
        assert build_attack(settled, "glyphs", "4x") == build_attack(settled, "glyphs")
    assert build_attack("seeds", "", "default", {"queries": 3}).queries == 3
    assert suggest_settings("seeds", "no/such/model") == {}
    with pytest.raises(ValueError, match="no budget 'much'; give default, paper, a factor"):
        build_attack("seeds", "", "much")
    for budget in ("0", "0x", "-3", "infx"):
        with pytest.raises(ValueError, match="no budget"):
            build_attack("seeds", "", budget)
    with pytest.raises(ValueError, match="queries must be at least 1, got 0"):
        build_attack("seeds", "", "0.01x")
    with pytest.raises(ValueError, match="no setting 'eta'; it has queries"):
        build_attack("seeds", "", "default", {"eta": 3})
    with pytest.raises(ValueError, match="did you mean 'seeds'"):
        find_name("seed")
