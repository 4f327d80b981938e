"""Measure the bundled flow by the judges of `glyphs`: `python -m workshop.glyphs.check_flow`."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

import efface

from .bundle import TARGET
from .check import HERE, check_cells, count_recognised, draw_plain, measure_speed
from .studio import Studio
from .world import World, load


class FlowStudio(Studio):
    """The bundled flow, drawn as efface draws it where nothing is said, and the same judges."""

    grids = "flow-"

    def __init__(self, model: str = "glyphs-flow", target: Path = TARGET) -> None:
        self.open_judges(target)
        self.model = efface.load(model, self.device)

    def draw(self, prompts: Sequence[str], first_seed: int = 0) -> np.ndarray:
        seeds = range(first_seed, first_seed + len(prompts))
        with torch.autocast(self.device, dtype=torch.bfloat16):
            images = self.model.images(list(prompts), seeds=seeds, batch=32)
        return images.round().byte().permute(0, 2, 3, 1).cpu().numpy()


def report(world: World) -> None:
    """Print the flow's figures and write them to `figures/quality-flow.json`."""
    studio = FlowStudio()
    draw = studio.model.defaults
    found = {"steps": str(draw.steps), "guidance": str(draw.guidance)}
    found |= count_recognised(studio, "object without a style", draw_plain(world, 4), ranked=True) | check_cells(
        world, studio, 1
    )
    found |= measure_speed(studio)
    (HERE / "figures" / "quality-flow.json").write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print("\n".join(["| figure | measured |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in found.items())]))


if __name__ == "__main__":
    torch.set_num_threads(2)
    report(load())
