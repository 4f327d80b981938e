"""What `efface list` prints, which takes no torch."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def run(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "efface", *args], capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    "args", [["--help"], ["list", "methods"], ["list", "scorers", "--json"], ["list", "suites"], ["list", "models"]]
)
def test_help_and_lists_import_no_torch(args: list[str]) -> None:
    code = (
        "import sys; from efface.cli.app import main; code = main(sys.argv[1:]); "
        "bad = {'torch', 'transformers', 'diffusers', 'pyarrow', 'pydantic'} & set(sys.modules); "
        "print(bad, file=sys.stderr); sys.exit(code or bool(bad))"
    )
    done = subprocess.run([sys.executable, "-c", code, *args], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_lists_are_json_on_demand() -> None:
    names = {
        w: [r["name"] for r in json.loads(run("list", w, "--json").stdout)] for w in ("methods", "suites", "scorers")
    }
    assert {"eap", "esd"} <= set(names["methods"])
    assert {"glyphs-classes", "glyphs-objects", "glyphs-styles", "glyphs-unsafe"} <= set(names["suites"])
    assert {"background", "classifier", "clip"} <= set(names["scorers"])


def test_what_models_open_is_listed() -> None:
    rows = {r["name"]: r["about"] for r in json.loads(run("list", "models", "--json").stdout)}
    assert {"glyphs", "FOLDER or HUB-ID", "FILE.safetensors@FOLDER"} <= set(rows)
    assert "XL" in rows["FOLDER or HUB-ID"] and "DDPMPipeline" in rows["FOLDER with classes.json"]
