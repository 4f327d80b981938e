"""The losses of the methods that train on noised pictures, and EraseDiff's step, by hand."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize
from torch import Tensor

from efface.concept import Erasure
from efface.methods.ac import AC
from efface.methods.erasediff import EraseDiff
from efface.methods.salun import SalUn
from efface.training.loss_scale import compute_gradients

from .bench import Bench, Difference, Losses, apart, flat, mse
from .trained import CAT, PICTURES, QUICK, TO_DOG, find_denoising

KEEP_DOG = Erasure(("cat",), anchor="dog", keep=("car",))


class StartDetached:
    """Concept ablation's attention: the first token's key and value are parted from their gradients."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor | None = None, *_: Any, **__: Any
    ) -> Tensor:
        words = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key, value = attn.to_q(hidden_states), attn.to_k(words), attn.to_v(words)
        if encoder_hidden_states is not None:
            mask = (torch.arange(key.shape[1]) > 0).to(key)[:, None]
            key, value = (mask * part + (1 - mask) * part.detach() for part in (key, value))
        query, key, value = (attn.head_to_batch_dim(part) for part in (query, key, value))
        weights = torch.softmax(query @ key.transpose(1, 2) * attn.scale, dim=-1)
        return attn.to_out[1](attn.to_out[0](attn.batch_to_head_dim(weights @ value)))


def ac(model: Any) -> Difference:
    """Eq. 4 with the student's own prediction for the anchor held, and eq. 5; no gradient by the start token."""

    def by_model(b: Bench) -> Losses:
        at = b.build_queries(0)["student"].states
        goal = b.student(at, b.read("dog", n=3)).detach()
        return {"erase": mse(b.student(at, b.read("cat", n=3)), goal)}

    found = Difference()
    for variant, theirs in (("model", by_model), ("noise", lambda b: {"erase": find_denoising(b, 0)})):
        bench = Bench(AC(**QUICK, pictures=3, variant=variant), model, TO_DOG)
        bench.unet.set_attn_processor(StartDetached())
        found = found.join(bench.compare(theirs))
    return found


def _random_label(b: Bench, label: str) -> Losses:
    """|| eps_th(x_t, c_f) - sg eps_th(x_t, c_m) ||^2 on forget pictures, the training loss on what remains."""
    at = b.build_queries(0)["student"].states
    wrong = b.student(at, b.read(label, n=3)).detach()
    return {"erase": mse(b.student(at, b.read("cat", n=3)), wrong), "keep": find_denoising(b, 1)}


def salun(model: Any) -> Difference:
    """The loss, and a step of Adam on gradients masked by the largest half of the saliency."""
    bench = Bench(SalUn(**QUICK, **PICTURES, alpha=0.4, lr=1e-2), model, KEEP_DOG, far=0.0)
    found = bench.compare(lambda b: _random_label(b, "dog"), 0.4)
    update, start = bench.trainer.update, [p.detach().clone() for p in bench.params]
    masks = _saliency(bench)
    with bench.trainer.compute_losses(bench.step()) as losses:
        grads = compute_gradients(update.list_params(), losses["erase"] + 0.4 * losses["keep"])
    update.step(grads)
    theirs = [param.clone().requires_grad_() for param in start]
    adam = torch.optim.Adam(theirs, lr=1e-2)
    for param, grad, mask in zip(theirs, grads, masks, strict=True):
        param.grad = grad * mask
    adam.step()
    ours = flat([p - s for p, s in zip(update.list_params(), start, strict=True)])
    return found.join(Difference(gradient=apart(ours, flat([p - s for p, s in zip(theirs, start, strict=True)]))))


def _saliency(bench: Bench) -> list[Tensor]:
    """The largest half of |sum over the forget set of d || (8.5 eps(c) - 7.5 eps("")) - eps ||^2|, over all tensors."""
    update, twin = bench.trainer.update, copy.deepcopy(bench.unet)
    shelf = bench.trainer.terms[0].source.store  # type: ignore[attr-defined]
    with bench.trainer.compute_losses(bench.step()):
        pass  # the pictures are drawn when they are first needed
    rng = torch.Generator().manual_seed(2**43)
    x0 = shelf["cat"]
    t = torch.randint(1000, (len(x0),), generator=rng)
    noise = torch.randn(x0.shape, generator=rng)
    bars = bench.model.pipeline.scheduler.alphas_cumprod[t].view(-1, 1, 1, 1)
    x = bars.sqrt() * x0 + (1 - bars).sqrt() * noise
    named, plain = (twin(x, t, bench.read(text, n=len(x0))).sample for text in ("cat", ""))
    mse(8.5 * named - 7.5 * plain, noise).backward()
    size = [twin.get_parameter(n.removeprefix("unet.")).grad.abs() for n in update.list_changed_names()]
    bound = torch.cat([s.flatten() for s in size]).sort(descending=True).values
    return [(s >= bound[round(0.5 * len(bound)) - 1]).float() for s in size]


def erasediff(model: Any) -> Difference:
    """Both losses, and the step: the nearest to grad L_r of those that lower g at the rate, found by a solver."""
    method = EraseDiff(**QUICK, **PICTURES, label="car", eta=0.6)
    bench = Bench(method, model, CAT)
    found = bench.compare(lambda b: _random_label(b, "car"))
    trainer, step = bench.trainer, bench.step()
    ours = flat(trainer.balance(lambda shares: trainer.compute_gradient(step, shares), None))
    with trainer.compute_losses(bench.step()) as losses:
        forget = flat(compute_gradients(trainer.update.list_params(), losses["erase"])).double()
    with trainer.compute_losses(bench.step()) as losses:
        keep = flat(compute_gradients(trainer.update.list_params(), losses["keep"])).double()
    # The answer lies in the plane of both gradients: two numbers are sought.
    gram = torch.stack([keep, forget]) @ torch.stack([keep, forget]).T
    g = gram.numpy() / gram[1, 1].item()

    def far(a: np.ndarray) -> float:
        d = a - np.array([1.0, 0.0])
        return float(d @ g @ d)

    rate = {"type": "ineq", "fun": lambda a: float(g[1] @ a) - 0.6}
    best = minimize(far, np.zeros(2), constraints=[rate], method="SLSQP", options={"ftol": 1e-16, "maxiter": 500}).x
    return found.join(Difference(gradient=apart(ours, best[0] * keep + best[1] * forget)))
