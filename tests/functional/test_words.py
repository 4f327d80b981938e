"""Both rules by which a vocabulary's words are told from what was named, and where they differ."""

from __future__ import annotations

import pytest

from efface.functional.words import ends_alike, exclude_overlaps, list_other_words, mentions, share_name

WORDS = ["cat", "Cats", "cat face", "category", "cat", "van", "gogh", "monet", "rose"]


def test_other_words_are_told_apart_from_the_targets() -> None:
    assert list_other_words(WORDS, ["cat", "van gogh"]) == ["category", "van", "gogh", "monet", "rose"]
    assert list_other_words(["tomatoes", "bus", "buses", "lions"], ["tomato", "bus", "lion"]) == []
    assert list_other_words(["Van Gogh painting", "vincent van gogh", "van goghs", "van goghish"], ["van gogh"]) == [
        "van goghish"
    ]
    assert list_other_words(["lion", "Lion cub", "two lions", "lioness"], ["lions"]) == ["lioness"]


def test_texts_that_name_a_target_do_so_in_any_dress() -> None:
    named = ["A cat, asleep", "two cats", "Van Gogh's room", "a t-shirt"]
    texts = [*named, "category", "", "a shirt"]
    assert [t for t in texts if mentions(t, ["cat", "van gogh", "t-shirt"])] == named


@pytest.mark.parametrize(
    ("target", "named", "others"),
    [
        ("Spider-Man", ["Spider-Man, city", "spider man", "Spiderman on a wall"], ["a spider", "a man"]),
        ("Georgia O'Keeffe", ["a flower by Georgia O\u2019Keeffe, oil", "georgia okeeffe"], ["Georgia", "o keeffe"]),
        ("J.M.W. Turner", ["by J.M.W. Turner.", "JMW Turner"], ["Ted Turner"]),
        ("T-shirt", ["A red T-shirt.", "two t-shirts", "tshirts"], ["a shirt"]),
        ("garbage truck", ["Two garbage trucks, parked"], ["a truck", "garbage"]),
        ("knife", ["two knives on a table"], ["knifed"]),
        ("wolves", ["a wolf howls"], ["wolverine"]),
        ("strawberry", ["strawberries"], ["straw"]),
        ("cherries", ["a cherry"], ["cherubs"]),
        ("boxes", ["a box"], ["a bo"]),
        ("van", ["two vans"], ["men", "women", "man", "y", "v"]),
        ("men", ["a man"], ["a woman"]),
        ("firewomen", ["a firewoman"], ["a fireman"]),
        ("mice", ["a mouse"], ["m"]),
        ("os", ["the os"], ["an o"]),
        ("TVs", ["a TV"], ["a t"]),
        ("!", ["!"], ["s", "es"]),
        ("woman", ["three women"], ["a man"]),
        ("person", ["people in a street"], ["personal"]),
        ("fireman", ["firemen"], ["fire"]),
        ("ox", ["oxen"], ["a box", "boxen"]),
        ("glass", ["two glasses"], ["glas"]),
        ("bus", ["buses"], ["a bu"]),
        ("cat", ["a c\u200bat", "soft\u00adcats cats"], ["catty"]),
        ("\u732b", ["\u4e00\u53ea\u732b"], ["\u4e00\u53ea\u72d7"]),
        ("\U0001f431", ["a \U0001f431 here"], ["a cat"]),
    ],
)
def test_a_name_is_found_in_either_number_and_whatever_marks_stand_about_it(
    target: str, named: list[str], others: list[str]
) -> None:
    assert [text for text in named + others if mentions(text, [target])] == named
    assert list_other_words(named + others, [target]) == others


def test_words_without_overlap_share_no_word_with_what_was_named() -> None:
    assert exclude_overlaps(WORDS, ["cat", "van gogh"]) == ["category", "monet", "rose"]
    assert exclude_overlaps(["vincent van gogh", "van goghs", "vans"], ["van gogh"]) == ["vans"]


@pytest.mark.parametrize("name", ["Van  Gogh", "VAN GOGH", " van\u00a0gogh", "\uff36an gogh", "van\tgogh"])
def test_one_comparison_of_names_serves_all(name: str) -> None:
    assert list_other_words([name, "rose"], ["van gogh"]) == list_other_words(["van gogh", "rose"], [name]) == ["rose"]
    assert exclude_overlaps([name, "rose"], ["van gogh"]) == exclude_overlaps(["van gogh", "rose"], [name]) == ["rose"]
    assert mentions(f"a field by {name}", ["van gogh"]) and mentions("a field by van gogh", [name])
    assert share_name(name, "van gogh") and ends_alike(name, "Vincent van Gogh")


@pytest.mark.parametrize(
    ("one", "other"), [("", ""), ("", "van gogh"), ("gogh museum", "van gogh"), ("ogh", "van gogh")]
)
def test_names_whose_last_words_differ_do_not_end_alike(one: str, other: str) -> None:
    assert not ends_alike(one, other) and not ends_alike(other, one)
    assert ends_alike("gogh", "van gogh")


def test_letters_with_marks_are_one_name_in_both_unicode_forms() -> None:
    one, other = "Paul C\u00e9zanne", "paul ce\u0301zanne"
    assert share_name(one, other) and mentions(f"by {one}.", [other]) and list_other_words([one], [other]) == []
