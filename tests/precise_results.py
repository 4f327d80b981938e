"""Results that are smooth enough to be compared between dtypes: gradients before Adam, closed forms, latents.

What Adam makes of a gradient goes by its sign in the first steps, so the smallest numbers, whose signs rounding
decides, weigh as much as all others in an edit. Before Adam they weigh nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import efface
from efface.attacks.denoising_error import DenoisingError
from efface.methods.base import Trained
from efface.models.base import Model
from efface.models.trajectory_cache import TrajectoryCache
from tiny import WORDS, small_pipeline
from tiny_fits import build_quick, build_request

HALF = torch.bfloat16


def open_at(dtype: torch.dtype, device: str = "cpu", prediction: Any = "epsilon") -> Model:
    """A tiny model whose weights are numbers of bf16, so that it is the same at every dtype."""
    pipeline = small_pipeline()
    pipeline.scheduler.register_to_config(prediction_type=prediction)
    model = efface.load(pipeline.to(dtype=HALF).to(dtype=dtype), device)
    model.own_words = WORDS  # type: ignore[attr-defined]
    model.fingerprint()
    return model


def list_networks(model: Any) -> list[Any]:
    return [model.unet, model.text_encoder]


def begin(model: Model) -> None:
    """Forgets what was encoded and drawn, which another arithmetic would give otherwise."""
    torch.manual_seed(0)
    model.forget_encodings()
    model.recordings = TrajectoryCache()


def fit(name: str, model: Model, factor: float | None = None, **more: Any) -> Tensor:
    """What a method does to the model, [n]: a training's first gradient; else what a closed form or stages moved."""
    begin(model)
    method = build_quick(name, model, **more)
    if isinstance(method, Trained) and name not in ("mace", "stereo"):
        trainer = method.build_trainer(model, build_request(name))
        trainer.loss_scale.factor = trainer.loss_scale.factor if factor is None else factor
        step = trainer.make_step(0, trainer.update)
        grads = trainer.compute_gradient(step, {"erase": 1.0, "keep": 1.0, "cost": 1.0})[1]
        return torch.cat([grad.detach().double().cpu().flatten() for grad in grads])
    values, base = method.fit(model, build_request(name)).values, model.weights
    return torch.cat([(values[k].double().cpu() - base[k].detach().double().cpu()).flatten() for k in sorted(values)])


def draw(model: Model, steps: int = 6) -> Tensor:
    """Latents of two pictures [2, c, h, w]."""
    begin(model)
    return model.sample(model.encode(["a cat", "a dog"]), model.encode([""]), [1, 2], steps=steps).x


def attack(model: Model, at: int | None = None) -> Tensor:
    """The gradient of an attack's error for token embeddings of two rows, [2, 2, d]; noised to timestep `at`."""
    begin(model)
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(5))
    rngs = [torch.Generator().manual_seed(i) for i in range(2)]
    error = DenoisingError(model, latents.to(model.device, model.state_dtype), rngs)
    start = model.embed(model.tokenize(["car"])[:, 1:3]).detach().float().expand(2, -1, -1)  # type: ignore[attr-defined]
    read = lambda x, part: model.encode_with_grad(["a cat"] * (part.stop - part.start), x)  # noqa: E731
    return error.differentiate(error.draw_states(at), start, read)[1]


def measure_move(model: Model) -> Tensor:
    """What the first step of ESD adds to the weights, [n], where it is far less than a weight."""
    begin(model)
    values = build_quick("esd", model, steps=1, lr=1e-5).fit(model, build_request("esd")).values
    return torch.cat(
        [(values[k].double() - model.weights[k].detach().double().cpu()).flatten() for k in sorted(values)]
    )
