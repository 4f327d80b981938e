"""Make the embedded model, stage by stage: `python -m workshop.glyphs.make [STAGE ...]`.

Stages: art, vae, clip, scoring, unet, decoder, judges, bundle, check, and for the class-conditional model on pixels
ddpm, bundle-ddpm.  Every stage resumes where it stopped, and a finished stage is read back, not trained again.
"""

import argparse
import os
from pathlib import Path

import torch

from . import clip, vae, world

STAGES = ("art", "vae", "clip", "scoring", "unet", "decoder", "judges", "bundle", "check", "ddpm", "bundle-ddpm")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="which stages (default: all)")
    parser.add_argument("--build", type=Path, default=Path("build/glyphs"))
    parser.add_argument("--size", choices=["tiny", "small", "full"], help="the world's size (default: scene.toml's)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--warm", type=Path, help="a U-Net's folder to start from, for the stage unet")
    parser.add_argument("--steps", type=int, help="another number of steps for the stages named")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    here = world.load(args.size)
    for stage in args.stages or STAGES:
        run(stage, here, args.build, args.steps, args.warm)


def run(stage: str, here: world.World, build: Path, steps: int | None, warm: Path | None = None) -> None:
    if stage == "art":
        from . import art

        art.make(build)
    elif stage == "vae":
        vae.train(here, build, steps or 1800).save_pretrained(build / "vae")
    elif stage == "decoder":
        vae.sharpen(here, build, steps or 4000).save_pretrained(build / "vae")
    elif stage == "clip":
        clip.train(here, build, steps or 1400, seed=11).save_pretrained(build / "clip")
    elif stage == "scoring":
        clip.train(here, build, steps or 1400, seed=12).save_pretrained(build / "scoring")
    elif stage == "judges":
        from . import judges

        judges.train_all(here, build, steps or 2000)
    elif stage == "unet":
        from . import unet

        unet.train(here, build, steps or 12000, warm).save_pretrained(build / "unet")
    elif stage == "bundle":
        from . import bundle

        bundle.write(here, build)
    elif stage == "ddpm":
        from . import ddpm

        ddpm.train(build, steps or 2400).save_pretrained(build / "ddpm")
    elif stage == "bundle-ddpm":
        from . import bundle

        bundle.write_ddpm(build)
    else:
        from . import check

        check.report(here, build)


if __name__ == "__main__":
    main()
