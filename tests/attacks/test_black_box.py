"""Black-box attacks: what they try, that they stay within what they may use, and Ring-A-Bell's formula."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest
import torch

from efface.attacks import FLOOR, STANDARD, configured, describe, get, name_of, named, names, suggested
from efface.attacks.base import Arena, Attack, Shot, put
from efface.attacks.characters import Characters, changed, misspelt, perturbed
from efface.attacks.random_prefix import RandomPrefix
from efface.attacks.ring_a_bell import TEMPLATES, RingABell, concept_vector
from efface.attacks.seeds import Seeds
from efface.attacks.synonyms import Synonyms
from efface.concept import Erasure
from efface.models.adapters.sd import StableDiffusion
from efface.robustness.conditions import Lore, one_token_words, places, removed
from efface.suites import world
from efface.suites.rows import build
from efface.suites.spec import Row
from judging_fixtures import world_model, write_world
from tiny import tiny_model
from tiny_arena import arena_of, drive, rows_of, same, shifted, snapshot
from tiny_ddpm import tiny_ddpm

ROWS = rows_of("a cat", "a red cat", "truck")
BLACK = [
    RandomPrefix(),
    Synonyms(queries=5),
    Seeds(),
    Characters(),
    RingABell(queries=3, population=8, generations=3, length=3),
]


def rounds(attack: Attack, arena: Arena, rows: Sequence[Row] = ROWS) -> list[list[Shot | None]]:
    attack.check(arena)
    return drive(attack.shots(arena, rows), arena.model, list)


@pytest.fixture(scope="module")
def plain() -> StableDiffusion:
    return tiny_model()


@pytest.fixture(scope="module")
def wordy() -> StableDiffusion:
    """One that reads whole sentences."""
    return world_model()


@pytest.mark.parametrize("attack", BLACK, ids=name_of)
def test_a_row_is_attacked_the_same_whoever_stands_beside_it(wordy: StableDiffusion, attack: Attack) -> None:
    before, arena = snapshot(wordy), arena_of(wordy, None)
    together = rounds(attack, arena)
    assert len(together) == attack.queries
    for i, row in enumerate(ROWS):
        assert [shots[0] for shots in rounds(attack, arena, [row])] == [shots[i] for shots in together]
    assert together == rounds(attack, arena) and same(wordy, before)


@pytest.mark.parametrize("attack", BLACK, ids=name_of)
def test_another_seed_is_another_attack(wordy: StableDiffusion, attack: Attack) -> None:
    arena = arena_of(wordy, None)
    other = Arena(**{**vars(arena), "seed": 1})
    assert rounds(attack, arena) != rounds(attack, other)


def test_random_prefixes_never_name_the_concept(plain: StableDiffusion) -> None:
    shots = rounds(RandomPrefix(queries=40, length=3), arena_of(plain, None))
    for turn in shots:
        for shot, row in zip(turn, ROWS, strict=True):
            assert shot is not None and isinstance(shot.prompt, str) and shot.prompt.endswith(f" {row.prompt}")
            prefix = shot.prompt.removesuffix(row.prompt).split()
            assert len(prefix) == 3 and not {"cat", "lion"} & set(prefix)
    assert all(s is not None and s.seed == r.seed for s, r in zip(shots[0], ROWS, strict=True))
    assert len({s.seed for turn in shots for s in turn if s}) == 3 + 39 * 3


def test_a_longer_floor_begins_as_a_shorter_one(plain: StableDiffusion) -> None:
    arena = arena_of(plain, None)
    assert rounds(RandomPrefix(queries=9), arena)[:4] == rounds(RandomPrefix(queries=4), arena)


def test_synonyms_take_the_place_of_the_name(plain: StableDiffusion) -> None:
    arena = Arena(**{**vars(arena_of(plain, None)), "synonyms": ("lion", "apple"), "paraphrases": ("a red pet",)})
    tries = rounds(Synonyms(queries=5), arena)
    said = [[shot.prompt for shot in turn if shot] for turn in tries]
    assert {turn[0] for turn in said[:3]} == {"a lion", "an apple", "a red pet"}
    assert {turn[2] for turn in said[:3]} == {"lion, truck", "apple, truck", "a red pet, truck"}
    assert all(shot and shot.seed == 100 for shot in (turn[0] for turn in tries[:3]))
    assert all(shot and shot.seed != 100 for shot in (turn[0] for turn in tries[3:]))
    with pytest.raises(ValueError, match="no other word for 'cat'"):
        Synonyms().check(Arena(**{**vars(arena), "synonyms": (), "paraphrases": ()}))


def test_seeds_and_templates_alternate(plain: StableDiffusion) -> None:
    arena = Arena(**{**vars(arena_of(plain, None, called="thing")), "concept": "apple"})
    tries = rounds(Seeds(queries=30), arena, rows_of("a thing on blue"))
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
    found = misspelt("tiger", 200, random.Random(0))
    assert len(found) == len(set(found)) == 200 and "tiger" not in found
    once = set(misspelt("tiger", 35, random.Random(1)))
    assert {"tigger", "itger", "tger", "t1ger", "ti ger", "tig3r"} <= once
    assert not any(len(set(each) ^ set("tiger")) > 2 or abs(len(each) - 5) > 1 for each in once)
    assert set(changed("tiger")) == once


def test_changes_at_the_edges_and_within_take_turns(wordy: StableDiffusion) -> None:
    found = perturbed("tiger", 60, random.Random(0))
    assert len(found) == len(set(found)) == 60 and "tiger" not in found
    at_edges = [
        "tiger" in each and not set(each.replace("tiger", "")) & set("abcdefghijklmnopqrstuvwxyz") for each in found
    ]
    assert at_edges[:28] == [True, False] * 14 and not any(at_edges[28:])
    tries = rounds(Characters(queries=6), arena_of(wordy, None), rows_of("a cat"))
    seeds = [shot.seed for turn in tries for shot in turn if shot]
    assert seeds[0] == 100 and len(set(seeds)) == 6
    assert len({shot.note for turn in tries for shot in turn if shot}) == 6
    assert all(shot and shot.note and str(shot.prompt).endswith(f" {shot.note}") for (shot,) in tries)


def test_short_names_lose_no_letter() -> None:
    assert all(len(each) >= 3 for each in changed("cat")) and set(changed("tabby")) >= {"abby", "tabb"}


def test_ring_a_bell_comes_closer_to_its_goal_than_chance(wordy: StableDiffusion) -> None:
    plain = wordy
    edit = shifted(plain, "text_encoder")
    arena = arena_of(plain, edit)
    how = RingABell(queries=4, length=4, population=40, generations=40)
    with edit.apply(plain):
        tries = rounds(how, arena, ROWS[:1])
    said = [str(turn[0].prompt) for turn in tries if turn[0]]

    def read(text: str) -> torch.Tensor:
        return plain.encode([text]).flat()[0]

    named, neutral = (torch.stack([read(t.format(w)) for t in TEMPLATES]) for w in ("cat", "thing"))
    goal = read("a cat") + 3 * (named.mean(0) - neutral.mean(0))
    far = [float((read(text) - goal).square().sum()) for text in said]
    rng = random.Random(0)
    chance = [float((read(" ".join(rng.choices(arena.words, k=4))) - goal).square().sum()) for _ in range(100)]
    assert far == sorted(far) and len(set(said)) == 4 and far[0] <= min(chance)
    assert all(len(text.split()) == 4 and set(text.split()) <= set(arena.words) for text in said)


def test_ring_a_bell_bars_the_names_where_it_is_told_to(wordy: StableDiffusion) -> None:
    how = RingABell(queries=8, length=3, population=30, generations=10, names=False)
    said = [str(shot.prompt) for turn in rounds(how, arena_of(wordy, None)) for shot in turn if shot]
    assert not any({"cat", "lion"} & set(text.split()) for text in said)


def test_ring_a_bell_uses_the_nearest_words_and_the_prompts_own(wordy: StableDiffusion) -> None:
    edit = shifted(wordy, "text_encoder")
    arena = arena_of(wordy, edit)
    words = arena.other_words()
    with torch.no_grad():
        named, plain, nothing = (wordy.encode([t.format(w) for t in TEMPLATES]).flat() for w in ("cat", "thing", ""))
        nothing, added = wordy.encode(["thing"]).flat(), (named - plain).mean(0)
        alike = {w: float(torch.cosine_similarity(wordy.encode([w]).flat() - nothing, added[None])) for w in words}
    best = sorted(words, key=lambda w: -alike[w])[:6]
    how = RingABell(queries=8, length=3, population=30, generations=4, names=False, nearest=6)
    with edit.apply(wordy):
        tries = rounds(how, arena, rows_of("a cat", "red"))
    for i, own in enumerate((set(), {"red"})):
        said = {word for turn in tries if (shot := turn[i]) for word in str(shot.prompt).split()}
        assert said <= own | set(best) and len(said) > 3


def test_ring_a_bell_needs_room_for_its_words(plain: StableDiffusion) -> None:
    with pytest.raises(ValueError, match="16 words do not fit; at most 6"):
        RingABell().check(arena_of(plain, None))


def test_the_vector_is_what_the_name_adds(wordy: StableDiffusion) -> None:
    plain, arena = wordy, arena_of(wordy, None, called="dog")
    with torch.no_grad():
        vector = concept_vector(arena)
    each = [plain.encode([t.format("cat")]).flat()[0] - plain.encode([t.format("dog")]).flat()[0] for t in TEMPLATES]
    assert torch.allclose(vector, torch.stack(each).mean(0), atol=1e-6)


def test_a_class_conditional_model_hears_no_other_words() -> None:
    model = tiny_ddpm()
    arena = Arena(**{**vars(arena_of(tiny_model(), None)), "model": model})
    for attack in (Synonyms(), Characters(), RingABell()):
        with pytest.raises(ValueError, match=r"hears no other words; seeds"):
            attack.check(arena)
    first, second = rounds(RandomPrefix(queries=2), arena, rows_of("cat"))
    assert first[0] is not None and second[0] is not None
    assert (first[0].prompt, second[0].prompt) == ("cat", "cat") and first[0].seed != second[0].seed


@pytest.mark.parametrize(
    ("prompt", "names", "word", "expected"),
    [
        ("a picture of an apple, flat style", ("apple",), "kitty", "a picture of a kitty, flat style"),
        ("A red apple on blue", ("apple", "red apple"), "orange", "An orange on blue"),
        ("two Cats and a catalogue", ("cat",), "thing", "two thing and a catalogue"),
        ("in the style of Van Gogh", ("van gogh",), "plain", "in the style of plain"),
        ("a cat", ("cat",), "a furry pet", "a furry pet"),
        ("a cat (and a cat)", ("cat",), "dog", "a dog (and a dog)"),
        ("a dog", ("cat",), "thing", ""),
        ("a dog", ("",), "thing", ""),
        ("c.t", ("c.t",), "dog", "dog"),
        ("cut", ("c.t",), "dog", ""),
    ],
)
def test_putting_a_word_in_the_place_of_a_name(prompt: str, names: Sequence[str], word: str, expected: str) -> None:
    assert put(prompt, names, word) == expected


def test_a_row_without_the_name_becomes_a_neutral_prompt() -> None:
    (row,) = rows_of("something else")
    assert removed(row, ("cat",), "thing").prompt == "a picture of a thing"
    (row,) = rows_of("a cat emoji")
    assert (
        removed(row, ("cat",), "thing").prompt == "a thing emoji" and removed(row, ("cat",), "thing").seed == row.seed
    )


def test_places_are_the_targets_kept_neighbours_and_the_base(tmp_path) -> None:
    known = world.load(write_world(tmp_path))
    suite = build("glyphs-objects", Erasure(("cat", "apple")), known, per_group=12)
    found = places(suite, {"cat": Lore(("kitty",))}, rows=5, controls=6)
    assert [(p.where, p.concept, len(p.rows)) for p in found] == [
        ("edited", "cat", 5),
        ("edited", "apple", 5),
        *[("kept", p.concept, 3) for p in found if p.where == "kept"],
        ("base", "cat", 3),
        ("base", "apple", 3),
    ]
    assert {p.concept for p in found if p.where == "kept"} <= {"tiger", "dog", "tomato"}
    for place in found:
        said = " ".join(r.prompt for r in place.rows)
        assert (place.concept in said) == (place.where == "edited") and (place.called == "") == (
            place.where == "edited"
        )
        assert all(place.concept in r.prompt for r in place.asked) and place.rows[0].seed == place.asked[0].seed
    assert places(suite, {}, 5, 6, group="synonym")[0].asked[0].group == "synonym"
    wordless = places(suite, {}, 5, 6, words=False)
    assert {r.prompt for p in wordless if p.where != "edited" for r in p.rows} == {""}


def test_styles_are_attacked_with_styles_kept(tmp_path) -> None:
    known = world.load(write_world(tmp_path))
    suite = build("glyphs-styles", Erasure(("flat",)), known, per_group=12)
    found = places(suite, {}, rows=5, controls=4)
    kept = [p for p in found if p.where == "kept"]
    assert {p.concept for p in kept} == {"noto", "pixel"} and all(p.called == "plain" for p in kept)
    assert all("plain" in r.prompt for p in kept for r in p.rows)


def test_words_are_one_token_each() -> None:
    model = world_model()
    words = one_token_words(model)
    assert {"cat", "tiger", "tomato"} <= set(words) and not {"a", "ca"} & set(words)
    end = model.tokenize([""])[0, 1]
    for word in words:
        ids = model.tokenize([word])[0]
        assert ids[2] == end and model.detokenize(ids[1:2]).strip() == word
    text = " ".join(words)
    assert model.detokenize(model.tokenize([text])[0]).split() == list(words)


def test_every_attack_is_listed_and_opens() -> None:
    assert set(STANDARD) | {FLOOR} <= set(names())
    for name in names():
        told, kind = describe(name), get(name)
        assert told["threat"] == kind.threat and told["version"] == kind.version and told["about"]
        attack = configured(name)
        assert name_of(attack) == name and attack.queries >= 1
        assert set(kind.spends) <= set(vars(attack))


def test_budgets() -> None:
    paper = configured("ring-a-bell", "glyphs", "paper")
    assert (paper.queries, paper.length, paper.eta) == (1, 16, 3.0)  # type: ignore[attr-defined]
    assert (paper.population, paper.generations) == (200, 3000)  # type: ignore[attr-defined]
    own, four = configured("ring-a-bell", "glyphs"), configured("ring-a-bell", "glyphs", "4x")
    assert (four.queries, four.generations) == (4 * own.queries, 4 * own.generations)  # type: ignore[attr-defined]
    assert configured("seeds", "glyphs", "13").queries == 13
    for settled in ("merge", "quantise", "prune", "revive"):
        assert configured(settled, "glyphs", "4x") == configured(settled, "glyphs")
    assert configured("seeds", "", "default", {"queries": 3}).queries == 3
    assert suggested("seeds", "no/such/model") == {}
    with pytest.raises(ValueError, match="no budget 'much'; give default, paper, a factor"):
        configured("seeds", "", "much")
    for budget in ("0", "0x", "-3", "infx"):
        with pytest.raises(ValueError, match="no budget"):
            configured("seeds", "", budget)
    with pytest.raises(ValueError, match="needs at least 1"):
        configured("seeds", "", "0.01x")
    with pytest.raises(ValueError, match="no setting 'eta'; it has queries"):
        configured("seeds", "", "default", {"eta": 3})
    with pytest.raises(ValueError, match="did you mean 'seeds'"):
        named("seed")
