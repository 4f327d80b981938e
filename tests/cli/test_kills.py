"""Commands that write are killed at a random moment, and end when they are run again as if nothing had happened.

`make kill-test` does this to every command, many times; here are a few of the quick ones.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from efface.cli.app import main as efface
from judging_fixtures import write_bundle
from kills import call, kill, list_commands, quick_models


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with quick_models():
        yield write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.mark.parametrize("name", ["erase", "draw", "lora", "attack"])
def test_a_killed_command_leaves_nothing_half_written_and_a_rerun_ends_the_same(
    name: str, bundle: Path, tmp_path: Path
) -> None:
    edit = tmp_path / "edit"
    edit.mkdir()
    commands = list_commands(str(bundle / "model"), str(edit / "x.safetensors"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert call(commands["erase"], edit) == 0
        assert kill(commands, commands[name], tmp_path, kills=1) == []


def test_a_place_that_cannot_be_written_is_said_before_anything_else(capsys: pytest.CaptureFixture[str]) -> None:
    assert efface(["erase", "eap", "--model", "glyphs", "--target", "cat", "--out", "/proc/x.safetensors"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cannot write /proc/x.safetensors: ") and said.count("\n") == 1
