"""Estimates the most bytes of tensors on a device under each method and attack, from shapes; `plans` prints them.

A trained method is planned as before its run. A method in stages is planned by its first training. A closed form is
solved with weights that have shapes only and conditions that have numbers. A guide takes one step of a drawing. An
attack by words draws and decodes; an attack by gradients differentiates as many rows as fit.
"""

from __future__ import annotations

import dataclasses
from functools import cache
from typing import Any
from unittest import mock

import torch

from efface import attacks, methods
from efface.concept import Erasure
from efface.methods.guided import Guided
from efface.models.adapters.latent import SLICE
from efface.models.guider import predict_with_guidance
from efface.models.hooks.attention import record_cross_attention
from efface.models.offload import list_resting
from efface.models.trajectory import choose_image_batch
from efface.planning import estimating, shapes
from efface.planning.estimating import estimate_from_shapes
from efface.planning.gradients import plan_gradients
from efface.planning.plan import DoesNotFit
from efface.planning.probe_steps import Moments, find_peak
from efface.planning.shapes import measure_drawing_shapes, shapes_alone
from efface.planning.tracker import AllocationTracker, count_bytes
from efface.training.objectives.attention import Attention
from efface.training.trainer import Trainer

CAT = Erasure(("cat",), anchor="dog")
ROWS = 16
"""Rows that an attack takes together."""
EVERY: dict[str, Any] = {"attack_words": 0, "preserve_words": 100}
"""Settings that change no size and would take long without a GPU: words that are read one by one."""


class Reached(Exception):
    """Is raised when the first training within a method is reached, and holds it."""

    def __init__(self, trainer: Trainer) -> None:
        Exception.__init__(self)
        self.trainer = trainer


def measure_method(name: str, model: Any, micro_batch: int = 1, **settings: Any) -> dict[str, Any]:
    """Estimates the GB of a method, by what takes them; `how` says which of the ways above was used.

    Args:
        micro_batch: rows at once in the student's pass.
        settings: others than the paper's, as far as the method has them.
    """
    kind = methods.get(name)
    fields = {field.name for field in dataclasses.fields(kind)}
    more = {key: value for key, value in {**EVERY, "micro_batch": micro_batch, **settings}.items() if key in fields}
    method, asked = kind(**more), CAT if kind.uses_anchor else Erasure(("cat",))
    if isinstance(method, Guided):
        return _build_row(model, _measure_guided_step(method, asked, model), "a drawing step under the guide")
    if hasattr(method, "build_trainer"):
        return _list_planned(method.build_trainer(model, asked), "an update")

    def reach(trainer: Trainer, *_: Any, **__: Any) -> None:
        raise Reached(trainer)

    try:
        with mock.patch.object(Trainer, "train", reach), AllocationTracker(model.weights.values()) as tracker:
            method.fit(model, asked)
    except Reached as reached:
        reads_attention = any(isinstance(term, Attention) for term in reached.trainer.terms)
        return (_with_maps if reads_attention else _list_planned)(reached.trainer, "an update of its first training")
    return _build_row(model, tracker.peak, "solving")


def measure_attack(name: str, model: Any, limit: int) -> dict[str, Any]:
    """Estimates the GB of an attack on sixteen rows; one by gradients takes as many at once as fit into `limit`
    bytes."""
    drawing = _build_row(model, max(measure_drawing(model), measure_autoencoder(model, "decode")), "drawing")
    if attacks.get(name).threat != "gradients":
        return drawing
    whole = plan_gradients(model, ROWS, None)
    try:
        plan = plan_gradients(model, ROWS, limit)
    except DoesNotFit as error:
        return {"how": str(error)}
    step = {"a step": plan.step(plan.at_once) / 1e9, "all rows at once": whole.need / 1e9}
    most = max(plan.need / 1e9, drawing["peak GB"])
    return {**drawing, **step, "peak GB": most, "how": f"a gradient of {plan.at_once} of {ROWS} rows"}


def measure_drawing(model: Any) -> int:
    """The bytes of a guided step of as many pictures as are drawn at once."""
    return round(find_peak(measure_drawing_once(model, choose_image_batch(model.resolution))))


@cache
def measure_drawing_once(model: Any, n: int) -> Moments:
    """The moments of a guided step of n pictures, which all methods and attacks share."""
    return measure_drawing_shapes(model, n)


def measure_autoencoder(model: Any, what: str) -> int:
    """The bytes of decoding or encoding as many pictures as are taken at once, without the weights."""
    n, side = max(1, SLICE // model.resolution**2), model.resolution
    shape = (n, *model.latent_shape) if what == "decode" else (n, 3, side, side)
    with torch.no_grad(), shapes_alone(model, [*model.vae.parameters()]) as tracker:
        getattr(model.vae, what)(torch.zeros(shape, dtype=model.vae.dtype))
    return tracker.peak


def _measure_guided_step(method: Guided, asked: Erasure, model: Any) -> int:
    n = choose_image_batch(model.resolution)
    with method.fit(model, asked).apply(model):
        cond, uncond = model.encode(["a cat"]).expand(n), model.encode([""]).expand(n)
        with torch.no_grad(), AllocationTracker(model.weights.values()) as tracker:
            x, t = torch.zeros(n, *model.latent_shape, dtype=model.state_dtype), torch.tensor(501)
            predict_with_guidance(model, model.begin_sampling(cond, uncond, 7.5), 0, x, t)
    return tracker.peak


def _list_planned(trainer: Trainer, how: str) -> dict[str, Any]:
    with (
        mock.patch.object(estimating, "_count_kept", return_value=0),  # the last good state lies in the host's memory
        mock.patch.object(shapes, "measure_drawing_shapes", measure_drawing_once),
    ):
        plan = estimate_from_shapes(trainer)
    return {
        "weights": plan.weights / 1e9,
        "trained weights": plan.trained / 1e9,
        "a step": plan.learning / 1e9,
        "drawing": plan.sampling / 1e9,
        "peak GB": plan.need / 1e9,
        "how": how,
    }


def _with_maps(trainer: Trainer, how: str) -> dict[str, Any]:
    """Estimates an update that reduces the attention to a word, for one row, with the attention probabilities of every
    layer."""
    model, params = trainer.model, trainer.update.list_params()
    cond = model.encode(["a cat"])
    known = [*model.weights.values(), *params]
    with (
        shapes_alone(model, known) as tracker,
        record_cross_attention(model) as maps,
        model.frozen(),
        trainer.update.swapped_in(),
    ):
        model.predict(torch.zeros(1, *model.latent_shape, dtype=model.state_dtype), 1, cond)
        loss = torch.stack([probabilities.square().mean() for probabilities in maps.values()]).sum()
        torch.autograd.grad(loss, params, allow_unused=True)
    learns, drawing = 3 * count_bytes(params), measure_drawing(model)  # with Adam's two moments
    row = _build_row(model, learns + max(tracker.peak, drawing), how)
    return {**row, "trained weights": learns / 1e9, "a step": tracker.peak / 1e9, "drawing": drawing / 1e9}


def _build_row(model: Any, beside: int, how: str) -> dict[str, Any]:
    weights = count_bytes([*model.weights.values(), *list_resting(model)])
    return {"weights": weights / 1e9, "a step": beside / 1e9, "peak GB": (weights + beside) / 1e9, "how": how}
