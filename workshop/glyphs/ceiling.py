"""How much of a style can be known from other things: `python -m workshop.glyphs.ceiling`.

The U-Net never sees the held-out cells (pairs of thing and style).  This script trains the judges' two architectures on
the styles of the seen cells alone, and asks them for the style of real art of the held-out cells.  A denoiser cannot be
expected to show more of a style on a thing it never saw in it than such a classifier finds in the art itself.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import loop, world
from .check import compute_rate
from .judges import build_bodies
from .scenes import Composer, Scene, load_art


class Style(nn.Module):
    """A judge's body with one head: logits of the styles [n, styles] for pictures [n, 3, 64, 64] in [-1, 1]."""

    def __init__(self, kind: str, styles: int) -> None:
        nn.Module.__init__(self)
        self.body = build_bodies(styles)[kind]

    def forward(self, x: Tensor) -> Tensor:
        return self.body(pixel_values=x).logits.float()


def train(kind: str, here: world.World, build: Path, steps: int, seed: int = 41) -> nn.Module:
    """Train a classifier of styles on the cells that the U-Net sees."""
    torch.manual_seed(seed)
    module = Style(kind, len(here.styles))

    def loss(x: Tensor, scenes: list[Scene], step: int) -> tuple[Tensor, dict[str, float]]:
        style = torch.tensor([s.style for s in scenes], device=x.device)
        with loop.autocast():
            logits = module(x + 0.05 * torch.randn_like(x))
        return F.cross_entropy(logits, style), {"style": (logits.argmax(1) == style).float().mean().item()}

    composer = Composer(here, load_art(build), unseen_cells="skip")
    return loop.fit(
        f"ceiling-{kind}", module, loss, composer, build,
        steps=steps, batch=64, lr=1e-3, seed=seed, weight_decay=0.05, average=0.99, warmup=30,
    )  # fmt: skip


@torch.no_grad()
def measure(module: nn.Module, here: world.World, build: Path, count: int = 1000) -> dict[str, str]:
    """The share of fresh compositions whose style is named rightly, for seen and for held-out cells."""
    out = {}
    for cells, unseen in (("seen", "skip"), ("held-out", "only")):
        composer, rng = Composer(here, load_art(build), unseen_cells=unseen), np.random.default_rng(98)
        scenes = [composer(rng) for _ in range(count)]
        x = loop.scale_pixels(np.stack([s.pixels for s in scenes]).transpose(0, 3, 1, 2).copy())
        named = torch.cat([module(part) for part in x.split(100)]).argmax(1).cpu().numpy()
        hits = named == np.array([s.style for s in scenes])
        out[f"{cells} cells"] = compute_rate(hits, [here.things[s.things[0]].name for s in scenes])
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=Path("build/glyphs"))
    parser.add_argument("--size", choices=["tiny", "small", "full"], help="the world's size (default: scene.toml's)")
    parser.add_argument("--steps", type=int, default=900)
    args = parser.parse_args()
    here = world.load(args.size)
    for kind in ("resnet", "regnet"):
        module = train(kind, here, args.build, args.steps)
        for cells, figure in measure(module, here, args.build).items():
            print(f"style of real art, {cells}, {kind} trained on seen cells: {figure}", flush=True)


if __name__ == "__main__":
    main()
