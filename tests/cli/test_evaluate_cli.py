"""`efface evaluate` on models that are no glyphs, with suites and scorers of one's own."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline

from efface.cli.app import main
from efface.models.adapters.sd import StableDiffusion
from efface.records.report import read_report
from judging_fixtures import edit_of, write_bundle
from tiny import tiny_pipeline

CSV = """case_number,prompt,evaluation_seed,evaluation_guidance,class
0,a cat,11,2.0,cat
1,a red cat,12,2.0,cat
2,"a dog, a dog",13,3.0,dog
3,a car,14,2.0,car
"""


pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def judges(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle whose judges are borrowed; its own model is not used."""
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Stable Diffusion without world or judges, an edit of it, and a suite."""
    place = tmp_path_factory.mktemp("work")
    pipeline = tiny_pipeline()
    pipeline.save_pretrained(place / "model")
    edit_of(StableDiffusion(pipeline, "tiny"), place / "cat.safetensors")
    (place / "mine.csv").write_text(CSV)
    return place


def build_command(work: Path, out: Path, *more: str) -> list[str]:
    files = ["--model", str(work / "model"), "--edit", str(work / "cat.safetensors")]
    return ["evaluate", *files, "--suite", str(work / "mine.csv"), "--out", str(out), *more]


@pytest.mark.parametrize("command_name", ["evaluate", "attack"])
def test_without_a_suite_a_model_that_brings_none_is_refused(
    command_name: str, work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = ["--model", str(work / "model"), "--edit", str(work / "cat.safetensors"), "--out", str(tmp_path / "out")]
    assert main([command_name, *files, "--scorer", "pixels"]) == 2
    assert "model: name one, or a .csv file of prompts" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_any_model_any_prompts_any_judges(
    work: Path, judges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net, clip = judges / "judges" / "object-resnet", judges / "clip"
    asked = (f"classifier:{net}", f"clip:{clip}", f"choice:{clip}", "pixels", "ssim", "artefact", "nudenet")
    asked += (f"kid:{net},least=1", f"diversity:{net},least=1")
    flags = [f for words in asked for f in ("--scorer", words)]
    assert main(build_command(work, tmp_path, *flags, "--json")) == 0
    told = json.loads(capsys.readouterr().out)
    record = read_report(tmp_path)
    assert record.suite.name == "mine" and record.rows == 4 and record.targets == ("cat",)
    assert told["headlines"][0]["metric"] == "esr1" and told["headlines"][0]["group"] == "target"
    names = {"object-resnet" if n == "object-object-resnet" else n for n in record.scorers}
    assert {"clip", "pixels", "ssim", "artefact", "nudenet", "kid-object-resnet"} <= names
    assert record.find("ner", "target", "nudenet", 0.6) and record.find("pixels", "target")
    gone = record.find("esr1", "target")
    assert gone and gone.edited.n == 2
    assert [a["name"] for a in told["alarms"]] == [a.name for a in record.alarms]


def test_the_commonest_words_are_refused_clearly_before_any_drawing(
    work: Path, judges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    net = judges / "judges" / "style-resnet"
    cases = {
        (): "no judges come with this model: name a scorer",
        ("--scorer", "nudnet"): "there is no scorer 'nudnet' here; did you mean 'nudenet'",
        ("--scorer", f"classifier:{net}"): "has no label 'cat', which 2 rows ask for",
        ("--scorer", "pixels", "--scorer", "pixels"): "two scorers share a name",
        ("--scorer", f"fid:{net}"): "needs 2000 pictures in each set",
        ("--scorer", "pixels", "--suite", "nothing"): "there is no suite 'nothing'",
        ("--scorer", "pixels", "--suite", "glyphs-objects"): "no world.json",
        ("--scorer", "pixels", "--protocol", "esr"): "there is no protocol 'esr'",
    }
    extras = {"kid": "torch_fidelity", "lpips": "torchvision"}
    cases |= {("--scorer", n): f"needs {p}" for n, p in extras.items() if importlib.util.find_spec(p) is None}
    for flags, says in cases.items():
        assert main(build_command(work, tmp_path / "out", *flags)) == 2, flags
        assert says in capsys.readouterr().err.splitlines()[-1]
    assert not [p for p in tmp_path.rglob("*") if p.is_file()]


def test_a_list_that_does_not_say_what_it_asks_is_refused_and_how_it_is_read_is_told_before_drawing(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "plain.csv").write_text("prompt,source\na hill,x\n,x\n")
    flags = ["--suite", str(tmp_path / "plain.csv"), "--scorer", "pixels"]
    assert main(build_command(work, tmp_path / "out", *flags)) == 2
    assert "none of them names cat; say it: --asks cat if all ask for it" in capsys.readouterr().err
    assert main(build_command(work, tmp_path / "out", *flags, "--asks", "captions")) == 0
    told = capsys.readouterr().err.splitlines()
    assert told[:3] == [
        "plain.csv has 2 rows; what each asks for is decided by --asks captions. To be drawn: captions, by --asks (1)",
        "left out: 1 row (line 3): prompt is empty",
        "columns not read: source",
    ]


def test_a_protocol_brings_its_suite_and_leaves_out_what_needs_more_pictures(
    judges: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """On the tiny world of glyphs' make: canvas has pools and aggregates of its own."""
    pipeline = StableDiffusionPipeline.from_pretrained(judges / "model", safety_checker=None)
    edit = edit_of(StableDiffusion(pipeline, "tiny"), tmp_path / "cat.safetensors")
    flags = ["--model", str(judges / "model"), "--edit", str(edit), "--protocol", "canvas", "--per-group", "4"]
    assert (
        main(["evaluate", *flags, "--scorer", "object-resnet", "--scorer", "style-resnet", "--out", str(tmp_path)]) == 0
    )
    record = read_report(tmp_path)
    assert record.protocol and record.protocol.name == "canvas"
    assert record.headlines[:2] == ("ua/target", "ira/in-domain")
    assert "ua, target" in capsys.readouterr().out
