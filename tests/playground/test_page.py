"""The playground in a browser: draw, attack, commands, errors, and no request off this machine."""

from __future__ import annotations

import base64
import io
import json
import shlex
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image

from efface.cli.app import main
from efface.files import open_picture
from efface.models.loading import load
from efface.playground.serving import serve
from efface.playground.session import Playground
from judging_fixtures import edit_of, write_bundle

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of gradio and what it brings
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]
WAIT = 60_000
"""Milliseconds within which the page answers: many times what a machine that does nothing else needs."""

COLOUR = "button => getComputedStyle(button).backgroundColor"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_visitor_draws_attacks_and_draws_the_same_by_the_commands(
    chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: the page was not tried")
    called: list[object] = []
    connect = socket.socket.connect

    def note(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            called.append(address)
            raise OSError(f"the test has no network: {address}")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", note)
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    bundle = write_bundle(tmp_path / "bundle")
    model = str(bundle / "model")
    edit = edit_of(load(model), tmp_path / "cat.safetensors")
    playground = Playground(load=load, models=(model,), edits=(edit.name,), detectors=())
    requests: list[str] = []
    problems: list[str] = []
    with serve(playground, port=free_port()) as address:
        tab = chromium.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(WAIT)
        tab.on("request", lambda r: requests.append(r.url))
        tab.on("pageerror", lambda e: problems.append(str(e)))
        tab.on("console", lambda m: problems.append(m.text) if m.type == "error" else None)
        tab.goto(address)
        draw_and_compare(tab)
        attack(tab)
        be_refused(tab)
        tab.close()
    assert problems == [] and called == []
    assert [f for f in (tmp_path / "gradio").rglob("*") if f.is_file() and f.stat().st_size] == []  # nothing is kept
    own = {"http", "https", "ws", "wss"}
    assert {u.hostname for url in requests if (u := urlsplit(url)).scheme in own} == {"127.0.0.1"}


def test_axe_finds_nothing_wrong_in_the_page(chromium: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("gradio", reason="gradio is not installed: the page was not tried")
    from axe_playwright_python.sync_playwright import Axe

    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "gradio"))
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = str(write_bundle(tmp_path / "bundle") / "model")
    edit = edit_of(load(model), tmp_path / "cat.safetensors")
    playground = Playground(load=load, models=(model,), edits=(edit.name,), detectors=())
    with serve(playground, port=free_port()) as address:
        for width, scheme in ((1400, "light"), (400, "dark")):
            tab = chromium.new_page(viewport={"width": width, "height": 1000}, color_scheme=scheme)
            tab.set_default_timeout(WAIT)
            tab.goto(address)
            tab.fill("#steps textarea, #steps input", "1")
            tab.click("#draw")
            tab.wait_for_selector(".efface-pair img")
            tab.wait_for_function("/1\\. drawn/.test(document.querySelector('.efface-tries').innerText)")
            for _ in range(20):  # fields are pale for a moment after the picture has come
                found = [(v["id"], v["nodes"][0]["html"][:90]) for v in Axe().run(tab).response["violations"]]
                if not found:
                    break
                tab.wait_for_timeout(500)
            assert found == [], (width, scheme)
            assert tab.evaluate("document.documentElement.scrollWidth") <= width
            assert len({tab.eval_on_selector(each, COLOUR) for each in ("#break", "#stop", "#another")}) == 3
            tab.close()


def draw_and_compare(tab: Any) -> None:
    """Type a prompt, draw, see two pictures; the commands under them draw the same pixels."""
    tab.fill("#prompt textarea, #prompt input", "a <b>cat</b>")
    tab.fill("#steps textarea, #steps input", "2")
    tab.fill("#seed input", "5")
    tab.fill("#strength-1 input[type=number]", "0.5")
    tab.keyboard.press("Tab")
    tab.click("#draw")
    tab.wait_for_selector(".efface-pair img")
    images = tab.eval_on_selector_all(".efface-pair img", "found => found.map(each => each.src)")
    shown = [np.asarray(Image.open(io.BytesIO(base64.b64decode(src.partition(",")[2])))) for src in images]
    lines = read_commands(tab)
    assert len(shown) == len(lines) == 2 and not np.array_equal(*shown)
    assert "--edit cat.safetensors --strength 0.5" in lines[1]
    for line, picture in zip(lines, shown, strict=True):
        words = shlex.split(line)
        assert main(words[1:]) == 0
        folder = Path(words[words.index("--out") + 1])
        (drawn,) = json.loads((folder / "draw.json").read_text())["pictures"]
        assert np.array_equal(np.asarray(open_picture(folder / drawn["file"])), picture)
    assert tab.query_selector(".efface-pair b") is None


def attack(tab: Any) -> None:
    """Try to break it; the tries stand in the history, and one is taken up again."""
    tab.fill("#prompt textarea, #prompt input", "a cat")
    tab.fill("#count input[type=number]", "2")
    tab.keyboard.press("Tab")
    tab.click("#break")
    tab.wait_for_function("/broke the edit|stood 2 tries/.test(document.querySelector('#outcome').innerText)")
    tries = tab.inner_text(".efface-tries")
    assert "1. drawn" in tries and "2. synonyms" in tries
    tab.click("#again input")
    tab.click("[role=option]:has-text('1. drawn')")
    tab.wait_for_function("document.querySelector('#prompt textarea, #prompt input').value.includes('<b>cat</b>')")


def be_refused(tab: Any) -> None:
    """A file that is no edit is named in a plain sentence."""
    Path("notes.safetensors").write_text("no edit")
    tab.fill("#edit-1 input", "notes.safetensors")
    tab.keyboard.press("Enter")
    tab.click("#draw")
    tab.wait_for_function("document.body.innerText.includes('notes.safetensors is')")


def read_commands(tab: Any) -> list[str]:
    lines = tab.eval_on_selector_all("#commands .cm-line", "found => found.map(each => each.innerText)")
    return [line for line in lines if line.strip()]
