"""Do two checkouts give the same results, bit for bit?  `python -m benchmarks.same_results OLD NEW [--only WORD]`.

Each checkout erases, draws and evaluates through its own command line, with fixed seeds, on the bundle of OLD (glyphs
and glyphs-ddpm) and on tiny random Stable Diffusion and SDXL folders that OLD builds.  It compares the tensors of
every edit, the pixels of every picture and the numbers of every report, and ends with 1 if any of them differ.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import safe_open

SHORT = ("--steps", "2", "--draw-steps", "2", "--batch", "2")
PATHS = ("--paths", "2", "--source", "frozen")
PICTURES = ("--pictures", "2", "--guidance", "2")
ANCHOR = ("--anchor", "dog")
ERASE: dict[str, tuple[str, ...]] = {
    "esd": (*SHORT, *PATHS),
    "eap": (*SHORT, *PATHS, "--k-closest", "4", "--centres", "2"),
    "abo": (*SHORT, *PATHS),
    "erasediff": (*SHORT, *PICTURES, "--remain-words", "2"),
    "p-esd": (*SHORT, *PATHS, "--sparsity", "0.1"),
    "p-ac": (*SHORT, *PATHS, *ANCHOR, "--sparsity", "0.1"),
    "ac": (*SHORT, *PICTURES, *ANCHOR),
    "salun": (*SHORT, *PICTURES, *ANCHOR, "--remain-words", "2"),
    "spm": (*SHORT, *PATHS),
    "uce": (),
    "rece": (),
    "nullspace": (),
    "sld": (),
    "safree": (),
    "negative": (),
}
DDPM = ("esd", "erasediff", "salun")
BUILD = """
import sys; sys.path.insert(0, {tests!r})
from tiny import tiny_pipeline
from tiny_sdxl import tiny_sdxl_pipeline
tiny_pipeline().save_pretrained({out!r} + "/sd")
tiny_sdxl_pipeline().save_pretrained({out!r} + "/sdxl")
"""


def run(source: Path, *args: str) -> str:
    """Runs Python on a checkout's package; raises RuntimeError with its output if it fails."""
    env = os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *args], env=env, capture_output=True, text=True, check=False)
    if done.returncode not in (0, 1):
        raise RuntimeError(f"{' '.join(args)} on {source} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def digest_edit(file: Path) -> str:
    """A hash of an edit's tensors and their names, without its versions."""
    h = hashlib.sha256()
    with safe_open(str(file), "pt") as tensors:
        for name in sorted(tensors.keys()):
            tensor = tensors.get_tensor(name)
            h.update(name.encode() + str((tensor.dtype, tuple(tensor.shape))).encode())
            h.update(tensor.contiguous().flatten().view(dtype=torch.uint8).numpy().tobytes())
    return h.hexdigest()[:16]


def digest_pictures(folder: Path) -> str:
    """A hash of the pixels of all pictures in a folder, in the order of their names."""
    h = hashlib.sha256()
    for file in sorted(folder.rglob("*.png")):
        with Image.open(file) as picture:
            h.update(picture.tobytes())
    return h.hexdigest()[:16]


def numbers(value: Any) -> Any:
    """The numbers of a report's measures, without names that may change."""
    if isinstance(value, dict):
        return [numbers(v) for v in value.values() if isinstance(v, dict | list | int | float)]
    return [numbers(v) for v in value] if isinstance(value, list) else value


def results(source: Path, models: dict[str, str], out: Path, only: str) -> dict[str, str]:
    """Runs one checkout, and returns a hash or the numbers of each result."""
    found: dict[str, str] = {}
    for kind, model in models.items():
        for method, flags in ERASE.items():
            what = f"{kind} {method}"
            if only not in what or (kind == "glyphs-ddpm" and method not in DDPM):
                continue
            edit, drawn = out / f"{kind}-{method}.safetensors", out / f"{kind}-{method}"
            base = ("-m", "efface")
            run(source, *base, "erase", method, "--model", model, "--target", "cat", "--out", str(edit), *flags)
            prompts = ("--prompt", "cat", "--prompt", "dog", "--seed", "1", "--steps", "3")
            run(source, *base, "draw", "--model", model, "--edit", str(edit), *prompts, "--out", str(drawn))
            found[f"{what}: edit"], found[f"{what}: pictures"] = digest_edit(edit), digest_pictures(drawn)
            if kind == "glyphs" and method in ("esd", "uce", "sld"):
                report = out / f"{kind}-{method}-judged"
                suite = ("--suite", "glyphs-objects", "--per-group", "2", "--steps", "3")
                run(source, *base, "evaluate", "--model", model, "--edit", str(edit), *suite, "--out", str(report))
                measures = json.loads((report / "report.json").read_text())["measures"]
                found[f"{what}: report"] = json.dumps([[m["metric"], m["group"], numbers(m)] for m in measures])
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--only", default="", help="what the name of a case must hold, such as 'glyphs esd'")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work, found = Path(folder), []
        for name, checkout in (("old", args.old), ("new", args.new)):
            shutil.copytree(checkout / "src", work / name / "src")
        shutil.rmtree(work / "new/src/efface/bundled")
        shutil.copytree(work / "old/src/efface/bundled", work / "new/src/efface/bundled")
        run(work / "old/src", "-c", BUILD.format(tests=str(args.old / "tests"), out=folder))
        models = {"glyphs": "glyphs", "glyphs-ddpm": "glyphs-ddpm", "sd": f"{folder}/sd", "sdxl": f"{folder}/sdxl"}
        for name in ("old", "new"):
            found.append(results(work / name / "src", models, work / name, args.only))
        before, after = found
        different = [key for key in before if before[key] != after.get(key)]
        for key in before:
            print(f"{'DIFFERS' if key in different else 'same   '} {key}")
        print(f"{len(before) - len(different)} of {len(before)} results are the same")
        return bool(different)


if __name__ == "__main__":
    sys.exit(main())
