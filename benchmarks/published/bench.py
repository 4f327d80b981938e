"""A training of the package beside copies of its network that share nothing, so that a loss can be written by hand.

The states (x_t, t) are the training's own, for how they are drawn is no part of a formula; prompts are encoded, losses
weighed and gradients taken by PyTorch and transformers alone.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from efface.concept import Erasure
from efface.methods.base import Trained
from efface.training.interfaces import Query, States, Step
from efface.training.loss_scale import compute_gradients
from efface.training.trainer import Trainer

Losses = Mapping[str, Tensor]
"""Losses by role: "erase", "keep", "cost"."""


@dataclass(frozen=True)
class Difference:
    """The largest relative differences that were found; None where there is nothing of the kind."""

    loss: float | None = None
    gradient: float | None = None
    closed_form: float | None = None
    prediction: float | None = None

    def largest(self) -> float:
        return max(v for v in (self.loss, self.gradient, self.closed_form, self.prediction) if v is not None)

    def join(self, other: Difference) -> Difference:
        """Takes the larger of each difference."""

        def worse(a: float | None, b: float | None) -> float | None:
            return b if a is None else a if b is None else max(a, b)

        names = ("loss", "gradient", "closed_form", "prediction")
        return Difference(*(worse(getattr(self, name), getattr(other, name)) for name in names))


def apart(ours: Tensor, theirs: Tensor) -> float:
    """Divides the norm of the difference by that of `theirs`."""
    size = theirs.double().norm().item()
    return (ours.double() - theirs.double()).norm().item() / size if size else ours.double().norm().item()


class Bench:
    """A training whose student has left the base, one step of it, and copies of its networks."""

    def __init__(self, method: Trained, model: Any, erasure: Erasure, learner: int = 0, far: float = 0.05) -> None:
        self.model, self.erasure = model, erasure
        self.trainer: Trainer = method.build_trainer(model, erasure)
        with torch.no_grad():
            for i, param in enumerate(self.trainer.update.list_optimised()):
                param.add_(far * torch.randn(param.shape, generator=torch.Generator().manual_seed(i)))
        getattr(self.trainer.update, "refresh", lambda: None)()
        self.learner = self.trainer.learners[learner]
        self.unet, self.text = copy.deepcopy(model.unet), copy.deepcopy(model.text_encoder)
        self.params = [param.detach().clone().requires_grad_() for param in self.learner.list_params()]

    def step(self) -> Step:
        """The step, anew: the same random choices at every call."""
        return self.trainer.make_step(self.trainer.learners.index(self.learner), self.learner)

    def build_queries(self, term: int) -> Mapping[str, Query]:
        """What a term asks in the step, after the terms that draw from the step's generator before it."""
        asked = self.trainer.collect_queries(self.step())
        return next(queries for each, queries in asked if each is self.trainer.terms[term])

    def read(self, *texts: str, n: int = 0) -> Tensor:
        """Final hidden states of prompts [len(texts), L, d], or of one for n rows, by the base's text encoder."""
        ids = self.model.tokenizer(list(texts), padding="max_length", max_length=8, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            said = self.text(ids).last_hidden_state
        return said.expand(n, -1, -1) if n else said

    def base(self, at: States, words: Tensor) -> Tensor:
        with torch.no_grad():
            return self.unet(at.x, at.t, words).sample

    def student(self, at: States, words: Tensor, weights: Mapping[str, Tensor] | None = None) -> Tensor:
        """The prediction by the parameters as values of the weights that may change, or by other weights."""
        given = self.weights() if weights is None else weights
        own = {name.removeprefix("unet."): tensor for name, tensor in given.items() if name.startswith("unet.")}
        return functional_call(self.unet, own, (at.x, at.t, words)).sample

    def weights(self) -> dict[str, Tensor]:
        return dict(zip(self.trainer.update.list_changed_names(), self.params, strict=True))

    def x0_weight(self, t: Tensor) -> Tensor:
        """(1 - ab) / ab, by diffusers' own schedule."""
        bars = self.model.pipeline.scheduler.alphas_cumprod[t].double()
        return (1 - bars) / bars

    def compare(self, theirs: Callable[[Bench], Losses], keep: float = 1.0) -> Difference:
        """Loss and gradient of the package beside those of a formula."""
        with self.trainer.compute_losses(self.step()) as found:
            shares = {role: keep if role == "keep" else 1.0 for role in found}
            total = torch.stack([shares[role] * loss for role, loss in found.items()]).sum()
            grads = compute_gradients(self.learner.list_params(), total)
            values = {str(role): loss.item() for role, loss in found.items()}
        losses = theirs(self)
        summed = torch.stack([(keep if role == "keep" else 1.0) * loss for role, loss in losses.items()]).sum()
        wanted = torch.autograd.grad(summed, self.params, allow_unused=True)
        missing = values.keys() ^ losses.keys()
        assert not missing, f"one side alone has the losses {missing}"
        return Difference(
            max(abs(values[role] - loss.item()) / abs(loss.item()) for role, loss in losses.items()),
            apart(flat(grads), flat([torch.zeros_like(p) if g is None else g for g, p in zip(wanted, self.params)])),  # noqa: B905
        )


def flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().flatten() for tensor in tensors])


def mse(one: Tensor, other: Tensor, weight: Tensor | None = None) -> Tensor:
    """The mean over all numbers of the squared differences, each row's times its weight."""
    each = (one - other).square().flatten(1).mean(1)
    return (each if weight is None else weight.to(each) * each).mean()
