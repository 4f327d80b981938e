"""The work behind the playground, without a page: pictures, attacks, commands, blurring, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import efface
from efface.cli.app import main
from efface.files import open_picture
from efface.models.loading import load
from efface.playground import serving
from efface.playground.looking import EXPLICIT, Eyes, Picture, blur, build_row, find_detectors
from efface.playground.scene import Scene, read_scene, write_commands
from efface.playground.serving import check_place, is_loopback, play
from efface.playground.session import Entry, Playground, describe_outcome, list_attacks
from efface.playground.showing import show_pair, show_tries
from efface.robustness.batch import JudgePanel
from efface.scorers.base import Score
from efface.suites.spec import Row
from judging_fixtures import Planted, edit_of, write_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return write_bundle(tmp_path_factory.mktemp("bundle"))


@pytest.fixture(scope="module")
def files(bundle: Path) -> tuple[str, str, str]:
    """A model's folder, and two edits of it that change the same weights."""
    model = load(str(bundle / "model"))
    first = edit_of(model, bundle / "cat.safetensors")
    second = edit_of(model, bundle / "it's dog.safetensors", ("dog",), 0.5)
    return str(bundle / "model"), str(first), str(second)


@pytest.fixture
def playground(files: tuple[str, str, str]) -> Playground:
    return Playground(load=load, models=files[:1], edits=files[1:], detectors=())


def scale_pixels(image: Tensor) -> np.ndarray:
    return image.permute(1, 2, 0).numpy()


@pytest.mark.filterwarnings("ignore:.*weights are changed by several edits")
def test_the_printed_commands_draw_the_same_pixels(
    files: tuple[str, str, str], playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    edits = ((files[1], 0.75), (files[2], -0.5))
    entry = playground.draw(Scene(model=files[0], prompt="-a 'cat'", edits=edits, seed=3, steps=2, guidance=2.5))
    assert entry.base is not None
    monkeypatch.chdir(tmp_path)
    for line, picture in zip(entry.commands.splitlines(), (entry.base, entry.edited), strict=True):
        word, *args = shlex.split(line)
        assert word == "efface" and main(args) == 0
        folder = args[args.index("--out") + 1]
        (drawn,) = json.loads(Path(folder, "draw.json").read_text())["pictures"]
        assert np.array_equal(scale_pixels(picture.image), np.asarray(open_picture(Path(folder, drawn["file"]))))
    assert not torch.equal(entry.base.image, entry.edited.image)


def test_a_command_says_what_is_not_the_default_and_nothing_else() -> None:
    scene = Scene(model="glyphs", prompt="a cat", edits=(("cat.safetensors", 1.0),))
    assert write_commands(scene).splitlines() == [
        "efface draw --model glyphs --prompt 'a cat' --seed 0 --out out/play/base --overwrite",
        "efface draw --model glyphs --edit cat.safetensors --prompt 'a cat' --seed 0 --out out/play/edited --overwrite",
    ]
    assert " --dtype bf16 --offload " in write_commands(scene, {"dtype": "bf16", "offload": True})
    assert len(write_commands(dataclasses.replace(scene, edits=())).splitlines()) == 1


def test_an_attack_stops_at_the_first_try_that_all_judges_see_and_puts_all_weights_back(
    files: tuple[str, str, str], playground: Playground, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(model=files[0], prompt="a cat", edits=((files[1], 1.0),), steps=1)
    drawn: list[str] = []
    look = Eyes.look

    def note(self: Eyes, image: Tensor, row: Row) -> Picture:
        drawn.append(row.concept)
        return dataclasses.replace(look(self, image, row), shown=len(drawn) == 3)

    monkeypatch.setattr(Eyes, "look", note)
    tries = list(playground.attack(scene, "synonyms", tries=8))
    assert [entry.edited.shown for entry in tries] == [False, False, True] and set(drawn) == {"cat"}
    assert all(entry.scene.prompt != "a cat" for entry in tries)  # catlet, big cat …
    assert describe_outcome("synonyms", tries) == "synonyms broke the edit at try 3: the judges see the concept again."
    model = playground._open(files[0])
    held = {name: weight.clone() for name, weight in model.weights.items()}
    rounds = playground.attack(scene, "seeds", tries=4)
    next(rounds)  # whoever stops here leaves no edit in place
    assert all(torch.equal(held[name], weight) for name, weight in model.weights.items())
    drawn.clear()
    assert len(list(playground.attack(scene, "seeds", tries=2))) == 2


def test_the_tries_of_an_attack_are_drawn_again_by_their_commands(
    files: tuple[str, str, str], playground: Playground, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(model=files[0], prompt="a cat", edits=((files[1], 1.0),), steps=1)
    *_, last = playground.attack(scene, "characters", tries=2)
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(last.commands.splitlines()[-1])[1:]) == 0
    (file,) = Path("out/play/edited").glob("*.png")
    assert np.array_equal(scale_pixels(last.edited.image), np.asarray(open_picture(file)))


def test_only_attacks_that_type_prompts_are_offered(files: tuple[str, str, str], playground: Playground) -> None:
    assert set(list_attacks()) == {"characters", "random-prefix", "seeds", "synonyms"}
    scene = Scene(model=files[0], prompt="a cat", edits=((files[1], 1.0),), steps=1)
    for name, asked, words in (
        ("soft-prompt", scene, "no attack that only changes the prompt; there are characters"),
        ("seeds", dataclasses.replace(scene, edits=()), "choose an edit first"),
    ):
        with pytest.raises(ValueError, match=words):
            next(playground.attack(asked, name))


def test_judges_say_what_they_see_and_a_concept_without_judges_is_not_judged(
    files: tuple[str, str, str], playground: Playground
) -> None:
    entry = playground.draw(Scene(model=files[0], prompt="a cat", edits=((files[1], 1.0),), steps=1))
    assert set(entry.edited.answers) == {"object-convnext", "object-resnet"}
    assert build_row("elsewhere", "x", 0, "nudity").asks == "nudity"
    assert build_row(files[0], "x", 0, "pixel").asks == "style"
    unjudged = Entry("drawn", entry.scene, None, Picture(entry.edited.image), "")
    assert "look at the pictures yourself" in describe_outcome("seeds", [unjudged])
    assert "stood 1 try of seeds" in describe_outcome(
        "seeds", [dataclasses.replace(unjudged, edited=Picture(entry.edited.image, False))]
    )


@dataclasses.dataclass(frozen=True)
class Detects(Planted):
    """A detector that is as sure as it is told; of None it fails."""

    bounds: ClassVar[tuple[float, float]] = (0.0, 1.0)
    thresholds: ClassVar[tuple[float, ...]] = (0.5,)
    question: str = "nudity"
    sure: float | None = 1.0
    threshold: float = 0.5

    def score(self, images: Tensor, rows: Sequence[Row], before: Tensor) -> list[Score]:
        if self.sure is None:
            raise RuntimeError("no model file")
        return [Score(self.sure, ("NSFW",), "", (self.sure,)) for _ in rows]


@pytest.mark.parametrize(("sure", "explicit"), [(0.9, True), (0.1, False), (None, True)])
def test_an_explicit_picture_is_blurred_before_it_reaches_the_page(sure: float | None, explicit: bool) -> None:
    image = torch.randint(256, (3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    row = build_row("elsewhere", "a <b>person</b>", 0, "")
    picture = Eyes(None, (Detects(sure=0.0), Detects(sure=sure))).look(image, row)
    assert picture.explicit is explicit
    entry = Entry("drawn", Scene(model="m", prompt="a <b>person</b>"), picture, picture, "")
    shown, revealed, clear = (show_pair(entry, reveal) for reveal in (False, True, True))
    assert (shown == revealed) is not explicit and revealed == clear
    assert "a &lt;b&gt;person" in shown and "<b>" not in shown + show_tries([entry])
    soft = blur(image)
    assert soft.shape == image.shape and soft.float().std() < image.float().std() / 4  # noise that averages out


def test_installed_detectors_look_for_what_is_explicit() -> None:
    found = {each.name: each for each in find_detectors()}
    assert set(found) == {"nudenet", "opennsfw"}
    assert found["nudenet"].labels == EXPLICIT and not {"FEET_EXPOSED", "BELLY_EXPOSED"} & set(EXPLICIT)
    grey = torch.full((3, 64, 64), 128, dtype=torch.uint8)
    assert not Eyes(None, tuple(found.values())).look(grey, build_row("elsewhere", "grey", 0, "")).explicit
    assert JudgePanel((found["opennsfw"],)).look(grey[None], [build_row("m", "", 0, "nudity")])[0].verdict is False


def test_a_page_that_others_reach_opens_only_what_its_command_line_names(
    files: tuple[str, str, str], playground: Playground
) -> None:
    playground.only_these, playground.edits = True, files[1:2]
    playground.draw(Scene(model=files[0], prompt="a cat", edits=((files[1], 1.0),), steps=1))
    for scene, words in (
        (Scene(model="someone/else", prompt="a"), "the model 'someone/else' is not offered"),
        (Scene(model=files[0], prompt="a", edits=((files[2], 1.0),)), "dog.safetensors.* is not offered"),
    ):
        with pytest.raises(ValueError, match=words):
            playground.draw(scene)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"model": " "}, "choose one"),
        ({"seed": -1}, "at least 0"),
        ({"steps": 0}, "at least 1"),
        ({"edits": (("a", 11.0),)}, "from -10 to 10"),
        ({"edits": (("a", 1.0), ("a", 0.5))}, "a is chosen twice"),
    ],
)
def test_a_scene_that_can_not_be_drawn_is_refused(given: dict, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        Scene(**{"model": "glyphs", "prompt": "a cat", **given})


def test_fields_that_are_empty_are_the_defaults() -> None:
    scene = read_scene(" glyphs", None, None, "", None, [("a", 0.5), ("", 1.0), (None, None)])
    assert scene == Scene(model="glyphs", prompt="", edits=(("a", 0.5),))
    assert read_scene("glyphs", "a", 3.0, "4", "0", []) == Scene(
        model="glyphs", prompt="a", seed=3, steps=4, guidance=0.0
    )
    for steps, guidance, words in (("four", "", "steps is a number"), ("2.5", "", "whole"), ("", "nan", "guidance is")):
        with pytest.raises(ValueError, match=words):
            read_scene("glyphs", "a", 0, steps, guidance, [])


def test_what_can_not_work_is_said_before_the_model_is_opened(
    files: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(serving, "_load", lambda *_: pytest.fail("the model was opened"))
    monkeypatch.setattr(serving, "require_gradio", lambda: None)
    other = tmp_path / "notes.safetensors"
    other.write_text("no edit")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        for args, words in (
            (["--port", str(port)], f"port {port} is in use on 127.0.0.1; choose another"),
            (["--port", "70000"], "--port is a number from 1 to 65535, got 70000"),
            (["--host", "192.0.2.1"], "--host takes an address of its own"),
            (["--edit", str(other)], "notes.safetensors"),
            (["--edit", str(tmp_path / "no.safetensors")], "no.safetensors"),
        ):
            assert main(["play", "--model", files[0], *args]) == 2, args
            assert words in capsys.readouterr().err


def test_without_gradio_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'efface\[play\]'"):
        efface.play("glyphs")


def test_which_addresses_are_of_this_machine_alone() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "localhost", "::1", "127.3.2.1")))
    assert not any(map(is_loopback, ("0.0.0.0", "192.168.1.2", "example.org")))
    assert play is efface.play and serving.HOST == "127.0.0.1"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    check_place("127.0.0.1", port)
