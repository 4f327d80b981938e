"""`efface draw`: pictures of prompts, with or without edits; shared among the processes that a launcher started."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import tyro

from ..edits.strength import check_strength
from ..files import check_folder
from .console import progress, result
from .loading import Loading, Sampling


@dataclass(frozen=True, kw_only=True)
class Draw:
    """Draw prompts, with any number of edits applied together."""

    kept: ClassVar[str] = "nothing was kept; the pictures are written when all are drawn"
    example: ClassVar[str] = (
        'efface draw --model glyphs --edit cat.safetensors --prompt "a cat" --prompt "a dog" --out out/drawn'
    )
    model: str
    """A name (`efface list models`), a diffusers folder, a file FILE.safetensors@FOLDER, or a hub id."""
    prompt: tyro.conf.UseAppendAction[tuple[str, ...]]
    """What to draw: required; repeat the flag for several."""
    out: Path
    """Folder for the pictures and `draw.json`."""
    edit: tyro.conf.UseAppendAction[tuple[Path, ...]] = ()
    """An edit to apply; repeat the flag for several."""
    seed: int = 0
    """Seed of the first picture of each prompt; the next has the next seed."""
    count: int = 1
    """Pictures a prompt."""
    json: bool = False
    """Print the result as JSON."""
    drawing: Sampling = field(default_factory=Sampling)
    loading: Loading = field(default_factory=Loading)

    def run(self) -> None:
        if not self.prompt:
            raise ValueError('no prompt: name at least one, for example --prompt "a cat"')
        if self.count < 1:
            raise ValueError(f"--count is {self.count}; it must be at least 1")
        check_strength(self.drawing.strength)
        check_folder(self.out)
        from ..files import write_whole
        from ..training.distributed import join_process_group

        asked = [(p, self.seed + i) for p in self.prompt for i in range(self.count)]
        wanted = [(p, s, self.out / f"{i:04d}-seed{s}.png") for i, (p, s) in enumerate(asked)]
        with join_process_group(self.loading.device) as group:
            self.draw(wanted[group.shard(len(wanted))], group.is_main)
            group.barrier()
            if not group.is_main:
                return
        drawn = [{"prompt": prompt, "seed": seed, "file": file.name} for prompt, seed, file in wanted]
        data = {
            "model": self.model,
            "edits": [str(e) for e in self.edit],
            "strength": self.drawing.strength,
            "pictures": drawn,
        }
        write_whole(self.out / "draw.json", json_text(data))
        result(data, self.json, "\n".join(f"{self.out / d['file']}  {d['prompt']}" for d in drawn))

    def draw(self, wanted: Sequence[tuple[str, int, Path]], aloud: bool) -> None:
        """Pictures of prompts and seeds, each into its file: those of one process."""
        from ..edits.edit import Edit, apply
        from ..evaluation.images import encode_png
        from ..files import write_whole
        from ..models.trajectory import choose_image_batch

        edits = [Edit.load(e) for e in self.edit]
        model = self.loading.opened(self.model)
        if not wanted:  # more processes than pictures
            return
        with progress(aloud) as on_progress, apply(model, edits, [self.drawing.strength] * len(edits)):
            images = model.images(
                [prompt for prompt, _, _ in wanted],
                [seed for _, seed, _ in wanted],
                steps=self.drawing.steps,
                guidance=self.drawing.guidance,
                sampler=self.drawing.sampler,
                batch=choose_image_batch(model.resolution),
                progress=lambda i, n: on_progress("drawing", i, n),
            )
        for image, (_, _, file) in zip(images, wanted, strict=True):
            write_whole(file, encode_png(image))


def json_text(data: object) -> str:
    import json

    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"
