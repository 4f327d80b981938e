"""Run on the stand-in device: the playground draws, judges and attacks there, in each dtype; prints JSON."""

from __future__ import annotations

import json
import tempfile
import traceback
from pathlib import Path
from typing import Any

import torch
from tiny_pair import DTYPES
from torch import Tensor

from efface.edits.edit import Edit
from efface.models.loading import load
from efface.playground.scene import Scene
from efface.playground.session import Playground
from efface.scorers.base import pick_device
from judging_fixtures import edit_of, write_bundle
from monte_carlo import measure_levels, simulate
from precise_results import HALF, list_networks

TRIES = 2


def write_rounded_bundle(folder: Path) -> tuple[str, str]:
    """The model and the edit of a bundle; weights are numbers of bf16, so that they are the same at every dtype."""
    torch.manual_seed(0)
    name = str(write_bundle(folder) / "model")
    model: Any = load(name, "cpu", "bf16")
    model.pipeline.save_pretrained(name)
    return name, str(edit_of(model, folder / "cat.safetensors"))


def open_playground(model: str, edit: str, dtype: str, device: str) -> Playground:
    return Playground(load=lambda name: load(name, device, dtype), models=(model,), edits=(edit,), detectors=())


def play(playground: Playground) -> dict[str, Any]:
    """Draws a scene without and with the edit, and attacks it.

    Returns the pictures [2 + TRIES, 3, h, w]; the prompts of the tries; and whether judges looked at each picture.
    """
    edits = ((playground.edits[0], 1.0),)
    scene = Scene(model=playground.models[0], prompt="a cat", edits=edits, steps=2, guidance=2.0)
    drawn = playground.draw(scene)
    tries = [*playground.attack(scene, "synonyms", tries=TRIES)]
    assert drawn.base is not None
    seen = [drawn.base, drawn.edited, *(each.edited for each in tries)]
    return {
        "images": torch.stack([each.image for each in seen]),
        "prompts": [each.scene.prompt for each in tries],
        "judged": all(bool(each.answers) for each in seen),
    }


def draw_by_library(playground: Playground, prompts: list[str]) -> Tensor:
    """The pictures of `play`, drawn by the library's own functions on the model that the playground opened."""
    model, edit = playground._open(playground.models[0]), Edit.load(Path(playground.edits[0]))
    images = [model.images(["a cat"], [0], steps=2, guidance=2.0)[0]]
    with edit.apply(model):
        images += [model.images([prompt], [0], steps=2, guidance=2.0)[0] for prompt in ("a cat", *prompts)]
    return torch.stack(images)


def compare(playground: Playground, right: dict[str, Any]) -> dict[str, Any]:
    """How far the pictures of this playground are from the right ones and from the library's, and what came beside."""
    found = play(playground)
    return {
        "far": measure_levels(found["images"], right["images"]),
        "far from the library": measure_levels(found["images"], draw_by_library(playground, found["prompts"])),
        "prompts": found["prompts"],
        "judged": found["judged"],
        "judged on": str(pick_device()),
    }


def main() -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        files = write_rounded_bundle(Path(name))
        here = open_playground(*files, "fp32", "cpu")
        right = play(here)
        model: Any = here._open(files[0])
        networks = [*list_networks(model), model.vae]
        found: dict[str, Any] = {
            "prompts": right["prompts"],
            "simulated": simulate(lambda: play(here)["images"], right["images"], networks, HALF, measure_levels),
            "edit moves": measure_levels(right["images"][1], right["images"][0]),
        }
        for dtype in DTYPES:
            try:
                found[dtype] = compare(open_playground(*files, dtype, "cuda"), right)
            except Exception:
                found[dtype] = {"error": traceback.format_exc()[-1500:]}
    print(json.dumps(found))


main()
