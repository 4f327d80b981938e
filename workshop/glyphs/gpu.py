"""Train the world `full` on a GPU within minutes: everything it needs is carried there, the weights come back in parts.

    python -m workshop.glyphs.gpu pack                       # here: art and weights to start from, for the way there
    python -m workshop.glyphs.gpu train --minutes 8 --out OUT    # there: trains, writes OUT/weights.00, .01, ...
    python -m workshop.glyphs.gpu join OUT                   # here: the parts become build/glyphs-full again

`train --minutes 0.5 --batch 4` rehearses the same on a CPU.
"""

import argparse
import io
import shutil
import tarfile
import time
from pathlib import Path

import numpy as np
import torch

from . import clip, judges, unet, vae, world
from .scenes import load_art

CARRY = Path("build/carry")
PART = 15 * 2**20
"""Bytes of a part of what comes back."""
SHARES = {"vae": 0.12, "clip": 0.18, "scoring": 0.10, "unet": 0.46, "judges": 0.14}
"""Of the time, by stage."""


def pack(build: Path) -> None:
    """Write the art, compressed, and the autoencoder to start from into `build/carry`."""
    CARRY.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(CARRY / "art.npz", **load_art(build))
    shutil.copytree(build / "vae", CARRY / "vae", dirs_exist_ok=True)
    size = sum(f.stat().st_size for f in CARRY.rglob("*") if f.is_file())
    print(f"{size / 1e6:.1f} MB in {CARRY}")


def train(out: Path, minutes: float, size: str, batch: int) -> None:
    """All stages, each for its share of the time; the weights as fp16 in parts of at most `PART` bytes."""
    here, build = world.load(size), Path("build/glyphs-full")
    build.mkdir(parents=True, exist_ok=True)
    shutil.copy(CARRY / "art.npz", build / "art.npz")
    shutil.copytree(CARRY / "vae", build / "vae", dirs_exist_ok=True)
    start, many = time.time(), 10**7

    def limit(stage: str) -> dict[str, float]:
        return {"seconds": 60 * minutes * SHARES[stage]}

    vae.train(here, build, many, warm=True, batch=2 * batch, **limit("vae")).save_pretrained(build / "vae")
    clip.train(here, build, many, batch=8 * batch, seed=11, **limit("clip")).save_pretrained(build / "clip")
    clip.train(here, build, many, batch=8 * batch, seed=12, **limit("scoring")).save_pretrained(build / "scoring")
    unet.train(here, build, many, batch=8 * batch, **limit("unet")).save_pretrained(build / "unet")
    judges.train_all(here, build, many, batch=4 * batch, seconds=limit("judges")["seconds"] / 2)
    print(f"trained in {time.time() - start:.0f} s")
    deliver(build, out)


def deliver(build: Path, out: Path) -> None:
    """Write every trained part as a tar archive of fp16 weights, cut into parts."""
    from safetensors.torch import load_file, save_file

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name in ("vae", "clip", "scoring", "unet", "judges", "tokenizer"):
            for file in sorted((build / name).rglob("*.safetensors")):
                save_file({k: v.half() if v.is_floating_point() else v for k, v in load_file(file).items()}, file)
            tar.add(build / name, arcname=name)
    data = buffer.getvalue()
    out.mkdir(parents=True, exist_ok=True)
    for i in range(0, len(data), PART):
        (out / f"weights.{i // PART:02}").write_bytes(data[i : i + PART])
    print(f"{len(data) / 1e6:.1f} MB in {-(-len(data) // PART)} parts in {out}")


def join(out: Path, build: Path) -> None:
    """The inverse of `deliver`."""
    data = b"".join(part.read_bytes() for part in sorted(out.glob("weights.*")))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        tar.extractall(build, filter="data")
    print(f"unpacked into {build}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["pack", "train", "join"])
    parser.add_argument("folder", nargs="?", type=Path, help="of join: where the parts lie")
    parser.add_argument("--out", type=Path, default=Path("out/gpu"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--size", choices=["tiny", "small", "full"], default="full")
    parser.add_argument("--batch", type=int, default=64, help="rows in the smallest stage; others take multiples of it")
    args = parser.parse_args()
    torch.set_num_threads(max(1, torch.get_num_threads() // 2))
    if args.what == "pack":
        pack(Path("build/glyphs"))
    elif args.what == "train":
        train(args.out, args.minutes, args.size, args.batch)
    else:
        join(args.folder or args.out, Path("build/glyphs-full"))


if __name__ == "__main__":
    main()
