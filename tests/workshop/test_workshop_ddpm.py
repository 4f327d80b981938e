"""How the class-conditional model is made: its scenes, a few steps of training, and the bundle."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, UNet2DModel

from efface import suites
from efface.concept import Erasure
from efface.edits.edit import Edit
from efface.methods import build_method, find_capabilities, get, list_names
from efface.models.adapters.ddpm import open_folder
from efface.models.trajectory import Defaults
from workshop.glyphs import bundle, ddpm, loop, world
from workshop.glyphs.scenes import Batches, Composer


def stop_after(calls: int, function: Callable) -> Callable:
    """The function, which is interrupted after so many calls."""
    left = iter(range(calls))

    def counted(*args: object) -> object:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*args)

    return counted


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build folder with art: a square of its own colour for every cell."""
    folder, rng, art = tmp_path_factory.mktemp("build"), np.random.default_rng(0), {}
    tiny = world.load(ddpm.WORLD)
    for style in tiny.styles:
        for thing in tiny.things:
            art[f"{style.name}/{thing.name}"] = np.full((96, 96, 4), (*rng.integers(0, 256, 3), 255), np.uint8)
    np.savez(folder / "art.npz", **art)
    return folder


@pytest.fixture(scope="module")
def bundled(build: Path) -> Path:
    """The bundle of an untrained network of the real shape."""
    torch.manual_seed(0)
    UNet2DModel(**ddpm.CONFIG, num_class_embeds=len(ddpm.list_classes()) + 1).save_pretrained(build / "ddpm")
    bundle.write_ddpm(build, build / "bundled" / "glyphs-ddpm")
    return build / "bundled" / "glyphs-ddpm"


def test_the_development_concepts_are_among_the_classes() -> None:
    assert {"cat", "guitar", "pizza", "rocket", "rose", "car"} <= set(ddpm.list_classes())
    assert 10 <= len(ddpm.list_classes()) <= 16


def test_a_scene_is_of_one_thing_at_half_the_size(build: Path) -> None:
    tiny = world.load(ddpm.WORLD)
    composer = Composer(tiny, dict(np.load(build / "art.npz")))
    singles, rng, again = ddpm.Singles(composer), np.random.default_rng(3), np.random.default_rng(3)
    scenes = [singles(rng) for _ in range(100)]
    assert all(len(scene.things) == 1 and scene.pixels.shape == (32, 32, 3) for scene in scenes)
    assert len({(scene.things, scene.style) for scene in scenes}) > 40
    whole = composer(again)
    while len(whole.things) != 1:
        whole = composer(again)
    assert scenes[0].caption == whole.caption
    block = whole.pixels[10:12, 40:42].reshape(4, 3).astype(float).mean(axis=0)
    assert np.abs(scenes[0].pixels[5, 20] - block).max() <= 0.5
    pixels, _ = Batches(singles, 3, 5, seed=1)[2]
    assert pixels.shape == (3, 3, 32, 32)
    assert np.array_equal(pixels, Batches(singles, 3, 5, seed=1, start=2)[0][0])


def test_training_moves_every_weight_and_resumes(build: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fit, small = loop.fit, ddpm.CONFIG | {"block_out_channels": (8, 8, 8, 16), "attention_head_dim": 8}
    monkeypatch.setattr(ddpm, "CONFIG", small)
    monkeypatch.setattr(loop, "fit", lambda *args, **more: fit(*args, **more, workers=0, save_every=0.0))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder in (whole, parts):
        folder.mkdir()
        (folder / "art.npz").symlink_to(build / "art.npz")
    once = ddpm.train(whole, steps=3, batch=4)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "scale_pixels", stop_after(2, loop.scale_pixels))
        ddpm.train(parts, steps=3, batch=4)
    assert torch.load(parts / "ddpm.pt", weights_only=True)["step"] == 2
    resumed = ddpm.train(parts, steps=3, batch=4)
    assert all(torch.equal(p, q) for p, q in zip(once.parameters(), resumed.parameters(), strict=True))
    torch.manual_seed(31)
    fresh = dict(UNet2DModel(**small, num_class_embeds=len(ddpm.list_classes()) + 1).named_parameters())
    assert all(not torch.equal(p, fresh[name]) for name, p in once.named_parameters())


def test_the_bundle_opens_draws_and_is_small(bundled: Path) -> None:
    assert sum(f.stat().st_size for f in bundled.rglob("*") if f.is_file()) <= 8e6
    model = open_folder(bundled / "model", "cpu", None, "glyphs-ddpm", defaults=Defaults(2, 2.0))
    assert (model.resolution, model.space, len(model.classes)) == (32, "v", 16)
    drawn = model.images(["a cat", ""], [0, 1])
    assert drawn.shape == (2, 3, 32, 32)
    assert isinstance(DDPMPipeline.from_pretrained(bundled / "model").unet, UNet2DModel)
    facts = json.loads((bundled / "world.json").read_text())
    assert [thing["name"] for thing in facts["things"]] == list(model.classes)
    assert facts["judges"] == "glyphs"


def test_every_prompt_of_the_target_and_the_kept_things_names_its_class(bundled: Path) -> None:
    known = suites.world.load(bundled)
    groups = ["target", "synonym", "neighbour", "seen", "unseen"]
    suite = suites.build("glyphs-objects", Erasure(("cat",)), known, per_group=24, only=groups)
    model = open_folder(bundled / "model", "cpu", None, "glyphs-ddpm")
    assert {row.group for row in suite.rows} == {"target", "neighbour", "seen", "unseen"}
    assert all(model.classes[model.find_label(row.prompt)] == row.thing for row in suite.rows)


@pytest.mark.parametrize("method", [name for name in list_names() if "ddpm" in find_capabilities(name).architectures])
def test_what_it_suggests_fits_the_methods(bundled: Path, method: str) -> None:
    table = tomllib.loads((bundle.DDPM_TARGET / "defaults.toml").read_text())
    defaults = Defaults(table["draw"]["steps"], table["draw"]["guidance"], table["method"])
    model = open_folder(bundled / "model", "cpu", None, "glyphs-ddpm", defaults=defaults)
    few = {"steps": 1, "batch": 1, "paths": 1, "keep_paths": 1, "draw_steps": 1, "pictures": 1, "remain_words": 1}
    few |= {"sparsity": 0.1, "looks": 1}
    idle = getattr(get(method)(), "idle", frozenset())
    short = {key: few[key] for key in few if key in get(method).__dataclass_fields__ and key not in idle}
    anchor = "dog" if find_capabilities(method).anchor == "needed" else ""
    edit = build_method(method, model, short).fit(model, Erasure(("cat",), anchor=anchor))
    assert isinstance(edit, Edit)
    assert edit.meta.get("guide") or set(edit.names) <= set(model.weights)
