"""Estimates the memory of each method and attack for Stable Diffusion 1.5 and SDXL from shapes, and counts its waits.

    python -m benchmarks.plans                         # writes the tables of docs/performance.md
    python -m benchmarks.plans --sizes sd --methods esd --no-waits

Denoiser and autoencoder have shapes and no numbers, so that no memory is taken and no GPU is needed; only the text
encoders are made. Bytes are those of tensors that are alive on the device: the weights, the trained weights with their
moments, and a step of the training, or a step of a drawing with what it records. Waits of the host are counted on the
stand-in for a GPU of the tests, on a tiny model.
"""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro
from torch._subclasses.fake_tensor import FakeTensorMode

from efface import attacks, methods
from efface.models.adapters.latent import SLICE
from efface.models.adapters.sd import StableDiffusion
from efface.models.adapters.sdxl import StableDiffusionXL
from efface.models.fingerprint import CASTS

from .common import describe_flags, describe_machine, format_table, write
from .peaks import measure_attack, measure_autoencoder, measure_method
from .sizes import Size, build_pipeline

PIXELS: dict[Size, int] = {"sd": 512, "sdxl": 1024}
BARS: dict[Size, float] = {"sd": 10e9, "sdxl": 22e9}
"""Bytes that each attack by gradients is to do with."""
TESTS = Path(__file__).parents[1] / "tests"


@dataclass(frozen=True, kw_only=True)
class Plans:
    """Estimates peak bytes by method and attack, and counts the waits of an update."""

    sizes: tyro.conf.UseAppendAction[tuple[Size, ...]] = ()
    """sd (1.5 at 512 pixels), sdxl (at 1024); both where none is given."""
    methods: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Methods; all where none is given."""
    dtype: str = "bf16"
    """Of the weights; on a GPU the default."""
    micro_batch: int = 1
    """Rows at once in the student's pass, at the papers' batches."""
    attacks: bool = True
    """Measure the autoencoder and the standard attacks too."""
    waits: bool = True
    """Count waits too, where there is a C++ compiler."""
    out: Path = Path("out/benchmarks/plans")
    """Folder of the result."""

    def run(self) -> None:
        found: dict[str, Any] = {}
        for size in self.sizes or tuple(PIXELS):
            model = open_shapes(size, self.dtype)
            served = [name for name in methods.list_names() if size in methods.find_capabilities(name).architectures]
            tried = attacks.STANDARD if self.attacks else ()
            found[size] = {
                "autoencoder": self.measure_autoencoder(model) if self.attacks else [],
                "attacks": [_print_row(self.attack(name, model, size)) for name in tried],
                "methods": [_print_row(self.measure_method(name, model)) for name in self.methods or served],
            }
            for rows in filter(None, found[size].values()):
                print(
                    f"{size}, {PIXELS[size]} pixels, {self.dtype}",
                    _format_table(rows),
                    sep="\n\n",
                    end="\n\n",
                    flush=True,
                )
        if self.waits and (counted := count_waits()):
            found["waits"] = counted
            print(_format_table(counted))
        flags = describe_flags(self)
        write(self.out, "plans", {"stamp": describe_machine(flags=flags), **found})

    def attack(self, name: str, model: Any, size: Size) -> dict[str, Any]:
        """Measures a standard attack within the bytes that it may use."""
        return {"attack": name, **measure_attack(name, model, int(BARS[size]))}

    def measure_method(self, name: str, model: Any) -> dict[str, Any]:
        """Measures a method at its paper's settings, a few rows at once."""
        try:
            return {"method": name, **measure_method(name, model, self.micro_batch)}
        except (RuntimeError, ValueError) as error:
            return {"method": name, "how": f"not known from shapes: {str(error)[:160]}"}

    def measure_autoencoder(self, model: Any) -> list[dict[str, Any]]:
        """Measures decoding and encoding as many pictures as are taken at once."""
        n = max(1, SLICE // model.resolution**2)
        peaks = {f"{what}, GB": measure_autoencoder(model, what) / 1e9 for what in ("decode", "encode")}
        return [_print_row({"pictures at once": n, **peaks})]


def open_shapes(size: Size, dtype: str) -> Any:
    """A model whose denoiser and autoencoder are shapes without numbers."""
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    made = build_pipeline(size, PIXELS[size], "cpu", CASTS[dtype], mode)
    model: Any = (StableDiffusion if size == "sd" else StableDiffusionXL)(made, size)
    model._fingerprint = dict.fromkeys(CASTS, size)
    model.recordings.bound = 0  # on a GPU recordings lie in the host's memory
    return model


def count_waits() -> list[dict[str, Any]]:
    """Counts the waits of the host for the device in an update of each method, the median and the most; empty where
    they can't be counted."""
    spec = importlib.util.spec_from_file_location("build_fake_cuda", TESTS / "fake_cuda" / "build.py")
    if spec is None or spec.loader is None:
        return []
    build: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(build)
    if (compiler := build.find_compiler()) is None:
        print("waits were not counted: there is no C++ compiler to build the stand-in for a GPU with")
        return []
    printed = build.run_on_fake_cuda(compiler, TESTS / "cuda" / "methods_script.py", "--waits")
    found = json.loads(printed.splitlines()[-1])
    waits = {name: sorted(result.get("fp32", {}).get("waits", ())) for name, result in found.items()}
    return [
        {"method": name, "waits an update": some[len(some) // 2], "at most": some[-1]}
        for name, some in waits.items()
        if some
    ]


def _print_row(row: dict[str, Any]) -> dict[str, Any]:
    """Prints the row and returns it, because each row takes long at these sizes."""
    print(row, flush=True)
    return row


def _format_table(rows: list[dict[str, Any]]) -> str:
    titles = list(dict.fromkeys(title for row in rows for title in row))
    return format_table(titles, [[row.get(title, "") for title in titles] for row in rows])


if __name__ == "__main__":
    tyro.cli(Plans).run()
