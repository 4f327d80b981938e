"""What the command line says of itself: help, what is missing, completion, what is kept, and true progress."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from dataclasses import MISSING
from pathlib import Path

import pytest

from efface.api.examining import EXTRAS, examine, list_requirements
from efface.cli.app import COMMANDS, main
from efface.cli.completion import SCRIPTS, list_words
from efface.cli.console import show_progress
from efface.evaluation.images import draw_images


def read_help(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    """What a command with --help prints."""
    with pytest.raises(SystemExit):
        main([*args])
    return capsys.readouterr().out


def test_the_overview_fits_eighty_columns_and_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if line[:2] == "  " and line[2] != " "] == list(COMMANDS)


def test_version_and_help_are_commands(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("version", "--version"):
        assert main([word]) == 0
        assert capsys.readouterr().out.startswith("efface ")
    assert main(["help"]) == 0
    assert "usage: efface COMMAND" in capsys.readouterr().out
    assert "Example:" in read_help(capsys, "help", "evaluate")


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_and_marks_what_it_requires(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = read_help(capsys, name, "--help")
    assert f"efface {name}" in text[text.index("Example:") :]
    needed = [f for f in dataclasses.fields(COMMANDS[name]) if MISSING is f.default and MISSING is f.default_factory]
    for flag in (f"--{f.name}" for f in needed):
        if flag in ("--model", "--edit", "--out") and flag in list_words([name]):
            box = re.split(rf"^\W*(?={flag} )", text, flags=re.MULTILINE)[1]
            assert "(required)" in box[: box.index(" --", 1)], flag


@pytest.mark.parametrize("name", ["evaluate", "attack", "audit", "draw"])
def test_everyday_flags_come_before_those_of_drawing_and_loading(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    text = read_help(capsys, name, "--help")
    order = [text.index(words) for words in ("--model", "--out", "drawing options", "--strength", "loading options")]
    assert order == sorted(order)


def test_a_methods_own_flags_come_before_those_of_training_memory_and_loading(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = read_help(capsys, "erase", "eap", "--help")
    order = ["request options", "output options", "method options", "--eta", "training options"]
    at = [text.index(words) for words in (*order, "memory options", "loading options")]
    assert at == sorted(at)
    # A switch that is on by itself says so of the word that its text speaks of.
    hard = " ".join(text[text.index("--hard, --no-hard") :].split())[:260]
    assert "Choose one candidate" in hard and "(default: True)" in hard.replace("│ │ ", "")


def test_the_doctor_says_what_is_there_and_what_a_task_would_miss(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"efface", "python", "torch", "works on", "free disk here", "bundled models"} <= set(found["facts"])
    assert found["tasks"][0]["missing"] == []
    monkeypatch.setattr("efface.api.examining.is_installed", lambda name: name not in ("nudenet", "pyarrow"))
    assert main(["doctor"]) == 1
    text = capsys.readouterr().out
    assert 'it needs nudenet: pip install "efface[detect]"' in text
    assert "it needs pyarrow: pip install efface" in text
    assert not examine().works


def test_what_efface_requires_is_read_from_its_own_metadata() -> None:
    needs = list_requirements()
    assert {"torch", "diffusers", "tyro"} <= set(needs[""]) and "nudenet" in needs["detect"]
    assert set(EXTRAS) == set(needs) - {""}, "the doctor names every extra"


def test_completion_knows_commands_names_and_flags() -> None:
    assert {"erase", "help", "version"} <= set(list_words([]))
    assert "eap" in list_words(["erase"]) and "glyphs" in list_words(["erase", "eap", "--model"])
    assert {"--eta", "--target", "--out", "--steps", "--device"} <= set(list_words(["erase", "eap"]))
    assert "glyphs-objects" in list_words(["evaluate", "--suite"])
    assert "--import" in list_words(["report"]) and "--folders" not in list_words(["report"])
    assert list_words(["evaluate", "--edit"]) == []  # a file
    assert "--suite" in list_words(["evaluate", "--json"])  # takes no value
    assert list_words(["eraze"]) == []


def test_completion_imports_no_torch_and_bash_runs_it(tmp_path: Path) -> None:
    code = "import sys; from efface.cli.app import main; main(['completion', 'words', '--', 'erase', 'eap']); "
    done = subprocess.run(
        [sys.executable, "-c", code + "sys.exit('torch' in sys.modules)"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "--eta" in done.stdout
    efface = tmp_path / "efface"
    efface.write_text(f'#!/bin/sh\nexec {sys.executable} -m efface "$@"\n')
    efface.chmod(0o755)
    script = SCRIPTS["bash"] + 'COMP_WORDS=(efface evaluate --su); COMP_CWORD=2; _efface; echo "${COMPREPLY[@]}"'
    where = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=False, env=where)
    assert done.stdout.split() == ["--suite"]


def test_a_closed_pipe_is_silent() -> None:
    command = f"{sys.executable} -m efface list methods | head -1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stderr == ""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["erase", "esd"], "--checkpoint FILE"),
        (["evaluate", "--edit", __file__], "finished pictures and scores are kept in --out"),
        (["export", "--edit", __file__], "nothing was kept"),
    ],
)
def test_an_interruption_says_what_is_kept(
    args: list[str], says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    for where in ("erasing.erase", "evaluating.evaluate", "exporting.write_export"):
        monkeypatch.setattr(f"efface.api.{where}", stop)
    more = {"erase": ["--target", "cat"], "evaluate": ["--suite", "glyphs-objects"], "export": []}[args[0]]
    out = str(tmp_path / ("e.safetensors" if args[0] == "erase" else "out"))
    assert main([*args, "--model", "glyphs", *more, "--out", out]) == 130
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_before_does_not_count_in_the_time_that_is_left(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 20.0])
    monkeypatch.setattr("efface.cli.console.time.monotonic", lambda: next(clock))
    with show_progress() as told:
        told("drawing", 900, 1000)  # from an earlier run
        told("drawing", 910, 1000)  # ten in twenty seconds
    assert capsys.readouterr().err.splitlines()[-1] == "drawing: 910 of 1000, about 180 s left"


def test_pictures_that_are_there_are_told_before_any_is_drawn(tmp_path: Path) -> None:
    import torch

    from efface.suites.spec import Row
    from report_fixtures import record

    class Blank:
        """Draws black pictures."""

        def images(self, prompts: list[str], *_: object, **__: object) -> torch.Tensor:
            return torch.zeros(len(prompts), 3, 8, 8, dtype=torch.uint8)

    rows = [Row(f"r/{i}", f"picture {i}", i, "target", "erase", "object", "cat", ("cat",)) for i in range(130)]
    drawing = record().drawing
    draw_images(Blank(), rows[:64], drawing, tmp_path)  # type: ignore[arg-type]
    seen: list[tuple[int, int]] = []
    draw_images(Blank(), rows, drawing, tmp_path, lambda i, n: seen.append((i, n)))  # type: ignore[arg-type]
    assert seen == [(64, 130), (128, 130), (130, 130)]


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["draw", "--model", "glyphs", "--prompt", "a cat", "--out", "{tmp}/cat.png"], "a folder is to be made"),
        (["report", "{tmp}", "--out", "{tmp}/page.pdf"], "must end in .html"),
        (["erase", "esd", "--model", "glyphs", "--target", "cat", "--out", "{tmp}/x.pt"], "end in .safetensors"),
    ],
)
def test_wrong_suffixes_are_refused_and_leave_nothing(
    args: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([a.format(tmp=tmp_path) for a in args]) == 2
    assert says in capsys.readouterr().err and list(tmp_path.iterdir()) == []


def test_an_edit_that_is_there_is_not_overwritten_without_a_word(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "e.safetensors"
    out.write_text("mine")
    assert main(["erase", "esd", "--model", "glyphs", "--target", "cat", "--out", str(out)]) == 2
    assert "--overwrite" in capsys.readouterr().err and out.read_text() == "mine"


def test_a_stage_that_comes_again_and_again_is_not_told_each_time(capsys: pytest.CaptureFixture[str]) -> None:
    with show_progress() as told:
        for _ in range(5):
            told("drawing", 0, 8)
            told("drawing", 8, 8)
    assert capsys.readouterr().err.splitlines() == ["drawing: 0 of 8", "drawing: 8 of 8"]


def test_every_command_that_opens_a_model_on_a_device_has_deterministic(capsys: pytest.CaptureFixture[str]) -> None:
    found = {}
    for name in COMMANDS:
        with pytest.raises(SystemExit):
            main([*(("erase", "esd") if name == "erase" else (name,)), "--help"])
        said = capsys.readouterr().out
        if "--compute " in said:
            found[name] = "--deterministic" in said
    assert {"erase", "draw", "evaluate", "attack", "audit", "neurons", "takedown"} <= set(found)
    assert all(found.values()), found


def test_every_command_explains_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    for name in COMMANDS:
        with pytest.raises(SystemExit) as stop:
            main([name, "--help"])
        assert stop.value.code == 0
        assert "--json" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["erase", "eap", "--help"])
    out = capsys.readouterr().out
    assert "--k-closest" in out and "--target" in out
