"""Drawing against `StableDiffusionPipeline.__call__` at the same batch, scheduler, steps and precision.

    python -m benchmarks.drawing                                   # the embedded model
    python -m benchmarks.drawing --size sd --dtype bf16 --compile  # on a GPU

Runs of the two alternate, so that a changing load of the machine slows both; the ratio is the median over pairs of
runs.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro

import efface
from efface.models.fingerprint import CASTS

from .common import describe_flags, describe_machine, format_table, time_alternately, write
from .sizes import Size, build_pipeline


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """Compares pictures a minute of our loop and of the pipeline."""

    size: Size | Literal["glyphs"] = "glyphs"
    """The embedded model, or random weights of Stable Diffusion's shapes."""
    pixels: int = 512
    """A side, of those shapes."""
    batches: tuple[int, ...] = (1, 8, 32)
    """Pictures at once."""
    steps: int = 0
    """Sampling steps; 0 is the model's own number."""
    pairs: int = 5
    """Goes of each."""
    dtype: str = "fp32"
    """Of the weights."""
    compile: bool = False
    """Compile our network; the pipeline is run as it comes."""
    out: Path = Path("out/benchmarks/drawing")
    """Folder of the result."""

    def run(self) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        model, bare = self.open_model(device, self.compile), self.open_model(device, False)
        rows = [self.compare(model, bare.pipeline, n) for n in self.batches]
        flags = describe_flags(self)
        write(self.out, str(self.size), {"stamp": describe_machine(flags=flags), "rows": rows})
        print(format_table(list(rows[0]), [list(row.values()) for row in rows]))

    def open_model(self, device: str, compile: bool) -> Any:
        """Opens the model, anew at each call, because compiling changes the network in place."""
        made = None if self.size == "glyphs" else build_pipeline(self.size, self.pixels, device, CASTS[self.dtype])
        return efface.load(made or "glyphs", device, compile=compile)

    def compare(self, model: Any, bare: Any, n: int) -> dict[str, float]:
        """Measures pictures a minute, n at once, by our loop and by a pipeline's own."""
        prompts, seeds = ["a cat", "a dog"] * n, list(range(n))
        steps, guidance = self.steps or model.defaults.steps, model.defaults.guidance

        def ours() -> None:
            model.images(prompts[:n], seeds, steps=steps, guidance=guidance, batch=n)

        def theirs() -> None:
            rngs = [torch.Generator().manual_seed(seed) for seed in seeds]
            cast = torch.autocast(model.device.type, model.compute) if model.compute else nullcontext()
            with torch.no_grad(), cast:
                bare(
                    prompts[:n],
                    num_inference_steps=steps,
                    guidance_scale=guidance,
                    generator=rngs,
                    output_type="np",
                )

        bare.set_progress_bar_config(disable=True)
        seconds = time_alternately({"ours": ours, "theirs": theirs}, self.pairs)
        faster = [b / a for a, b in zip(seconds["ours"], seconds["theirs"], strict=True)]
        return {
            "at once": n,
            "ours, a minute": 60 * n / median(seconds["ours"]),
            "diffusers, a minute": 60 * n / median(seconds["theirs"]),
            "faster": median(faster),
            "least of the pairs": min(faster),
        }


if __name__ == "__main__":
    tyro.cli(Drawing).run()
