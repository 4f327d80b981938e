"""Measures the most informative speeds of a GPU on one page, in about ten minutes.

    python -m benchmarks.gpu                                  # SD 1.5 and SDXL with random weights
    python -m benchmarks.gpu --rehearse                       # the same cases on a tiny model, on any machine
    python -m benchmarks.gpu --quantised FOLDER               # FLUX.1-dev, say, held in 4 and in 8 bits

The cases are a few updates of ESD, EAP and EraseDiff, UCE of a hundred concepts, one attack by gradients and drawing
with SD 1.5 at 512 pixels, and ESD with SDXL at 1024. Beside each case stands the memory that was planned before, and
beside an update the time of the network alone, not compiled, for the same rows. Weights are random, because speed does
not depend on them. If a case fails, the page says so and the other cases still run. The page is Markdown and begins
with the machine and the versions.
"""

from __future__ import annotations

import dataclasses
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro

import efface
from efface import methods
from efface.attacks.denoising_error import DenoisingError
from efface.concept import Erasure
from efface.files import check_file, write_whole
from efface.models.devices import choose_dtype
from efface.models.fingerprint import CASTS
from efface.planning.estimating import estimate
from efface.planning.gradients import plan_gradients
from efface.planning.machine import read_free_bytes
from efface.planning.probe_steps import list_tensors
from efface.training.trainer import Trainer

from .common import (
    describe_flags,
    describe_machine,
    format_table,
    list_concepts,
    list_weights,
    measure_peak,
    measure_work,
    settle,
    write,
)
from .sizes import Size, build_pipeline, small_pipeline

CAT = Erasure(("cat",))
CONCEPTS = 100
SIDES: dict[Size, int] = {"sd": 512, "sdxl": 1024}
SMALL: dict[str, Any] = {"source": "frozen", "paths": 1, "keep_paths": 1, "draw_steps": 2, "pictures": 2}
SMALL |= {"remain_words": 2, "label": "dog", "centres": 2, "k_closest": 4}


@dataclass(frozen=True, kw_only=True)
class GPU:
    """Measures speed and memory of the main methods on this machine."""

    rehearse: bool = False
    """Use a tiny random model, and few updates: shows that all of it runs."""
    updates: int = 12
    """Timed for each method, after two that are not."""
    rows: int = 16
    """Rows that the attack takes together."""
    minutes: float = 10.0
    """After so many, cases that have not begun are left out, and the page says which; a rehearsal leaves out none."""
    quantised: str = ""
    """A diffusers folder or hub id whose denoiser is held in 4 and in 8 bits; its cases alone are run."""
    out: Path = Path("out/benchmarks/gpu")
    """Folder of the page, and of the same as JSON."""

    def run(self) -> None:
        check_file(self.out / "gpu.md")
        began, lines = time.monotonic(), []
        for size, what, case in self.list_cases():
            if not self.rehearse and time.monotonic() - began > 60 * self.minutes:
                lines.append({"model": size, "case": what, "remark": "left out: no time was left"})
                continue
            try:
                lines.append({"model": size, "case": what, **case()})
            except Exception as error:  # a page with a hole tells more than none
                traceback.print_exc()
                lines.append({"model": size, "case": what, "remark": f"{type(error).__name__}: {str(error)[:160]}"})
            print(lines[-1], flush=True)
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        self.write(lines, time.monotonic() - began)

    def list_cases(self) -> list[tuple[str, str, Callable[[], dict[str, Any]]]]:
        """Lists every case by the size of the model and the name of the case, the most informative first."""
        if self.quantised:
            return [(self.quantised, f"gem, {n} bits", lambda n=n: self.measure_held_in(n)) for n in (4, 8)]
        made: list[tuple[str, str, Callable[[], dict[str, Any]]]] = [
            ("sd", name, lambda name=name: self.measure_training(name, "sd")) for name in ("esd", "eap", "erasediff")
        ]
        made.append(("sd", "an attack by gradients", lambda: self.measure_attack("sd")))
        concepts, steps = (5, 4) if self.rehearse else (CONCEPTS, 50)
        made.append(("sd", f"uce, {concepts} concepts", lambda: self.measure_closed_form("uce", "sd", concepts)))
        made.append(("sd", f"drawing, 4 pictures, {steps} steps", lambda: self.measure_drawing("sd", 4, steps)))
        return [*made, ("sdxl", "esd", lambda: self.measure_training("esd", "sdxl"))]

    def open_model(self, size: Size) -> Any:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        if self.rehearse:
            return efface.load(small_pipeline(size, CASTS[choose_dtype(device) or "fp32"]), device)
        return efface.load(build_pipeline(size, SIDES[size], device, CASTS[choose_dtype(device) or "fp32"]), device)

    def measure_training(self, name: str, size: Size) -> dict[str, Any]:
        """Measures seconds of an update, and the peak beside the plan; also the forward and backward pass of the
        network alone."""
        model, kind = self.open_model(size), methods.get(name)
        fields = {field.name for field in dataclasses.fields(kind)}
        steps = 3 if self.rehearse else 2 + self.updates
        method: Any = kind(**{k: v for k, v in {**SMALL, "steps": steps}.items() if k in fields})
        built = method.build_trainer(model, CAT)
        plan = estimate(built)
        marks: list[float] = []

        def mark(done: int, of: int, **_: Any) -> None:
            if done and done % max(1, of // method.steps) == 0:
                settle()
                marks.append(time.perf_counter())

        used = measure_peak(lambda: built.train(mark), _list_resting(model, built))
        update = median(b - a for a, b in pairwise(sorted(set(marks))))
        rows = int(getattr(method, "batch", 1))
        return {
            "seconds": update,
            "bare network": self.measure_bare(model, rows),
            "rows": rows,
            "peak GB": used / 1e9,
            "planned GB": plan.need / 1e9,
        }

    def measure_bare(self, model: Any, rows: int) -> float:
        """Measures the pass of the network alone and its gradient to the cross-attention, for so many rows."""
        x = torch.zeros(rows, *model.latent_shape, device=model.device, dtype=model.dtype)
        cond = model.encode(["a cat"]).expand(rows)
        learning = [weight for name, weight in model.weights.items() if "attn2" in name]
        for weight in learning:
            weight.requires_grad_(True)

        def work() -> None:
            loss = model.predict(x, torch.ones(rows), cond)[0].float().square().mean()
            torch.autograd.grad(loss, learning, allow_unused=True)

        work()
        return median(measure_work(work).seconds for _ in range(3))

    def measure_held_in(self, bits: Literal[4, 8]) -> dict[str, Any]:
        """Measures low-rank updates of a base in so many bits, and how far its pictures are from those of the same edit
        at full precision."""
        model = efface.load(self.quantised, quantise=bits, checkpointing=True, offload=True)
        steps = 2 + self.updates
        kind: Any = methods.get("gem")
        method = kind(steps=steps, source="frozen", paths=1, draw_steps=4, guidance=model.defaults.guidance)
        built = method.build_trainer(model, CAT)
        plan = estimate(built)
        marks: list[float] = []

        def mark(*_: Any, **__: Any) -> None:
            settle()
            marks.append(time.perf_counter())

        used = measure_peak(lambda: built.train(mark), _list_resting(model, built))
        update = median(b - a for a, b in pairwise(marks))
        return {"seconds": update, "rows": method.batch, "peak GB": used / 1e9, "planned GB": plan.need / 1e9}

    def measure_closed_form(self, name: str, size: Size, concepts: int) -> dict[str, Any]:
        """Measures a closed form of so many concepts."""
        model = self.open_model(size)
        model.fingerprint()
        method = methods.build_method(name, model, {})
        erasure = Erasure(list_concepts(concepts))
        marks: list[float] = []
        used = measure_peak(
            lambda: marks.append(measure_work(lambda: method.fit(model, erasure)).seconds), _list_weights(model)
        )
        return {"seconds": marks[0], "rows": len(erasure.targets), "peak GB": used / 1e9}

    def measure_attack(self, size: Size) -> dict[str, Any]:
        """Measures one gradient step of an attack on so many rows, with as many at once as fit."""
        model = self.open_model(size)
        rows = 4 if self.rehearse else self.rows
        plan = plan_gradients(model, rows, read_free_bytes(model.device))
        model.gradient_rows = plan.at_once if plan.at_once < rows else 0
        latents = torch.zeros(1, *model.latent_shape, device=model.device, dtype=model.state_dtype)
        denoising = DenoisingError(model, latents, [torch.Generator().manual_seed(i) for i in range(rows)])
        prompts = ["a cat"] * rows
        start = model.embed(model.tokenize(["car"])[:, 1:6]).detach().float().expand(rows, -1, -1)

        def work() -> None:
            states = denoising.draw_states()
            denoising.differentiate(states, start, lambda at, part: model.encode_with_grad(prompts[part], at))

        used = measure_peak(work, _list_weights(model))
        seconds = median(measure_work(work).seconds for _ in range(3))
        at_once = {"seconds": seconds, "rows": rows, "remark": f"{plan.at_once} rows at once"}
        return {**at_once, "peak GB": used / 1e9, "planned GB": plan.need / 1e9}

    def measure_drawing(self, size: Size, n: int, steps: int) -> dict[str, Any]:
        """Measures drawing n pictures in so many steps, including their decoding."""
        model = self.open_model(size)

        def work() -> None:
            model.images(["a cat"] * n, list(range(n)), steps=steps)

        used = measure_peak(work, _list_weights(model))
        return {"seconds": measure_work(work).seconds, "rows": n, "peak GB": used / 1e9}

    def describe_run(self) -> str:
        """The command; a rehearsal also says that it measured a tiny model."""
        if self.rehearse:
            return "`python -m benchmarks.gpu --rehearse`: tiny random models, whose speed says nothing of larger ones"
        return f"`python -m benchmarks.gpu{f' --quantised {self.quantised}' if self.quantised else ''}`"

    def write(self, lines: list[dict[str, Any]], took: float) -> None:
        """Writes the page, and the same as JSON."""
        flags = describe_flags(self)
        facts = describe_machine(flags=flags)
        write(self.out, "gpu", {"stamp": facts, "rows": lines, "seconds": took})
        titles = list(dict.fromkeys(title for line in lines for title in line))
        page = [f"# On {facts['device']}", "", f"{self.describe_run()}, {took / 60:.1f} minutes.", ""]
        page += [format_table(titles, [[line.get(title, "") for title in titles] for line in lines]), ""]
        page += ["Seconds are of an update, of a gradient step, or of all of a closed form and a drawing.", ""]
        page += [", ".join(f"{name} {value}" for name, value in facts.items() if name != "flags"), ""]
        write_whole(self.out / "gpu.md", "\n".join(page))
        print("\n".join(page))


def _list_resting(model: Any, built: Trainer) -> list[torch.Tensor]:
    """The weights, the trained tensors and the searched embeddings, which a prepared training holds in all its steps.

    The encodings of its preparation are forgotten, as the training itself does first.
    """
    model.forget_encodings()
    tables = [table for learner in built.learners for table in getattr(learner, "tables", {}).values()]
    searched = [tensor for table in tables for tensor in table.tensors.values()]
    return [*_list_weights(model), *list_tensors(built), *searched]


def _list_weights(model: Any) -> list[torch.Tensor]:
    parts = [
        getattr(model.pipeline, name, None) for name in ("unet", "transformer", "vae", "text_encoder", "text_encoder_2")
    ]
    return list_weights(*(part for part in parts if part is not None))


if __name__ == "__main__":
    tyro.cli(GPU).run()
