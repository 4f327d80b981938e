"""`efface attack`: flags, errors, and one whole run on a tiny model whose pictures follow a plan."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import efface
from attack_plan import Planned, Reader
from efface.api.attacking import add_aliases
from efface.cli.app import main
from efface.cli.attack import group_by_attack, parse_literal, parse_synonyms
from efface.robustness.conditions import ConceptAliases, find_aliases
from efface.scorers import build_scorers
from efface.suites import world
from judging_fixtures import THINGS, edit_of, world_model, write_world


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A world with an edit; its model draws by plan and its judges read it off."""
    model = world_model()

    def plan(text: str, seed: int, edited: bool) -> str:
        name = max(THINGS, key=text.rfind)
        return name if name in text and not (edited and name == "cat" and seed % 2) else ""

    write_world(tmp_path / "bundle")
    edit_of(model, tmp_path / "cat.safetensors")
    monkeypatch.setattr(model, "images", Planned(model, plan))
    monkeypatch.setattr(efface, "load", lambda *_, **__: model)
    monkeypatch.setattr("efface.scorers.build_scorers", lambda *_: [Reader(), Reader(name="second")])
    assert callable(build_scorers)
    return tmp_path


def run(folder: Path, *flags: str, suite: str = "glyphs-objects") -> int:
    place = ["--model", str(folder / "bundle"), "--edit", str(folder / "cat.safetensors"), "--suite", suite]
    return main(["attack", *place, "--out", str(folder / "out"), *flags])


def test_attacks_are_made_and_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ("--attack", "seeds", "--attack", "synonyms", "--rows", "6", "--controls", "4", "--set", "seeds.queries=3")
    assert run(folder, *flags, "--synonym", "cat=big cat", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["targets"] == ["cat"] and {t["attack"] for t in told["measures"]} == {
        "random-prefix",
        "seeds",
        "synonyms",
    }
    assert next(t for t in told["measures"] if t["attack"] == "seeds")["settings"]["queries"] == 3
    assert Path(told["attacks"]).is_file()
    assert run(folder, *flags, "--synonym", "cat=big cat") == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("seeds") and "%" in line for line in lines) and "before any attack" in lines[-2]


def test_every_title_of_the_progress_ends_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("efface.cli.console.LINE_EVERY", 0.0)
    assert run(folder, "--attack", "seeds", "--attack", "merge", "--rows", "6", "--controls", "2") == 0
    stages = [re.fullmatch(r"(.*): (\d+) of (\d+)", line) for line in capsys.readouterr().err.splitlines()]
    ends = [found[1] for found in stages if found and found[2] == found[3]]
    asked = [
        f"plain prompts {what}, {model}, cat"
        for what in ("of the suite", "to attack")
        for model in ("base", "edited model")
    ]
    assert {*asked, "plain prompts after merge, edited model, dog", "seeds, target, cat"} <= set(ends)
    assert sorted(ends) == sorted(set(ends))


def test_rates_are_told_by_setting_where_every_query_is_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, "--attack", "merge", "--rows", "6", "--controls", "2", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    merge = next(t for t in told["measures"] if t["attack"] == "merge" and t["condition"] == "target")
    assert merge["stages"] == ["25% of the base", "50% of the base", "75% of the base"]
    assert next(t for t in told["measures"] if t["attack"] == "random-prefix")["stages"] == []
    assert run(folder, "--attack", "merge", "--rows", "6", "--controls", "2") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("merge, rows broken by then")]
    rates = [f"{rate:.0%}" for rate in merge["curve"]]
    later = [f"{rate} with {stage}" for rate, stage in zip(rates[1:], merge["stages"], strict=True)]
    assert line.endswith(f"{rates[0]} before, {', '.join(later)}")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--attack", "seed"), "did you mean 'seeds'"),
        (("--attack", "seeds", "--budget", "0"), "no budget '0'; give default, paper, a factor such as 4x"),
        (("--attack", "seeds", "--set", "synonyms.queries=3"), "settings name synonyms"),
        (("--attack", "seeds", "--set", "seeds.queries"), "write NAME.SETTING=VALUE"),
        (("--attack", "seeds", "--set", "seeds.eta=3"), "seeds has no setting 'eta'; it has queries"),
        (("--attack", "seeds", "--synonym", "kitty"), "write for example cat=kitty"),
        (("--attack", "seeds", "--rows", "0"), "at least 1 row"),
        (("--attack", "seeds", "--group", "unseen"), "its groups to attack are target, synonym"),
    ],
)
def test_bad_flags_are_refused(
    folder: Path, capsys: pytest.CaptureFixture[str], flags: tuple[str, ...], said: str
) -> None:
    assert run(folder, *flags) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "out" / "attacks.json").exists()


def test_an_unknown_suite_is_refused_first(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(folder, suite="glyphs-object") == 2
    assert "glyphs-objects" in capsys.readouterr().err and not (folder / "out").exists()


def test_settings_and_synonyms_are_read(folder: Path) -> None:
    assert group_by_attack(["ring-a-bell.eta=2.5", "ring_a_bell.names=false", "seeds.queries=3"]) == {
        "ring-a-bell": {"eta": 2.5, "names": False},
        "seeds": {"queries": 3},
    }
    assert [parse_literal(t) for t in ("3", "1e-2", "True", "(1, 2)", "lora")] == [3, 0.01, True, (1, 2), "lora"]
    assert add_aliases({}, parse_synonyms(["cat=kitty", "cat = pussy cat", "x=y"])) == {
        "cat": ConceptAliases(("kitty", "pussy cat")),
        "x": ConceptAliases(("y",)),
    }
    known = add_aliases(find_aliases(world.load(folder / "bundle")), parse_synonyms([" CAT=kitty"]))["cat"]
    assert known.synonyms[-1] == "kitty" and known.paraphrases and len(known.synonyms) > 2


def test_the_list_of_attacks_says_what_an_attacker_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "attacks", "--json"]) == 0
    told = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert told["random-prefix"]["threat"] == "prompts" and told["ring-a-bell"]["threat"] == "encoder"
