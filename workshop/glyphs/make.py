"""Make the embedded model, stage by stage: `python -m workshop.glyphs.make [STAGE ...]`.

Stages: art, vae, clip, scoring, unet, decoder, judges, bundle, check, and for the class-conditional model on pixels
ddpm, bundle-ddpm.  Only where they are named: flow and bundle-flow, a small Stable Diffusion 3 on the same latents.
Every stage resumes where it stopped.  To train a bundled model on: the stage `unpack` fills the build folder with the
bundle's parts, and `--warm` starts the stages named from the parts that lie there.
"""

import argparse
import os
from pathlib import Path

import torch

from . import clip, vae, world

NAMED = ("flow", "bundle-flow", "unpack")
"""Stages that run only where they are named."""
STAGES = ("art", "vae", "clip", "scoring", "unet", "decoder", "judges", "bundle", "check", "ddpm", "bundle-ddpm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, *NAMED, []], help="which stages (default: all)")
    parser.add_argument("--build", type=Path, default=Path("build/glyphs"))
    parser.add_argument("--size", choices=["tiny", "small", "full"], help="the world's size (default: scene.toml's)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--steps", type=int, help="another number of steps for the stages named")
    parser.add_argument("--warm", action="store_true", help="train on from the parts that the build folder holds")
    parser.add_argument("--lr", type=float, help="another learning rate for the stages named")
    parser.add_argument("--cooldown", type=int, help="over how many of the last steps the learning rate falls (all)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    here = world.load(args.size)
    options = {k: v for k in ("lr", "cooldown") if (v := getattr(args, k)) is not None}
    for stage in args.stages or STAGES:
        run(stage, here, args.build, args.steps, args.warm, options)


def run(stage: str, here: world.World, build: Path, steps: int | None, warm: bool, options: dict) -> None:
    """Run one stage; `options` go to the training loop (`loop.fit`) of the stages that train."""
    if stage == "art":
        from . import art

        art.make(build)
    elif stage == "unpack":
        from . import bundle

        bundle.unpack(build)
    elif stage == "vae":
        vae.train(here, build, steps or 1800, warm, **options).save_pretrained(build / "vae")
    elif stage == "decoder":
        vae.sharpen(here, build, steps or 4000, **options).save_pretrained(build / "vae")
    elif stage in ("clip", "scoring"):
        seed = 11 if stage == "clip" else 12
        clip.train(here, build, steps or 1400, warm, seed=seed, **options).save_pretrained(build / stage)
    elif stage == "judges":
        from . import judges

        judges.train_all(here, build, steps or 2000, warm, **options)
    elif stage == "unet":
        from . import unet

        unet.train(here, build, steps or 24000, warm, **options).save_pretrained(build / "unet")
    elif stage == "flow":
        from . import flow

        flow.train(here, build, steps or 24000, warm, **options).save_pretrained(build / "flow")
    elif stage == "bundle-flow":
        from . import bundle_flow

        bundle_flow.write(here, build)
    elif stage == "bundle":
        from . import bundle

        bundle.write(here, build)
    elif stage == "ddpm":
        from . import ddpm

        ddpm.train(build, steps or 2400, warm, **options).save_pretrained(build / "ddpm")
    elif stage == "bundle-ddpm":
        from . import bundle

        bundle.write_ddpm(build)
    else:
        from . import check

        check.report(here, build)


if __name__ == "__main__":
    main()
