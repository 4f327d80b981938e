"""Every command and every method explains itself without torch, from what the source of its flags says."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import pytest

from efface.catalog import METHODS
from efface.cli.app import COMMANDS, main
from efface.source import Unreadable, list_classes, read_fields

CODE = """
import contextlib, io, sys
from efface.cli.app import main
for args in {commands!r}:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        try:
            main([*args, "--help"])
        except SystemExit as error:
            assert not error.code, (args, error.code)
    assert "--" in said.getvalue(), args
    assert "torch" not in sys.modules, args
"""


def test_no_help_imports_torch() -> None:
    commands = [[name] for name in COMMANDS] + [["erase", name] for name in METHODS.list_names()]
    code = CODE.format(commands=commands)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_flag_that_loading_has_too_is_named_after_the_method(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["erase", "ac", "--help"])
    said = capsys.readouterr().out
    assert "--ac-variant {model,noise}" in said and "--variant STR" in said


@pytest.mark.parametrize("name", METHODS.list_names())
def test_the_fields_in_the_source_are_those_of_the_class(name: str) -> None:
    kind = METHODS.get(name)
    read, hints = read_fields(METHODS.find_entry(name).written), get_type_hints(kind, include_extras=True)
    assert [field.name for field in read] == [field.name for field in dataclasses.fields(kind)]
    for own, field in zip(read, dataclasses.fields(kind), strict=True):
        assert (own.type, own.default) == (hints[field.name], field.default), field.name
        assert own.own == (field.name in vars(kind).get("__annotations__", {}))


def test_a_field_whose_default_the_source_does_not_tell_is_left_to_its_class(tmp_path: Path) -> None:
    file = tmp_path / "away.py"
    file.write_text("import nowhere\n\nclass Away:\n    share: float = nowhere.SHARE\n")
    (own,) = list_classes(file, "away")
    with pytest.raises(Unreadable, match="nowhere"):
        read_fields(own)
