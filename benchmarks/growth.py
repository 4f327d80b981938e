"""Measures how time and memory grow with concepts, trained parameters, resolution and batch, and time with much work.

    python -m benchmarks.growth                      # the embedded model, all axes
    python -m benchmarks.growth --only batch --most 16
    python -m benchmarks.growth --only targets --only rows --only edits --only "attack rows"

Each point is a run of its own. It gives the seconds of an update (for the closed form those of all its work) and the
most bytes of tensors that are alive, beside what the planner estimated. Plots are written as SVG. For the axes of
`growth_sizes` the power of the growth is fitted.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any, Literal, get_args

import tyro

import efface
from efface import methods
from efface.concept import Erasure
from efface.files import check_file
from efface.planning.estimating import estimate

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
from .growth_sizes import POINTS, fit_growth, measure
from .plots import Line, plot

Axis = Literal["concepts", "parameters", "resolution", "batch"]
Work = Literal["targets", "rows", "edits", "attack rows"]
SUBSETS = ("xattn-strict", "xattn", "selfattn", "noxattn", "full")


def build_flags(axis: Axis, n: int) -> dict[str, Any]:
    """The settings of a trained method at a point; the other axes change the model or the request."""
    return {"weights": SUBSETS[n]} if axis == "parameters" else {"batch": n} if axis == "batch" else {}


@dataclass(frozen=True, kw_only=True)
class Growth:
    """Measures time and memory along one axis at a time."""

    only: tyro.conf.UseAppendAction[tuple[Axis | Work, ...]] = ()
    """Axes; all where none is given."""
    method: str = "esd"
    """A trained method; concepts are also given to uce."""
    most: int = 0
    """The last point of an axis, where it is too far: 100 concepts, 4 times the latents' side, 64 rows."""
    updates: int = 5
    """Timed, after one that is not."""
    model: str = "glyphs"
    """A name or a folder."""
    out: Path = Path("out/benchmarks/growth")
    """Folder for the result and its plots."""

    def run(self) -> None:
        found: dict[str, list[dict[str, Any]]] = {}
        for axis in self.only or (*get_args(Axis), *get_args(Work)):
            if axis in get_args(Work):
                found[axis] = self.measure_work(axis)
                write(self.out, "growth", {"stamp": describe_machine(flags=describe_flags(self)), "axes": found})
                continue
            found[axis] = [point for n in self.points(axis) for point in self.measure_point(axis, n)]
            print(
                axis, format_table(list(found[axis][0]), [list(p.values()) for p in found[axis]]), sep="\n", flush=True
            )
            for what in ("seconds", "MB"):
                self.draw(axis, what, found[axis])
            write(self.out, "growth", {"stamp": describe_machine(flags=describe_flags(self)), "axes": found})

    def measure_work(self, axis: Work) -> list[dict[str, Any]]:
        """Measures seconds at each point of an axis of `growth_sizes`, and the power with which they grow."""
        model: Any = efface.load(self.model)
        measure(axis, POINTS[axis][0], model)  # the first time costs what later ones do not
        points = [n for n in POINTS[axis] if not self.most or n <= self.most]
        found = [{axis: n, "seconds": measure(axis, n, model)} for n in points]
        power = fit_growth([(each[axis], each["seconds"]) for each in found])
        print(
            axis,
            format_table([axis, "seconds"], [list(p.values()) for p in found]),
            f"n^{power:.2f}",
            sep="\n",
            flush=True,
        )
        return [{**each, "power": power} for each in found]

    def points(self, axis: Axis) -> Sequence[int]:
        """The points at which to measure; for the parameters, the place in SUBSETS."""
        all_ = {"concepts": (1, 2, 5, 10, 20, 50, 100), "resolution": (1, 2, 3, 4), "batch": (1, 2, 4, 8, 16, 32, 64)}
        if axis == "parameters":
            return range(len(SUBSETS))
        return [n for n in all_[axis] if not self.most or n <= self.most]

    def measure_point(self, axis: Axis, n: int) -> list[dict[str, Any]]:
        """Measures a trained method at this point, and for concepts a closed form too."""
        rows = [self.measure_training(axis, n, build_flags(axis, n))]
        if axis == "concepts":
            rows.append(self.measure_closed_form(n))
        return rows

    def open_model(self, axis: Axis, n: int) -> Any:
        model: Any = efface.load(self.model)
        if axis == "resolution":
            channels, side, _ = model.latent_shape
            model.latent_shape = (channels, side * n, side * n)
        return model

    def build_erasure(self, axis: Axis, n: int) -> Erasure:
        return Erasure(list_concepts(n) if axis == "concepts" else ("cat",))

    def measure_training(self, axis: Axis, n: int, more: dict[str, Any]) -> dict[str, Any]:
        """Measures seconds of an update and bytes, with few trajectories, because their drawing is not measured
        here."""
        few = {"steps": self.updates + 1, "source": "frozen", "paths": 1, "draw_steps": 2, **more}
        marks: list[float] = []

        def mark(*_: Any, **__: Any) -> None:
            settle()
            marks.append(time.perf_counter())

        model = self.open_model(axis, n)
        method: Any = methods.build_method(self.method, model, few)
        erasure = self.build_erasure(axis, n)
        plan = estimate(method.build_trainer(model, erasure))
        method.fit(model, erasure, progress=mark)
        again = self.open_model(axis, n)
        short = dataclasses.replace(method, steps=2)
        used = measure_peak(lambda: short.fit(again, erasure), list_weights(again.unet, again.vae, again.text_encoder))
        trained = sum(
            model.weights[name].numel() for name in method.build_trainer(model, erasure).update.list_changed_names()
        )
        x = trained if axis == "parameters" else model.latent_shape[1] if axis == "resolution" else n
        seconds = median(b - a for a, b in pairwise(marks))
        return {"of": self.method, axis: x, "seconds": seconds, "MB": used / 1e6, "planned MB": plan.need / 1e6}

    def measure_closed_form(self, n: int) -> dict[str, Any]:
        model = self.open_model("concepts", n)
        erasure, method = self.build_erasure("concepts", n), methods.build_method("uce", model, {})
        model.fingerprint()
        cost = measure_work(lambda: method.fit(model, erasure))
        again = self.open_model("concepts", n)
        used = measure_peak(lambda: method.fit(again, erasure), list_weights(again.unet, again.vae, again.text_encoder))
        return {"of": "uce", "concepts": n, "seconds": cost.seconds, "MB": used / 1e6, "planned MB": float("nan")}

    def draw(self, axis: Axis, what: str, points: Sequence[dict[str, Any]]) -> None:
        """Draws a line for each method."""
        names = list(dict.fromkeys(p["of"] for p in points))
        pick: Callable[[str], list[tuple[float, float]]] = lambda name: sorted(  # noqa: E731
            (p[axis], p[what]) for p in points if p["of"] == name
        )
        file = check_file(self.out / f"{axis}-{what.lower()}.svg")
        file.write_text(plot([Line(name, pick(name)) for name in names], axis, what), encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(Growth).run()
