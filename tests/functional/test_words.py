"""Both rules by which a vocabulary's words are told from what was named, and where they differ."""

from __future__ import annotations

from efface.functional.words import naming, other_words, unlike_words

WORDS = ["cat", "Cats", "cat face", "category", "cat", "van", "gogh", "monet", "rose"]


def test_other_words_are_told_apart_from_the_targets() -> None:
    assert other_words(WORDS, ["cat", "van gogh"]) == ["category", "van", "gogh", "monet", "rose"]
    assert other_words(["tomatoes", "bus", "buses", "lions"], ["tomato", "bus", "lion"]) == []
    assert other_words(["Van Gogh painting", "vincent van gogh", "van goghs", "van goghish"], ["van gogh"]) == [
        "van goghish"
    ]
    assert other_words(["lion", "Lion cub"], ["lions"]) == ["Lion cub"]


def test_texts_that_name_a_target_do_so_in_any_dress() -> None:
    named = ["A cat, asleep", "two cats", "Van Gogh's room", "a t-shirt"]
    assert naming([*named, "category", "", "a shirt"], ["cat", "van gogh", "t-shirt"]) == named


def test_unlike_words_share_no_word_with_what_was_named() -> None:
    assert unlike_words(WORDS, ["cat", "van gogh"]) == ["category", "monet", "rose"]
    assert unlike_words(["vincent van gogh", "van goghs", "vans"], ["van gogh"]) == ["vans"]
