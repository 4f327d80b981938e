"""`efface draw`: pictures of prompts, with or without edits."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import tyro

from .console import progress, result, writable_folder


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Draw prompts, with any number of edits applied together."""

    model: str
    """"glyphs", a diffusers folder, or a hub id."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]]
    """What to draw; repeat the flag for several."""
    out: Path
    """Folder for the pictures and `draw.json`."""
    edit: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """An edit to apply; repeat the flag for several."""
    strength: float = 1.0
    """How much of the edits is applied."""
    seed: int = 0
    """Seed of the first picture of each prompt; the next has the next seed."""
    count: int = 1
    """Pictures a prompt."""
    steps: int | None = None
    """Sampling steps; the model's own number by default."""
    guidance: float | None = None
    """Guidance; the model's own by default."""
    device: str | None = None
    """Where to work; a GPU where there is one."""
    json: bool = False
    """Print the result as JSON."""

    def run(self) -> None:
        if not self.prompt:
            raise ValueError('no prompt: name at least one, for example --prompt "a cat"')
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; it must be at least 1")
        writable_folder(self.out)
        from .. import load
        from ..evaluate import write_whole
        from ..evaluate.pictures import batch_of, png
        from ..game import Edit, apply

        edits = [Edit.load(e) for e in self.edit]
        model = load(self.model, self.device)
        wanted = [(p, self.seed + i) for p in self.prompt for i in range(self.count)]
        prompts, seeds = [p for p, _ in wanted], [s for _, s in wanted]
        with progress() as tell, apply(model, edits, [self.strength] * len(edits)):
            images = model.images(
                prompts,
                seeds,
                steps=self.steps,
                guidance=self.guidance,
                batch=batch_of(model.resolution),
                progress=lambda i, n: tell("drawing", i, n),
            )
        drawn = []
        for i, (image, (prompt, seed)) in enumerate(zip(images, wanted, strict=True)):
            file = write_whole(self.out / f"{i:04d}-seed{seed}.png", png(image))
            drawn.append({"prompt": prompt, "seed": seed, "file": file.name})
        data = {"model": self.model, "edits": [str(e) for e in self.edit], "strength": self.strength, "pictures": drawn}
        write_whole(self.out / "draw.json", json_text(data))
        result(data, self.json, "\n".join(f"{self.out / d['file']}  {d['prompt']}" for d in drawn))


def json_text(data: object) -> str:
    import json

    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
