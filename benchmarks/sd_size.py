"""Measures seconds of an update, time of a whole run, memory and share of the matmul peak at Stable Diffusion's size.

    python -m benchmarks.sd_size                                           # on a GPU: SD 1.5 at 512 px, all methods
    python -m benchmarks.sd_size --size sdxl --pixels 1024 --methods esd
    python -m benchmarks.sd_size --checkpointing --moments 8 --micro-batch 4 --methods erasediff   # goal: 14 GB
    python -m benchmarks.sd_size --updates 2 --warm 0 --paths 1 --draw-steps 2 --pictures 2  # on a CPU, to show it runs

Weights are random, because speed does not depend on them. A run's time is projected from the times of one update and
one drawn row, with the method's own number of both. FLOPs are counted by torch, and the peak is that of a product of
two matrices in the same run. The network of diffusers alone, compiled, is measured beside it for the same rows.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal

import torch
import tyro
from torch.utils.flop_counter import FlopCounterMode

import efface
from efface import methods
from efface.concept import Erasure
from efface.functional.words import list_other_words
from efface.models.fingerprint import CASTS
from efface.models.trajectory_cache import TrajectoryCache
from efface.planning.machine import read_resident_peak
from efface.training.subsets import select

from .common import (
    count_network,
    describe_flags,
    describe_machine,
    format_table,
    list_concepts,
    list_weights,
    measure_matmul_peak,
    measure_peak,
    measure_work,
    settle,
    time_alternately,
    write,
)
from .sizes import Size, build_pipeline

CONCEPTS = 100
CAT = Erasure(("cat",))


@dataclass(frozen=True, kw_only=True)
class SDSize:
    """Measures methods with random weights of Stable Diffusion's shapes."""

    size: Size = "sd"
    """sd is 1.5."""
    pixels: int = 512
    """A side; latents are an eighth."""
    methods: tyro.conf.UseAppendAction[tuple[str, ...]] = ()
    """Of esd, eap, erasediff, uce …; these four where none is given."""
    updates: int = 20
    """That are timed."""
    warm: int = 5
    """Before them, not timed."""
    paths: int = 0
    """Trajectories that are drawn; 0 is the method's own number."""
    keep_paths: int = 0
    """EAP's for each candidate; 0 is its own number."""
    centres: int = 0
    """EAP's candidates; 0 is its own number."""
    draw_steps: int = 0
    """Sampling steps of drawing; 0 is the method's own."""
    pictures: int = 8
    """Of each kind that EraseDiff draws here; the projection is for its own 800."""
    moments: Literal[32, 8] = 32
    """Bits of Adam's moments."""
    batch: int = 0
    """Rows of each term in an update; 0 is the method's own number."""
    micro_batch: int = 0
    """Rows at once in the student's pass; 0 is all."""
    dtype: str = "bf16"
    """The dtype of the weights; trained weights have fp32 masters."""
    device: str = ""
    """A GPU where there is one."""
    compile: bool = False
    """Compile the network."""
    checkpointing: bool = False
    """Recompute activations in the backward pass."""
    offload: bool = False
    """Keep text encoders and autoencoder on the CPU meanwhile."""
    bare: bool = True
    """Time the bare diffusers network beside it."""
    counts: bool = True
    """Count bytes and FLOPs too, by a fit each."""
    out: Path = Path("out/benchmarks/sd_size")
    """Folder of the result."""

    def run(self) -> None:
        if self.warm + self.updates < 2:
            raise SystemExit("an update is the time between two: give two --updates, or one and --warm 1")
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        peak = measure_matmul_peak(device, CASTS[self.dtype])
        rows = [self.measure_case(name, device, peak) for name in self.methods or ("esd", "eap", "erasediff", "uce")]
        beside = self.measure_beside(device) if self.bare else {}
        flags = describe_flags(self)
        write(
            self.out,
            f"{self.size}-{self.pixels}",
            {"stamp": describe_machine(flags=flags), "rows": rows, "bare": beside},
        )
        print(f"matmul peak, {self.dtype}: {peak / 1e12:.2f} TFLOP/s")
        titles = list(dict.fromkeys(title for row in rows for title in row))
        print(format_table(titles, [[row.get(title, "") for title in titles] for row in rows]))
        print(beside)

    def measure_case(self, name: str, device: torch.device, peak: float) -> dict[str, Any]:
        """Measures one method in this process."""
        model = self.open_model(device)
        fingerprint = measure_work(model.fingerprint).seconds
        if methods.get(name).kind != "trained":
            return self.measure_closed_form(name, model, fingerprint)
        method, whole = self.build_method(name, model, self.warm + self.updates), self.build_method(name, model, 0)
        with count_network(model.unet) as count:
            settle()
            start = time.perf_counter()
            marks = _read_after_rounds(method, model, _read_clock)
        rounds = [b - a for a, b in pairwise(marks)][max(0, self.warm - 1) :]
        update = median(rounds)
        drawing = (marks[0] - start - update) * _count_drawn_rows(whole, model) / _count_drawn_rows(method, model)
        return {
            "method": name,
            "seconds an update": update,
            "drawing, projected": drawing,
            "a whole run, projected": drawing + update * whole.steps,
            "process, peak GB": (read_resident_peak() or 0) / 1e9,
            "rows": count.rows,
            "fingerprint, seconds": fingerprint,
        } | (self.count_peak_and_flops(method, model, update, peak) if self.counts else {})

    def count_peak_and_flops(self, method: Any, model: Any, update: float, peak: float) -> dict[str, float]:
        """Measures the most bytes alive in a run, and the FLOPs of an update.

        By a fit each, for what counts FLOPs holds on to activations.
        """
        model.recordings = TrajectoryCache()  # so that these fits, whose counting slows them, draw as the timed one did
        used = measure_peak(lambda: method.fit(model, CAT), _list_weights(model))
        with FlopCounterMode(display=False) as counter:
            marks = _read_after_rounds(method, model, counter.get_total_flops)
        flops = median(b - a for a, b in pairwise(marks))
        return {"peak GB": used / 1e9, "TFLOP/s": flops / update / 1e12, "share of the peak": flops / update / peak}

    def measure_closed_form(self, name: str, model: Any, fingerprint: float) -> dict[str, Any]:
        """Measures a closed form for many concepts."""
        erasure = Erasure(list_concepts(CONCEPTS))
        method = methods.build_method(name, model, {})
        cost = measure_work(lambda: method.fit(model, erasure))
        used = measure_peak(lambda: method.fit(model, erasure), _list_weights(model))
        return {
            "method": f"{name}, {len(erasure.targets)} concepts",
            "a whole run, projected": cost.seconds,
            "process, peak GB": (read_resident_peak() or 0) / 1e9,
            "rows": cost.rows,
            "fingerprint, seconds": fingerprint,
            "peak GB": used / 1e9,
        }

    def open_model(self, device: torch.device) -> Any:
        made = build_pipeline(self.size, self.pixels, str(device), CASTS[self.dtype])
        how = {"compile": self.compile, "checkpointing": self.checkpointing, "offload": self.offload}
        return efface.load(made, str(device), **how)

    def build_method(self, name: str, model: Any, updates: int) -> Any:
        """Builds the method with so many updates, and with less drawing if the flags say so; 0 keeps its own number, to
        project from."""
        fields = {field.name for field in dataclasses.fields(methods.get(name))}
        more: dict[str, Any] = {"source": "frozen"} if "source" in fields else {}
        more |= {"moments": self.moments, "micro_batch": self.micro_batch} if "moments" in fields else {}
        if updates:
            more["steps"] = updates
            given = ("batch", "paths", "keep_paths", "centres", "draw_steps", "pictures")
            more |= {flag: getattr(self, flag) for flag in given if flag in fields and getattr(self, flag)}
            more |= {"remain_words": self.pictures} if "remain_words" in fields else {}
        return methods.build_method(name, model, more)

    def measure_beside(self, device: torch.device) -> dict[str, float]:
        """Measures the seconds of the network alone, compiled, and of ours: of a pass as in drawing, and of one as in
        training."""
        model = self.open_model(device)
        for tensor in model.weights.values():
            tensor.requires_grad_(False)
        learning = [model.weights[name].requires_grad_() for name in select(model.weights, "xattn")]
        compiled: Callable[..., Any] = torch.compile(model.unet) if device.type == "cuda" else model.unet
        found: dict[str, float] = {}
        times = 10 if device.type == "cuda" else 5
        for rows in (1, 16) if device.type == "cuda" else (1,):
            x = torch.zeros(rows, *model.latent_shape, device=device, dtype=model.dtype)
            cond = model.encode([""]).expand(rows)
            t = torch.ones(rows, device=device)
            passes = {"ours": partial(model.predict, x, t, cond), "bare": partial(_call_alone, compiled, x, t, cond)}
            works = {"drawn": _draw, "learned": partial(_differentiate, learning=learning)}
            for what, work in works.items():
                seconds = time_alternately({who: partial(work, network) for who, network in passes.items()}, times)
                found |= {f"{who}, {rows} rows {what}": median(seconds[who]) for who in passes}
        return found


def _read_clock() -> float:
    settle()
    return time.perf_counter()


def _read_after_rounds(method: Any, model: Any, read: Callable[[], float]) -> list[float]:
    """Fits an edit, and returns what `read` gives after each round, which is an update and the steps of searches."""
    marks: list[float] = []

    def mark(done: int, of: int, **_: Any) -> None:
        if done % (of // method.steps) == 0:
            marks.append(read())

    method.fit(model, CAT, progress=mark)
    return marks


def _count_drawn_rows(method: Any, model: Any) -> int:
    """The number of rows that the method draws before it trains, two for each step of a picture."""
    forms = len(method.templates)
    if hasattr(method, "source"):
        pictures = (method.paths + getattr(method, "keep_paths", 0) * getattr(method, "centres", 0)) * forms
    else:  # as many of each prompt, of the target and of what remains
        words = list_other_words(model.list_words(3000), CAT.targets)[: method.remain_words]
        pictures = sum(-(-method.pictures // prompts) * prompts for prompts in (forms, len(words) * forms))
    return pictures * 2 * method.draw_steps


def _draw(network: Callable[[], Any]) -> None:
    with torch.no_grad():
        network()


def _differentiate(network: Callable[[], Any], learning: Sequence[torch.Tensor]) -> None:
    torch.autograd.grad(network()[0].float().square().mean(), learning, allow_unused=True)


def _call_alone(network: Callable[..., Any], x: Any, t: Any, cond: Any) -> Any:
    """Calls the network alone."""
    held = cond.tensors
    added = {"text_embeds": held["pooled"], "time_ids": held["time_ids"]} if "pooled" in held else None
    return network(x, t, encoder_hidden_states=cond.tokens, added_cond_kwargs=added, return_dict=False)


def _list_weights(model: Any) -> list[Any]:
    parts = [getattr(model.pipeline, name, None) for name in ("unet", "vae", "text_encoder", "text_encoder_2")]
    return list_weights(*(part for part in parts if part is not None))


if __name__ == "__main__":
    tyro.cli(SDSize).run()
