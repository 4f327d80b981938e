"""The command line, as a user meets it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from efface.api.memory import explain_to_command
from efface.cli.app import main
from efface.cli.console import show_progress
from efface.edits.edit import Edit
from efface.models.trajectory import Defaults
from judging_fixtures import write_bundle

TINY = ("--steps", "2", "--draw-steps", "2", "--paths", "2", "--source", "frozen")
pytestmark = pytest.mark.usefixtures("few_steps")


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def model(bundle: Path) -> str:
    return str(bundle / "model")


@pytest.fixture(scope="module")
def edit(model: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("edit") / "cat.safetensors"
    assert main(["erase", "esd", "--model", model, "--target", "cat", "--out", str(out), *TINY]) == 0
    return out


@pytest.mark.parametrize("command", ["erase", "draw", "evaluate", "attack"])
def test_commands_open_a_model_as_they_are_told(
    command: str, model: str, edit: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[object, ...]] = []

    def load(*args: object, **flags: object) -> None:
        asked.append((*args, flags))
        raise ValueError("asked")

    monkeypatch.setattr("efface.load", load)
    more = {"draw": ["--prompt", "a cat"], "evaluate": ["--edit", str(edit), "--suite", "glyphs-objects"]}
    more["attack"] = more["evaluate"]
    how = ["--device", "cpu", "--dtype", "bf16", "--compute", "own", "--compile", "--offload", "--deterministic"]
    more["erase"] = ["--target", "cat", "--store", str(tmp_path), "--store-memory", "1KB", "--checkpointing"]
    more["erase"] += ["--draw-batch", "2"]
    own = {"checkpointing": True, "store": tmp_path, "store_bound": 1000, "draw_batch": 2}
    own = own if command == "erase" else {}
    common = {"compile": True, "offload": True, "variant": "", "deterministic": True}
    common |= {"device": "cpu", "dtype": "bf16", "compute": "own", "guidance_rescale": 0.0, "quantise": 0}
    named = ["erase", "esd"] if command == "erase" else [command]
    assert (
        main(
            [
                *named,
                "--model",
                model,
                *more[command],
                "--out",
                str(tmp_path / ("out.safetensors" if command == "erase" else "out")),
                *how,
            ]
        )
        == 2
    )
    assert asked == [(model, common | own)]


def test_the_commands_in_a_row(model: str, edit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, made = tmp_path / "evaluation", {}
    base = ["--model", model, "--edit", str(edit), "--json"]
    for name, args in {
        "draw": [
            "draw",
            *base,
            "--prompt",
            "a cat",
            "--prompt",
            "a dog",
            "--seed",
            "3",
            "--out",
            str(tmp_path / "draw"),
        ],
        "evaluate": ["evaluate", *base, "--suite", "glyphs-objects", "--out", str(out), "--per-group", "3"],
        "report": ["report", str(out), "--out", str(tmp_path / "r.html"), "--json"],
        "export": ["export", *base, "--format", "diffusers", "--out", str(tmp_path / "export")],
    }.items():
        assert main(args) == 0
        made[name] = json.loads(capsys.readouterr().out)
    assert [(p["prompt"], p["seed"]) for p in made["draw"]["pictures"]] == [("a cat", 3), ("a dog", 3)]
    assert all((tmp_path / "draw" / p["file"]).is_file() for p in made["draw"]["pictures"])
    assert made["evaluate"]["headlines"][0]["metric"] == "esr1"
    assert "a cat" in (tmp_path / "r.html").read_text()
    assert (tmp_path / "export" / "model_index.json").is_file()


def test_repeated_flags_keep_every_value(model: str, tmp_path: Path) -> None:
    out = tmp_path / "two.safetensors"
    targets = ["--target", "cat", "--target", "apple"]
    assert main(["erase", "esd", "--model", model, *targets, "--out", str(out), *TINY]) == 0
    assert Edit.load(out).meta["request"]["targets"] == ["cat", "apple"]


def test_trajectories_and_pictures_are_told_before_they_are_drawn(
    model: str, edit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = ["--out", str(tmp_path / "e.safetensors")]
    assert main(["erase", "esd", "--model", model, "--target", "cat", *out, *TINY]) == 0
    told = capsys.readouterr().err
    assert told.index("drawing what is trained on: 0 of 2") < told.index("erasing (esd): 1 of 2")
    assert "drawing what is trained on: 2 of 2" in told
    asked = ["--suite", "glyphs-objects", "--per-group", "2", "--out", str(tmp_path / "evaluation")]
    assert main(["evaluate", "--model", model, "--edit", str(edit), *asked]) == 0
    told = capsys.readouterr().err
    n = int(told.partition(" prompts will be drawn")[0].rpartition(" ")[2])
    assert f"{2 * n} pictures" in told and told.index("pictures to judge") < told.index(f"of {n}")


def test_the_umbrella_is_written_out_in_the_edit(model: str, tmp_path: Path) -> None:
    out = tmp_path / "unsafe.safetensors"
    assert main(["erase", "esd", "--model", model, "--target", "unsafe", "--out", str(out), *TINY]) == 0
    assert Edit.load(out).meta["request"]["targets"] == ["bomb", "pistol"]


def test_a_target_that_the_base_does_not_draw_is_warned_about(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "rose.safetensors"
    assert main(["erase", "esd", "--model", model, "--target", "rose", "--out", str(out), "--json", *TINY]) == 0
    spent = Edit.load(out).meta["cost"]
    assert spent["seconds"] > 0 and spent["peak_memory_mb"] > 100  # torch alone takes that
    told = capsys.readouterr()
    assert "warning:" in told.err and "rose in only" in told.err and "of 24 pictures" in told.err
    assert json.loads(told.out)["base_draws_target"] < 0.5


def test_a_target_that_no_judge_knows_is_said_to_be_unmeasured(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.safetensors"
    assert main(["erase", "esd", "--model", model, "--target", "unicorn", "--out", str(out), *TINY]) == 0
    assert "can't be measured" in capsys.readouterr().err


def build_request(method: str, *flags: str) -> list[str]:
    """A request that is fine but for these flags."""
    return ["erase", method, "--model", "{model}", "--target", "cat", "--out", "{out}", *flags]


def build_drawing(*flags: str) -> list[str]:
    """A drawing that is fine but for these flags."""
    return ["draw", "--model", "{model}", "--prompt", "a cat", "--out", "{tmp}/d", *flags]


BAD = {
    "command": (["eraze"], "did you mean 'erase'"),
    "method": (["erase", "epa", "--target", "cat"], "did you mean 'eap'"),
    "no target": (["erase", "esd", "--model", "{model}", "--out", "{out}"], "no target"),
    "empty target": (["erase", "esd", "--model", "{model}", "--target", "", "--out", "{out}"], "empty concept"),
    "keep": (["erase", "esd", "--model", "{model}", "--target", "cat", "--keep", "dog", "--out", "{out}"], "EAP"),
    "two in one": (["erase", "esd", "--model", "{model}", "--target", "cat, dog", "--out", "{out}"], "repeat the flag"),
    "kept in another case": (build_request("eap", "--keep", "Cat"), "erased and kept at once: cat"),
    "kept by another name": (build_request("eap", "--keep", "Catlet"), "cat and Catlet are two names of cat"),
    "model": (["erase", "esd", "--model", "glyps", "--target", "cat", "--out", "{out}"], "no model 'glyps'"),
    "unwritable": (
        ["erase", "esd", "--model", "{model}", "--target", "cat", "--out", "/proc/x/e.safetensors"],
        "cannot write",
    ),
    "unwritable checkpoint": (build_request("esd", "--checkpoint", "/proc/x/c"), "cannot write /proc/x/c"),
    "unwritable store": (build_request("esd", "--store", "/proc/x"), "cannot write in /proc/x"),
    "limit without a plan": (build_request("uce", "--max-memory", "8GB"), "uce is closed form: omit --max-memory"),
    "setting found in the terms": (build_request("eap", "--temperature", "0"), "temperature"),
    "setting found in the update": (build_request("p-esd", "--tau", "0"), "tau are above 0"),
    "no prompt": (["draw", "--model", "{model}", "--out", "{tmp}/d"], "no prompt"),
    "draw nowhere": (["draw", "--model", "{model}", "--prompt", "a cat", "--out", "/proc/x"], "cannot write"),
    "no edit": (["draw", "--model", "{model}", "--prompt", "a", "--edit", "{tmp}/no", "--out", "{tmp}/d"], "no file"),
    "suite": (
        ["evaluate", "--model", "{model}", "--edit", "{edit}", "--suite", "glyph-objects", "--out", "{tmp}/o"],
        "did you mean 'glyphs-objects'",
    ),
    "world": (
        ["evaluate", "--model", "{tmp}", "--edit", "{edit}", "--suite", "glyphs-objects", "--out", "{tmp}/o"],
        "no world.json",
    ),
    "report": (["report", "{tmp}", "--out", "{tmp}/r.html"], "no report.json"),
    "export": (["export", "--model", "{model}", "--edit", "{edit}", "--out", "{tmp}"], "exists already"),
    "negative seed": (build_drawing("--seed", "-1"), "a seed is a whole number from 0 to 9223372036854775807; got -1"),
    "huge seed": (build_drawing("--seed", "99999999999999999999"), "a seed is a whole number from 0 to"),
    "last seed": (build_drawing("--seed", f"{2**63 - 1}", "--count", "2"), f"got {2**63}"),
    "negative guidance": (build_drawing("--guidance", "-1"), "guidance must be a number of at least 0, got -1"),
    "no guidance": (build_drawing("--guidance", "nan"), "guidance must be a number of at least 0, got nan"),
    "too many steps": (build_drawing("--steps", "100000"), "steps=100000 is more than the scheduler's 1000 timesteps"),
    "empty out": (["draw", "--model", "{model}", "--prompt", "a cat", "--out", ""], "--out is empty; give a path"),
    "empty out, joined": (["draw", "--model", "{model}", "--prompt", "a", "--out="], "--out is empty; give a path"),
    "empty model": (["draw", "--model", "", "--prompt", "a cat", "--out", "{tmp}/d"], "the model's name is empty"),
    "folder as edit": (build_drawing("--edit", "{model}"), "is a folder; name a file in it"),
    "edit as model": (["draw", "--model", "{edit}", "--prompt", "a", "--out", "{tmp}/d"], "is an edit and no model"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_clear_message_and_exit_2(
    case: str,
    model: str,
    edit: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("efface.cli.erase.check_target", lambda *_: pytest.fail("pictures were drawn"))
    args, says = BAD[case]
    assert main([a.format(model=model, edit=edit, tmp=tmp_path, out=tmp_path / "e.safetensors") for a in args]) == 2
    err = capsys.readouterr().err
    assert says in err and err.splitlines()[-1].startswith("error: ") and "Traceback" not in err
    assert not any(p.suffix in (".safetensors", ".html") for p in tmp_path.rglob("*"))


def test_a_cut_edit_and_one_of_another_base_are_refused(
    model: str, edit: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(edit.read_bytes()[:-10])
    other = write_bundle(tmp_path / "other") / "model"
    weights = next((other / "unet").glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-8] + b"\x00\x00\x80?\x00\x00\x80?")
    for args in (["--edit", str(cut), "--model", model], ["--edit", str(edit), "--model", str(other)]):
        assert main(["draw", *args, "--prompt", "a cat", "--out", str(tmp_path / "d")]) == 2
        assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")


def test_unknown_flags_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["erase", "esd", "--model", "x", "--target", "cat", "--out", "y", "--stepz", "3"])
    assert stop.value.code == 2


def test_numbers_that_leave_the_numbers_exit_1_and_keep_the_last_good_state(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.safetensors"
    args = ["--target", "cat", "--out", str(out), *TINY, "--lr", "1e30", "--steps", "20"]
    assert main(["erase", "esd", "--model", model, *args]) == 1
    assert "last good state" in capsys.readouterr().err
    assert not out.exists() and (tmp_path / "e.last-good.safetensors").is_file()


def test_the_demo_ends_with_three_rates_and_a_report(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = {"steps": 2, "draw_steps": 2, "paths": 2, "source": "frozen", "centres": 2, "k_closest": 3}
    few = Defaults(steps=2, guidance=2.0, methods={"surgical": small})
    monkeypatch.setattr("efface.models.adapters.sd.Defaults", lambda: few)
    for target in ("cat", "cat", "flat"):
        out = tmp_path / "demo"
        assert main(["demo", "--model", model, "--target", target, "--pictures", "4", "--out", str(out)]) == 0
        told = capsys.readouterr()
        lines = told.out.splitlines()
        assert lines[-1] == str(out / "report.html") and (out / "report.html").is_file()
        assert len([line for line in lines if line.startswith(("erased", "kept"))]) == 3
        assert "drawing the base: 12 of 12" in told.err


def test_progress_without_a_terminal_is_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as on_progress:
        for i in (1, 2, 3):
            on_progress("drawing", i, 3)
    assert capsys.readouterr().err.splitlines() == ["drawing: 1 of 3", "drawing: 3 of 3"]


def test_memory_that_ran_out_is_told_with_the_flags_that_take_less(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the command: torch's own text speaks of its allocator's settings."""
    said = "CUDA out of memory. Tried to allocate 2.00 GiB. See documentation for Memory Management"

    def overflow(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError(said)

    monkeypatch.setattr("efface.load", overflow)
    assert main(["draw", "--model", "glyphs", "--prompt", "a cat", "--out", "out/never"]) == 1
    told = capsys.readouterr().err
    assert "memory ran out: CUDA out of memory" in told and "--offload take less" in told
    assert "Memory Management" not in told
    assert "=True" not in told, "flags, not the library's arguments"
    assert "--micro-batch 1" in str(explain_to_command("erase", torch.OutOfMemoryError(said)))
    assert explain_to_command("erase", other := RuntimeError("else")) is other
