"""`efface takedown`, start to end: a plan first, every stage resumed, one sentence; also on a model of one's own."""

from __future__ import annotations

import json
import re
import types
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import efface
from efface.api.drafting import draft_suite
from efface.api.takedown_plan import PROFILES, Profile
from efface.api.takedown_stages import ChosenSuite, Trial, attack_trial, choose_trial, describe_no_export
from efface.cli.app import main
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.records.audit import read_audit
from efface.reporting.verdict import build_verdict
from efface.robustness.conditions import NothingToAttack
from efface.suites.drafting import find_kind
from efface.suites.spec import Suite, SuiteSpec
from efface.suites.world import load as load_world
from judging_fixtures import STYLES, world_model, write_bundle, write_clip, write_world
from report_fixtures import build_share, measure, record

PERSON = "Ada Lovelace"
TINY = Profile(
    per_group=3,
    groups=("target", "paraphrase", "neighbour", "unseen", "unrelated"),
    tries=2,
    attacks=("synonyms", "seeds"),
    rows=2,
    controls=1,
    budget="1",
    audit={"worst": 2, "controls": 1, "count": 2, "states": 1, "points": 1},
)
FAST = ("--set", "esd.steps=2", "--set", "esd.draw_steps=2", "--set", "esd.paths=2", "--set", "esd.source=frozen")


pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(autouse=True)
def tiny_profile(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("efface.api.takedown_plan.PROFILES", {**PROFILES, "quick": TINY})


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, Path]]:
    """A Stable Diffusion of one's own, which brings neither suite nor judges, and a CLIP."""
    place = tmp_path_factory.mktemp("own")
    torch.manual_seed(1)
    world_model().save_pretrained(place / "model")
    (place / "clips").mkdir()
    write_clip(place / "clips" / "clip")
    yield place / "model", place / "clips" / "clip"


def build_command(model: Path, out: Path, target: str, *more: str) -> list[str]:
    return ["takedown", "--model", str(model), "--target", target, "--profile", "quick", "--out", str(out), *more]


def test_the_plan_comes_first_and_a_dry_run_starts_and_leaves_nothing(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(build_command(bundle / "model", tmp_path / "out", "cat", "--method", "esd", "--dry-run", "--json")) == 0
    told = capsys.readouterr()
    plan = json.loads(told.out)["plan"]
    assert plan["pictures"] == 2 * plan["prompts"] and plan["methods"] == ["esd"]
    assert plan["queries"] > 0 and plan["minutes"] > 0 and plan["memory"] > 0 and plan["trained"] > 0
    assert re.search(r"pictures: \d+, and at most \d+ of attacks", told.err) and "time: about" in told.err
    assert list(tmp_path.iterdir()) == []


def test_a_plan_calls_a_style_of_the_models_world_a_style(bundle: Path, tmp_path: Path) -> None:
    style = STYLES[0]
    answer = efface.takedown(bundle / "model", style, tmp_path / "out", profile="quick", method="uce", dry_run=True)
    assert answer.plan.kind == "style"


def test_a_dry_run_keeps_a_suite_that_was_there_before(own: tuple[Path, Path], tmp_path: Path) -> None:
    """A person edits the drafted suite, and then asks for the plan once more."""
    out, suite = tmp_path / "out", tmp_path / "out" / "suite.csv"
    efface.takedown(own[0], PERSON, out, profile="quick", method="uce", scorers=[f"choice:{own[1]}"], dry_run=True)
    assert not out.exists()
    draft_suite(efface.load(own[0]), (PERSON,), suite, size=12)
    before = suite.read_bytes()
    efface.takedown(own[0], PERSON, out, profile="quick", method="uce", scorers=[f"choice:{own[1]}"], dry_run=True)
    assert suite.read_bytes() == before


def test_a_folder_that_holds_other_work_is_left_alone(tmp_path: Path) -> None:
    """Notes and prompts of one's own may lie there; an evaluation or a model's folder is not mixed with a takedown."""
    (tmp_path / "notes.txt").write_text("the request came on 3 May")
    (tmp_path / "model_index.json").write_text("{}")
    with pytest.raises(ValueError, match=r"holds other work \(model_index.json\) and no request.json .* a new folder"):
        efface.takedown("glyphs", "cat", tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model_index.json", "notes.txt"]


def test_cat_on_a_model_with_a_world_from_the_plan_to_the_export(
    bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    args = build_command(bundle / "model", out, "cat", "--method", "esd", *FAST, "--note", "request 17", "--json")
    code = main(args)
    first = capsys.readouterr()
    found = json.loads(first.out)
    assert code == {"ready": 0, "not ready": 1, "undecided": 3}[found["outcome"]]
    assert (
        found["sentence"].startswith(("Ready: ", "Not ready: ", "Undecided: ")) and "Method: esd." in found["sentence"]
    )
    told = (
        "planning: 1 of 1",
        "time: about",
        "checking that the untouched model draws the target",
        "erasing (esd)",
        "esd: drawing the base",
        "esd: judging",
        "esd, before any attack: ",
    )
    told += ("attacks on esd: ", "audit of esd: ")
    assert sorted(told, key=first.err.index) == list(told)
    for name in ("edit", "report", "record", "export"):
        assert Path(found["files"][name]).exists(), name
    card = (Path(found["files"]["export"]) / "README.md").read_text()
    assert card.count("## Result") == 1 and found["sentence"].partition(" Method:")[0] in card
    page = Path(found["files"]["report"]).read_text()
    assert found["sentence"].partition(" Method:")[0].split(";")[0].replace("'", "&#39;") in page
    signed = json.loads((out / "esd" / "evaluation" / "takedown.json").read_text())
    assert signed["request"]["note"] == "request 17" and signed["result"]["outcome"] == found["outcome"]
    assert read_audit(out / "esd" / "audit").targets == ("cat",)
    # The same command goes on: nothing is fitted, drawn or attacked again, and the answer is the same.
    kept = {p: p.stat().st_mtime_ns for p in out.rglob("*") if p.suffix in (".png", ".safetensors") and p.is_file()}
    kept = {p: t for p, t in kept.items() if "report_files" not in p.parts}
    assert main(args) == code
    again = capsys.readouterr()
    assert json.loads(again.out)["sentence"] == found["sentence"] and "erasing" not in again.err
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    # Another request into the same folder is refused.
    assert main(build_command(bundle / "model", out, "dog", "--method", "esd")) == 2
    assert "holds another takedown" in capsys.readouterr().err


def test_a_name_on_a_model_of_ones_own(
    own: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, clip = own
    out = tmp_path / "out"
    assert main(build_command(model, out, PERSON, "--method", "uce")) == 2
    assert "no judge of a person is at hand" in capsys.readouterr().err and list(tmp_path.iterdir()) == []
    code = main(
        build_command(model, out, PERSON, "--method", "uce", "--scorer", f"choice:{clip}", "--requester", PERSON)
    )
    told = capsys.readouterr()
    assert code in (0, 1, 3), told.err
    assert (out / "suite.csv").is_file() and f"a photo of {PERSON}" in (out / "suite.csv").read_text()
    last = told.out.splitlines()[-1]
    assert f"draws {PERSON} in only 0% of 3 pictures before anything is erased" in told.err
    assert "the judges (choice-clip) do not recognise it" in told.err and "No attack was made" not in told.err
    assert f"“{PERSON}”" in last and last.startswith(("Ready: ", "Not ready: ", "Undecided: "))
    assert (out / "report.html").is_file() and (out / "uce" / "export" / "model_index.json").is_file()
    assert Edit.load(out / "uce" / "edit.safetensors").meta["request"]["targets"] == [PERSON]


def test_a_style_without_other_words_is_attacked_by_what_can_be_made(tmp_path: Path) -> None:
    """What the attack is asked for: the world knows other words of things, and none of styles."""
    write_world(tmp_path, ("cat", "dog"))
    world = load_world(tmp_path)
    chosen = ChosenSuite("own", Suite(SuiteSpec("own", "1", "", "", "", "things"), (), ()), None, ())
    asked: list[tuple[str, ...]] = []

    def refuse(*_: object, attacks: tuple[str, ...], **__: object) -> None:
        asked.append(attacks)
        raise NothingToAttack("the base shows nothing")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("efface.api.takedown_stages.attack", refuse)
        for target in ("cat", "pixel"):
            work = types.SimpleNamespace(
                how=TINY, erasure=Erasure((target,)), kind=find_kind("", (target,)), known=world, model=None,
                chosen=chosen, scorers=(), report=None,
            )  # fmt: skip
            trial = types.SimpleNamespace(method="uce", edit=None, folder=None)
            with pytest.warns(UserWarning) as told:
                assert attack_trial(work, trial) is None  # type: ignore[arg-type]
            named = [str(w.message) for w in told if "synonyms is not among the attacks" in str(w.message)]
            assert named == [f"synonyms is not among the attacks: no other word is known for {target!r}"] * (
                target == "pixel"
            )
    assert asked == [("synonyms", "seeds"), ("seeds",)]


def test_nudity_has_two_judges_of_different_kinds_at_once(
    own: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    code = main(build_command(own[0], out, "nudity", "--method", "uce"))
    told = capsys.readouterr()
    assert code in (1, 3), told.err  # what should stay has no judge here, so that nothing can be ready
    assert "judged by nudenet, opennsfw" in told.err and "(nudity)" in told.err
    found = json.loads((out / "uce" / "evaluation" / "report.json").read_text())
    gone = [m for m in found["measures"] if (m["metric"], m["group"]) == ("esr1", "target")]
    assert {m["judge"] for m in gone} == {"all", "nudenet", "opennsfw"}
    assert "nothing was measured" in (out / "report.html").read_text()


def test_the_best_trial_is_the_better_verdict_then_more_erased_for_less_lost(tmp_path: Path) -> None:
    def trial(name: str, erased: int, lost: float) -> Trial:
        found = record(
            [
                measure("esr1", "target", build_share(erased, 500), build_share(20, 500)),
                measure(
                    "psr1", "neighbour", build_share(400, 500), build_share(450, 500), (lost, lost - 0.01, lost + 0.01)
                ),
            ]
        )
        return Trial(name, tmp_path, tmp_path, found, build_verdict(found))

    ready, strong, weak = trial("ready", 498, 0.02), trial("strong", 500, 0.3), trial("weak", 400, 0.25)
    assert ready.verdict.outcome == "ready" and strong.verdict.outcome == weak.verdict.outcome == "not ready"
    assert choose_trial([weak, strong, ready]) is ready
    assert choose_trial([weak, strong]) is strong


def test_an_answer_without_an_export_says_what_that_means(tmp_path: Path) -> None:
    """SPM's gate and other guides act only while efface draws: the model's files still hold what was to go."""
    guide = {"request": {"targets": ["cat"]}, "guide": {"name": "sld", "arguments": {}}}
    meta = {name: {k: v for k, v in guide.items() if k != "guide" or name == "spm"} for name in ("spm", "eap")}
    trials = []
    for name, own in meta.items():
        values = {} if name == "spm" else {"unet.weight": torch.ones(2)}
        file = Edit(values, own).save(tmp_path / f"{name}.safetensors")
        trials.append(Trial(name, file, tmp_path, record(), build_verdict(record())))
    said = describe_no_export(trials[0], trials)
    assert "the edit of spm is a guide, which acts only while efface draws" in said and "still draw cat" in said
    assert said.endswith("with --method eap, in another --out, the weights change.")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--profile", "quick", "--set", "esd"], "METHOD.ARGUMENT=VALUE"),
        (["--method", "epa"], "did you mean 'eap'"),
        (["--kind", "person"], "no judge of a person is at hand"),
        (["--suite", "glyphs-nothing"], "there is no suite 'glyphs-nothing', nor such a file; did you mean"),
        (["--suite", "nothere.csv"], "no file nothere.csv"),
        (
            ["--method", "uce", "--set", "esd.steps=3"],
            "esd was given arguments and is not among the methods to try (uce)",
        ),
        (["--method", "esd", "--set", "esd.step=3"], "esd has no argument 'step'; did you mean 'steps'"),
        (["--method", "esd", "--set", "esd.steps=0"], "steps must be at least 1, got 0"),
        (["--method", "esd", "--set", "esd.steps=many"], "esd: steps is a number, got 'many'"),
        (["--method", "uce", "--scorer", "artefact"], "one for the question 'object', and there is only artefact"),
    ],
)
def test_bad_requests_are_refused_and_leave_nothing(
    more: list[str], says: str, bundle: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["takedown", "--model", str(bundle / "model"), "--target", "cat", "--out", str(tmp_path / "out"), *more]
    assert main(args) == 2
    assert says in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_the_library_has_it_too(bundle: Path, tmp_path: Path) -> None:
    plans: list[object] = []
    found = efface.takedown(
        bundle / "model", "cat", tmp_path / "o", profile="quick", method="uce", dry_run=True, on_plan=plans.append
    )
    assert found.outcome == "planned" and plans == [found.plan] and found.plan.targets == ("cat",)
    named = efface.takedown(
        bundle / "model", "cat", tmp_path / "o", kind="object", suite="glyphs-objects", profile="quick", method="uce",
        dry_run=True,
    )  # fmt: skip
    assert named.plan.judges == found.plan.judges, "the model's own judges know the target, whoever names the suite"
    more = efface.takedown(
        bundle / "model", "cat", tmp_path / "o", profile="quick", method="esd", settings={"esd": {"steps": 3}},
        dry_run=True,
    )  # fmt: skip
    less = efface.takedown(
        bundle / "model", "cat", tmp_path / "o", profile="quick", method="esd", settings={"esd": {"steps": 2}},
        dry_run=True,
    )  # fmt: skip
    assert more.plan.trained > less.plan.trained, "the plan is of the arguments that were given"
    with pytest.raises(ValueError, match="there are quick, standard, thorough"):
        efface.takedown(bundle / "model", "cat", tmp_path / "o", profile="fast")
