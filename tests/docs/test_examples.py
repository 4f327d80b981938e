"""Every example of the documentation runs: each Python block, and each `efface` command on few pictures and steps.

A command runs as it is written but for the flags of `SMALL`, which make it short. Commands of one page share a folder,
which holds an edit and its evaluation from the start, for pages that begin with one. `MODEL` stands for a model of the
reader's own and is a tiny random Stable Diffusion here; the CLIP of a `choice` is the one that comes with glyphs.
"""

from __future__ import annotations

import dataclasses
import functools
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from efface import methods
from efface.cli.app import main
from efface.models import loading
from efface.models.base import Model
from efface.suites.world import locate
from tiny import tiny_pipeline

ROOT = Path(__file__).parents[2]
FOLDERS = ("start", "how-to", "understand")
PAGES = ("README.md", *(str(p.relative_to(ROOT)) for f in FOLDERS for p in sorted((ROOT / "docs" / f).glob("*.md"))))
DRAWING = {"steps": "1"}
CLIP = "openai/clip-vit-large-patch14"
SMALL: dict[str, dict[str, str]] = {
    "draw": DRAWING,
    "evaluate": {"steps": "4", "per-group": "1"},
    "attack": {"attack": "seeds", "steps": "4", "rows": "2", "controls": "1", "budget": "1"},
    "audit": DRAWING | {"worst": "1", "controls": "1"},
    "export": {"pictures": "1"},
    "purify": DRAWING,
    "neurons": {"count": "2", "steps": "2", "timesteps": "2"},
}
"""By command, flags that make it short; attacks beside an evaluation draw as it does."""
FIT = {"steps": "1", "draw_steps": "2", "paths": "1", "pictures": "2", "batch": "1", "centres": "2", "k_closest": "4"}
"""The same for the fields of a method."""
SWITCHES: dict[str, list[str]] = {"takedown": ["--dry-run"]}
"""By command, switches that make it short; tests/cli/test_takedown.py has a takedown from start to end."""
FETCHED = {"i2p", "coco"}
"""Lists of prompts that are fetched from the hub: a command that names one is not run."""
CODES = {"verify": (0, 1, 3)}
"""Exit codes that a command may end with; a gate's own say what it found."""


def list_commands(text: str) -> list[list[str]]:
    """The `efface` commands of all shell blocks, without comments, each as its words."""
    blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.DOTALL)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    words = [shlex.split(line, comments=True) for line in lines]
    return [each[1:] for each in words if each[:1] == ["efface"]]


def shorten(words: list[str]) -> list[str]:
    """The command with the flags that make it short in the place of its own."""
    if words[0] == "erase":
        fields = {field.name for field in dataclasses.fields(methods.get(words[1]))}
        idle = {"pictures"} if words[1] == "compose" else set()  # only some mixes draw pictures to train on
        small = {name.replace("_", "-"): value for name, value in FIT.items() if name in fields - idle}
    else:
        small = SMALL.get(words[0], {})
    words = [*words, *(switch for switch in SWITCHES.get(words[0], ()) if switch not in words)]
    for name, value in small.items():
        if (flag := f"--{name}") in words:
            words = [w for i, w in enumerate(words) if w != flag and words[i - 1] != flag]
        words = [*words, flag, value]
    return words


@pytest.fixture(scope="module")
def opened() -> Iterator[Callable[..., Model]]:
    """`load`, but each model is read once."""
    real = loading.load

    @functools.cache
    def once(source: str) -> Model:
        return real(tiny_pipeline() if source == "MODEL" else source, "cpu")

    def load(source: Any, *_: Any, **__: Any) -> Model:
        return once(str(source)) if isinstance(source, str | Path) else real(source)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loading, "load", load)
        check = loading.check_model_name
        patch.setattr(loading, "check_model_name", lambda source: None if source == "MODEL" else check(source))
        yield load


@pytest.fixture(scope="module")
def begun(opened: Callable[..., Model], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An edit, its evaluation, and a picture."""
    folder = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["erase", "uce", "--model", "glyphs", "--target", "cat", "--out", "cat.safetensors"]) == 0
        evaluate = "evaluate --model glyphs --edit cat.safetensors --suite glyphs-objects --out out/cat"
        assert main(shorten(evaluate.split())) == 0
        Image.new("RGB", (64, 64), "white").save("cat.png")
    return folder


@pytest.mark.filterwarnings("ignore:.*prompts? exceeds? 8 tokens")  # of the tiny model that stands for MODEL
@pytest.mark.parametrize("page", PAGES)
def test_every_command_runs(
    page: str, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(shutil.copytree(begun, tmp_path / "page"))
    monkeypatch.setattr("efface.playground.serving.serve", lambda *_: nullcontext("http://127.0.0.1:7860/"))
    monkeypatch.setattr("efface.playground.serving.wait_for_the_end", lambda: None)
    written = list_commands((ROOT / page).read_text(encoding="utf-8"))
    if any(words[0] == "erase" and "cat.safetensors" in words for words in written):
        Path("cat.safetensors").unlink()
    for words in written:
        if not FETCHED.isdisjoint(words):
            continue
        code = main([word.replace(CLIP, str(locate("glyphs") / "clip")) for word in shorten(words)])
        assert code in CODES.get(words[0], (0,)), f"efface {shlex.join(words)}\n{capsys.readouterr().err}"


@pytest.mark.parametrize("page", PAGES[1:])
def test_every_python_block_runs(page: str, begun: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shutil.copytree(begun, tmp_path / "page"))
    for code in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(compile(code, page, "exec"), {})
