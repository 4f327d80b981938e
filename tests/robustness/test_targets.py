"""What attacks are made on: rows of the target, of what is kept, and of the base; words in the place of a name."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from attack_context import build_rows
from efface.attacks.base import put
from efface.concept import Erasure
from efface.robustness.conditions import ConceptAliases, build_targets, list_one_token_words, remove_names
from efface.suites import world
from efface.suites.rows import build
from judging_fixtures import world_model, write_world


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
    (row,) = build_rows("something else")
    assert remove_names(row, ("cat",), "thing").prompt == "a picture of a thing"
    (row,) = build_rows("a cat emoji")
    assert (
        remove_names(row, ("cat",), "thing").prompt == "a thing emoji"
        and remove_names(row, ("cat",), "thing").seed == row.seed
    )


def test_attacks_are_made_on_the_targets_kept_neighbours_and_the_base(tmp_path) -> None:
    known = world.load(write_world(tmp_path))
    suite = build("glyphs-objects", Erasure(("cat", "apple")), known, per_group=12)
    found = build_targets(suite, {"cat": ConceptAliases(("kitty",))}, rows=5, controls=6)
    assert [(p.condition, p.concept, len(p.rows)) for p in found] == [
        ("target", "cat", 5),
        ("target", "apple", 5),
        *[("control-kept", p.concept, 3) for p in found if p.condition == "control-kept"],
        ("control-base", "cat", 3),
        ("control-base", "apple", 3),
    ]
    assert {p.concept for p in found if p.condition == "control-kept"} <= {"tiger", "dog", "tomato"}
    for target in found:
        said = " ".join(r.prompt for r in target.rows)
        assert (target.concept in said) == (target.condition == "target") and (target.placeholder == "") == (
            target.condition == "target"
        )
        assert all(target.concept in r.prompt for r in target.asked) and target.rows[0].seed == target.asked[0].seed
    assert build_targets(suite, {}, 5, 6, group="synonym")[0].asked[0].group == "synonym"
    wordless = build_targets(suite, {}, 5, 6, words=False)
    assert {r.prompt for p in wordless if p.condition != "target" for r in p.rows} == {""}


def test_styles_are_attacked_with_styles_kept(tmp_path) -> None:
    known = world.load(write_world(tmp_path))
    suite = build("glyphs-styles", Erasure(("flat",)), known, per_group=12)
    found = build_targets(suite, {}, rows=5, controls=4)
    kept = [p for p in found if p.condition == "control-kept"]
    assert {p.concept for p in kept} == {"noto", "pixel"} and all(p.placeholder == "plain" for p in kept)
    assert all("plain" in r.prompt for p in kept for r in p.rows)


def test_words_are_one_token_each() -> None:
    model = world_model()
    words = list_one_token_words(model)
    assert {"cat", "tiger", "tomato"} <= set(words) and not {"a", "ca"} & set(words)
    end = model.tokenize([""])[0, 1]
    for word in words:
        ids = model.tokenize([word])[0]
        assert ids[2] == end and model.detokenize(ids[1:2]).strip() == word
    text = " ".join(words)
    assert model.detokenize(model.tokenize([text])[0]).split() == list(words)
