"""Purification: each picture by its own prompt, only pictures that showed what is asked for, and a sweep's cell."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

import efface
from efface.concept import Erasure
from efface.diagnostics.purification import PurifyConfig, measure_purification, purify_pictures
from efface.edits.edit import Edit
from efface.edits.provenance import describe_run
from efface.files import open_picture
from efface.models.adapters.sd import StableDiffusion
from efface.scorers.base import Score
from efface.scorers.ssim import Ssim
from efface.suites.spec import Row
from efface.sweeps.grid import Purifying
from judging_fixtures import Planted
from small_sweep import TEXT, write

HOW = PurifyConfig(steps=4, guidance=2.0, refine=1)
PROMPTS = ("a cat", "a dog", "a cat", "a rose")


@dataclass(frozen=True)
class Answering(Planted):
    """A judge that gives the same answer to every picture."""

    word: str = ""

    def score(self, images: torch.Tensor, rows: Sequence[Row], before: torch.Tensor) -> list[Score]:
        return [Score(1.0, (self.word,))] * len(images)


def build_edit(model: StableDiffusion, scale: float) -> Edit:
    values = {name: scale * w.detach() for name, w in model.weights.items() if ".attn2.to_v." in name}
    return Edit(values, describe_run(model, Erasure(("cat",)), "test", {}))


def build_row(i: int, role: str = "erase") -> Row:
    return Row(str(i), PROMPTS[i], i, "target", role, "object", "cat", ("cat",), thing="cat")  # type: ignore[arg-type]


@pytest.fixture
def pictures() -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(1, 256, (4, 3, 16, 16), generator=generator, dtype=torch.uint8)


def test_every_picture_is_drawn_again_by_its_own_prompt(eps_model: StableDiffusion, pictures: torch.Tensor) -> None:
    edit = build_edit(eps_model, -4)
    together = purify_pictures(eps_model, edit, pictures, PROMPTS, HOW)
    assert not torch.equal(together["base"], together["after"])
    for i, prompt in enumerate(PROMPTS):
        alone = purify_pictures(eps_model, edit, pictures[i : i + 1], [prompt], HOW)
        for kind, made in alone.items():
            assert (made[0].int() - together[kind][i].int()).abs().max() <= 1, (prompt, kind)
    unchanged = purify_pictures(eps_model, build_edit(eps_model, 1), pictures, ["a cat"], HOW)
    assert torch.equal(unchanged["base"], unchanged["after"]), "an edit that changes nothing"


def test_pictures_that_do_not_show_what_is_asked_for_are_left_out(
    eps_model: StableDiffusion, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures[1, :, 0, 0] = 0  # by which the judge does not see it
    monkeypatch.setattr(eps_model, "images", lambda *_, **__: pictures)
    edit, rows = build_edit(eps_model, -4), [build_row(i) for i in range(4)]
    found = measure_purification(eps_model, edit, rows, [Planted()], HOW, {"steps": 2, "guidance": None})
    left = [0, 2, 3]
    made = purify_pictures(eps_model, edit, pictures[left], [PROMPTS[i] for i in left], HOW)
    assert torch.equal(found.pictures["before"], pictures[left])
    for kind in ("base", "after"):
        assert torch.equal(found.pictures[kind], made[kind])
        assert list(found.shown[kind]) == [bool(picture[:, 0, 0].any()) for picture in made[kind]]
        assert list(found.ssim[kind]) == [s.value for s in Ssim().score(made[kind], rows[:3], pictures[left])]


def test_of_two_judges_the_one_counts_that_is_less_favourable_to_the_edit(
    eps_model: StableDiffusion, pictures: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(eps_model, "images", lambda *_, **__: pictures)
    sees, blind = (Answering(name=name, word=word) for name, word in (("sees", "cat"), ("blind", "zebra")))
    shown = {}
    for role in ("erase", "keep"):
        rows = [build_row(i, role) for i in range(4)]
        found = measure_purification(eps_model, build_edit(eps_model, -4), rows, [sees, blind], HOW, {"steps": 2})
        shown[role] = list(found.shown["after"])
    assert shown == {"erase": [True] * 4, "keep": []}, "no kept picture was seen by both judges before either"


def test_the_grid_purifies_as_the_command_does() -> None:
    own = inspect.signature(efface.purify).parameters
    assert {name: own[name].default for name in ("steps", "guidance", "refine")} == Purifying().model_dump(
        exclude={"sizes"}
    )


def test_a_sweep_measures_purification_beside_drawing_again_without_the_edit(tmp_path: Path) -> None:
    purified = "[purify]\nsizes = { target = 2, neighbour = 1 }\nsteps = 2\n"
    text = TEXT.replace('"cat", "dog", "rose"', '"cat"') + purified
    text = text.replace("[drawing]\nsteps = 2", "[drawing]\nsteps = 12")  # by which the base draws a cat
    summary = efface.sweep(write(tmp_path, text), tmp_path / "out")
    assert (summary.cells, summary.failed) == (3, ())
    lines = [line.split(",") for line in summary.table.read_text().splitlines()]
    found = {f"{line[8]}/{line[9]}": dict(zip(lines[0], line, strict=True)) for line in lines if "@purify" in line[8]}
    assert set(found) >= {"esr@purify/target", "ssim@purify/target"}
    target = found["ssim@purify/target"]
    assert 0 < float(target["base"]) <= 1 and int(target["n"]) <= 2
    (folder,) = (tmp_path / "out/purify").iterdir()
    width, height = open_picture(folder / "target.png").size
    assert width == height // 3 * int(target["n"]), "a row before, one drawn again, and one with the edit"


def test_groups_to_purify_that_the_suite_lacks_are_refused_before_anything_is_erased(tmp_path: Path) -> None:
    text = TEXT + "[purify]\nsizes = { targets = 2 }\n"
    with pytest.raises(ValueError, match="has no group 'targets'"):
        efface.sweep(write(tmp_path, text), tmp_path / "out")
    assert not (tmp_path / "out").exists()
