"""Suites: which rows, of what, and never in words that fitting used."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path

import pytest

from efface.concept import Erasure
from efface.suites import read_spec, world
from efface.suites.make import needs_world
from efface.suites.rows import build
from efface.suites.spec import describe, list_names
from efface.suites.world import World, locate
from judging_fixtures import write_world


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> World:
    return world.load(write_world(tmp_path_factory.mktemp("bundle")))


REQUESTS = {"glyphs-classes": "cat", "glyphs-objects": "cat", "glyphs-styles": "flat", "glyphs-unsafe": "unsafe"}


def test_every_suite_says_what_it_is() -> None:
    assert {n for n in list_names() if needs_world(n)} == set(REQUESTS)
    for told in describe():
        assert all(told.values())


@pytest.mark.parametrize("name", REQUESTS)
def test_rows_are_the_same_every_time_and_have_ids_of_their_own(name: str, small: World) -> None:
    suite = build(name, Erasure((REQUESTS[name],)), small)
    assert suite == build(name, Erasure((REQUESTS[name],)), small)
    assert len({r.id for r in suite.rows}) == len(suite.rows)
    assert len(suite.select_group("target")) >= 300


@pytest.mark.parametrize("name", REQUESTS)
def test_no_prompt_is_a_bare_word_and_held_out_cells_are_left_out(name: str, small: World) -> None:
    words = {w for t in small.things for w in (t.name, *t.synonyms)} | set(small.styles)
    bare = words | {f"a {w}" for w in words}
    for row in build(name, Erasure((REQUESTS[name],)), small, per_group=60).rows:
        assert row.prompt not in bare
        assert (row.thing, row.style) not in small.held_out
        assert (row.second, row.style) not in small.held_out


KEPT = ("target", "neighbour", "sibling", "seen", "unseen")


def test_groups_share_no_concept_and_the_unseen_half_is_unseen(small: World) -> None:
    suite = build("glyphs-objects", Erasure(("bomb",), keep=("truck",)), small, used=("dog", "Car-let"))
    concepts = {g: {r.concept for r in suite.select_group(g)} for g in KEPT}
    assert concepts == {
        "target": {"bomb"},
        "neighbour": {"pistol"},
        "sibling": set(),
        "seen": {"cat", "dog", "truck", "tomato", "car"},
        "unseen": {"tiger", "apple", "rose"},
    }
    suite = build("glyphs-objects", Erasure(("cat",)), small)
    concepts = {g: {r.concept for r in suite.select_group(g)} for g in KEPT}
    assert concepts["neighbour"] == {"tiger", "dog"} and concepts["sibling"] == {
        "car",
        "truck",
        "apple",
        "tomato",
        "rose",
    }
    assert (concepts["seen"], concepts["unseen"]) == ({"bomb"}, {"pistol"})
    sets = list(concepts.values())
    assert sum(map(len, sets)) == len(set().union(*sets)) == len(small.names)


def test_neighbours_are_those_that_the_world_lists_without_the_targets(small: World) -> None:
    suite = build("glyphs-objects", Erasure(("cat",)), small)
    assert {r.concept for r in suite.select_group("neighbour")} == {"tiger", "dog"}
    suite = build("glyphs-objects", Erasure(("cat", "dog")), small)
    assert {r.concept for r in suite.select_group("neighbour")} == {"tiger"}


def test_descriptions_and_languages_ask_for_the_target_without_its_name(small: World) -> None:
    suite = build("glyphs-objects", Erasure(("cat",)), small)
    for group, words in (("description", ("a thing of the test world",)), ("language", ("catchen",))):
        rows = suite.select_group(group)
        assert rows and all((r.role, r.concept, r.counts) == ("erase", "cat", ("cat",)) for r in rows)
        assert all(any(w in r.prompt for w in words) for r in rows)
    assert not any("cat" in r.prompt for r in suite.select_group("description"))


def test_no_description_of_the_bundled_world_names_its_thing() -> None:
    for thing in world.load(locate("glyphs")).things:
        told = f" {thing.description.lower()} "
        assert thing.description and not any(f" {w.lower()} " in told for w in (thing.name, *thing.synonyms))
        assert not {thing.name, *thing.synonyms} & set(thing.list_words("translations"))


def test_a_kept_thing_is_asked_for_in_the_same_words_whatever_is_erased(small: World) -> None:
    one, other = (build("glyphs-objects", Erasure((t,)), small) for t in ("cat", "apple"))
    for concept in ("rose", "pistol"):
        asked = [[(r.prompt, r.seed) for r in s.rows if r.concept == concept and not r.second] for s in (one, other)]
        short = min(map(len, asked))
        assert short and asked[0][:short] == asked[1][:short]


def test_pairs_name_two_things_and_synonyms_never_the_target(small: World) -> None:
    suite = build("glyphs-objects", Erasure(("cat",)), small)
    for row in suite.select_group("beside"):
        assert row.second == "cat" and "cat" in row.prompt and row.concept in row.prompt and row.role == "keep"
    for row in suite.select_group("pair"):
        assert row.second not in ("cat", row.concept) and "cat" not in row.prompt
    alone = build("glyphs-objects", Erasure(("cat",)), dataclasses.replace(small, pairs=False))
    assert (
        not alone.select_group("beside")
        and not alone.select_group("pair")
        and not any(row.second for row in alone.rows)
    )
    for row in suite.select_group("synonym"):
        assert "catlet" in row.prompt or "big cat" in row.prompt


def test_a_suite_knows_the_groups_that_it_could_have_drawn(small: World) -> None:
    """Of those, and of no others, a report can say that they were left out."""
    for target in ("cat", "dog"):
        whole, part = (build("glyphs-objects", Erasure((target,)), small, only=only) for only in ((), ("target",)))
        assert {row.group for row in part.rows} == {"target"}
        groups = [group.name for group in part.spec.groups]
        assert groups == list(dict.fromkeys(row.group for row in whole.rows))
        assert ("neighbour" in groups) == (target == "cat"), "nothing is near the dog"


def test_half_of_the_beginning_has_a_style_and_half_a_background(small: World) -> None:
    rows = build("glyphs-objects", Erasure(("cat",)), small, only=("target",), per_group=16).rows
    assert sum(bool(r.style) for r in rows) == sum(bool(r.background) for r in rows) == 8


def test_few_rows_of_many_things_have_styles_and_backgrounds_too() -> None:
    known = world.load(locate("glyphs"))
    rows = build("glyphs-objects", Erasure((known.names[0],)), known, only=("seen", "unseen"), per_group=8).rows
    assert 0 < sum(bool(r.style) for r in rows) < len(rows) and 0 < sum(bool(r.background) for r in rows) < len(rows)


def test_the_umbrella_covers_everything_unsafe_and_any_of_it_counts(small: World) -> None:
    suite = build("glyphs-unsafe", Erasure(("weapons",)), small)
    assert suite.targets == ("bomb", "pistol")
    assert all(r.counts == ("bomb", "pistol") for r in suite.select_group("target"))


def test_several_targets_have_their_full_size_each(small: World) -> None:
    suite = build("glyphs-objects", Erasure(("cat", "apple")), small, sizes={"target": 10})
    assert [sum(r.concept == c for r in suite.select_group("target")) for c in ("cat", "apple")] == [10, 10]


def test_a_target_goes_by_any_of_its_names_and_another_salt_asks_otherwise(small: World) -> None:
    suites = [build("glyphs-objects", Erasure((name,)), small) for name in ("cat", "Cat", "CATLET", "big_cat")]
    assert all(s == suites[0] for s in suites) and suites[0].targets == ("cat",)
    tuned = build("glyphs-objects", Erasure(("cat",)), small, salt="tune")
    for group in ("target", "description", "unseen"):
        asked = [{(r.prompt, r.seed) for r in s.select_group(group)} for s in (suites[0], tuned)]
        assert not asked[0] & asked[1]


@pytest.mark.parametrize(
    ("name", "target", "says"),
    [
        ("glyphs-object", "cat", "did you mean 'glyphs-objects'"),
        ("glyphs-objects", "catt", "did you mean 'cat'"),
        ("glyphs-styles", "cat", "there are flat, noto, pixel"),
        ("glyphs-unsafe", "cat", "use glyphs-objects"),
    ],
)
def test_what_can_not_be_judged_is_refused(name: str, target: str, says: str, small: World) -> None:
    with pytest.raises(ValueError, match=says):
        build(name, Erasure((target,)), small)


def test_unknown_groups_and_empty_ones_are_refused(small: World) -> None:
    with pytest.raises(ValueError, match="its groups are target, synonym"):
        build("glyphs-objects", Erasure(("cat",)), small, only=("targets",))
    for sizes, per_group in (({"target": 0}, None), (None, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            build("glyphs-objects", Erasure(("cat",)), small, per_group, sizes=sizes)


def test_a_world_lies_in_or_beside_its_model(tmp_path: Path) -> None:
    write_world(tmp_path)
    (tmp_path / "model").mkdir()
    assert locate(str(tmp_path / "model")) == locate(str(tmp_path)) == tmp_path
    with pytest.raises(FileNotFoundError, match="--model glyphs"):
        locate(str(tmp_path / "no" / "where"))


def test_articles() -> None:
    from efface.suites.rows import fix_articles

    assert fix_articles("a apple next to a cat") == "an apple next to a cat"


def test_suites_know_no_torch() -> None:
    code = "import sys, efface.suites; efface.suites.describe(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_specs_are_found_by_name_only() -> None:
    assert read_spec("glyphs-styles").targets == "styles"
    with pytest.raises(ValueError, match="there is no suite"):
        read_spec("../secrets")
