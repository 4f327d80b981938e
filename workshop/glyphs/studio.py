"""The bundled pipeline and judges, as their own libraries open them, for the figures that `check.py` measures."""

import tomllib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from transformers import AutoModelForImageClassification

from .bundle import TARGET

DRAW = tomllib.loads((TARGET / "defaults.toml").read_text())["draw"]


class Studio:
    """The bundled pipeline and judges, opened by their own libraries alone."""

    grids = ""  # what the names of its picture grids begin with

    def __init__(self, target: Path = TARGET) -> None:
        self.open_judges(target)
        self.pipe = StableDiffusionPipeline.from_pretrained(target / "model")
        self.pipe.set_progress_bar_config(disable=True)
        self.pipe.to(self.device)

    def open_judges(self, target: Path) -> None:
        """Chooses the device and opens the judges of a bundle there."""
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.judges = {
            f.name: AutoModelForImageClassification.from_pretrained(f).eval().to(self.device)
            for f in sorted((target / "judges").iterdir())
        }

    def draw(self, prompts: Sequence[str], first_seed: int = 0) -> np.ndarray:
        """Pictures [n, 64, 64, 3] uint8, seed `first_seed + i` for prompt i."""
        out = []
        for at in range(0, len(prompts), 64):
            part = list(prompts[at : at + 64])
            seeds = [torch.Generator("cpu").manual_seed(first_seed + at + i) for i in range(len(part))]
            with torch.autocast(self.device, dtype=torch.bfloat16):
                result = self.pipe(
                    part,
                    generator=seeds,
                    num_inference_steps=DRAW["steps"],
                    guidance_scale=DRAW["guidance"],
                    output_type="np",
                )
            out.append((result.images * 255).round().astype(np.uint8))
        return np.concatenate(out)

    @torch.no_grad()
    def judge(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """For each judge the class names by falling score [n, classes]."""
        x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).float().div(127.5).sub(1).to(self.device)
        out = {}
        for name, model in self.judges.items():
            logits = torch.cat([model(pixel_values=part).logits for part in x.split(256)])
            labels = np.array([model.config.id2label[i] for i in range(logits.shape[1])])
            out[name] = labels[logits.argsort(dim=1, descending=True).cpu().numpy()]
        return out
